//! Large directions are spliced: the stream stays what it is, whenever that begins and ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{scope, sleep, spawn, yield_now};
use std::time::Duration;

use proptest::prelude::*;
use rustix::net::{SendFlags, send};
use waylay_relay::{Direction, Observer, RelayError, Side, Transfer, Verdict};

use crate::link::{Link, outcome, reset};
use crate::pattern;

const MIB: u64 = 1024 * 1024;

/// Looks now and then, by no rule that the relay could know.
struct Blinking(AtomicU64);

impl Observer for Blinking {
    fn bytes(&mut self, _: Direction, _: &[u8]) -> Verdict {
        Verdict::Forward
    }

    fn looks(&self, _: Direction) -> bool {
        // Long enough in either state for the relay to change over.
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        pattern::mix(asked / 64).is_multiple_of(2)
    }
}

#[derive(Clone, Copy, Debug)]
struct Step {
    bytes: usize,
    pause: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![1..100usize, 1000..70_000usize, 200_000..3_000_000usize];
    let step = (bytes, any::<bool>()).prop_map(|(bytes, pause)| Step { bytes, pause });
    prop::collection::vec(step, 1..12)
}

fn write_in_steps(mut to: &TcpStream, stream: &[u8], steps: &[Step]) {
    let mut rest = stream;
    for step in steps {
        let (now, later) = rest.split_at(step.bytes);
        to.write_all(now).unwrap();
        rest = later;
        if step.pause {
            sleep(Duration::from_millis(1));
        }
    }
    to.shutdown(Shutdown::Write).unwrap();
}

/// After the first steps it reads as fast as it can, or the slowest would take hours.
fn read_in_steps(mut from: &TcpStream, steps: &[Step]) -> Vec<u8> {
    let mut received = Vec::new();
    for step in steps.iter().cycle().take(100) {
        from.take(step.bytes as u64).read_to_end(&mut received).unwrap();
        if step.pause {
            sleep(Duration::from_millis(1));
        }
    }
    from.read_to_end(&mut received).unwrap();
    received
}

fn pass(observer: impl Observer + Send + Sync + 'static, writes: [&[Step]; 2], reads: [&[Step]; 2]) {
    let streams =
        [0, 1].map(|side| pattern::stream(side as u64, writes[side].iter().map(|step| step.bytes).sum()));
    let Link { client, server, relay } = Link::observed(observer);
    scope(|scope| {
        scope.spawn(|| write_in_steps(&client, &streams[0], writes[0]));
        scope.spawn(|| write_in_steps(&server, &streams[1], writes[1]));
        let at_server = scope.spawn(|| read_in_steps(&server, reads[0]));
        let at_client = scope.spawn(|| read_in_steps(&client, reads[1]));
        assert!(at_server.join().unwrap() == streams[0]);
        assert!(at_client.join().unwrap() == streams[1]);
    });
    let [to_destination, to_application] = streams.map(|stream| stream.len() as u64);
    assert_eq!(outcome(relay).unwrap(), Transfer { to_destination, to_application });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_rhythm_the_stream_is_the_same(
        writes in [steps(), steps()],
        reads in [steps(), steps()],
        blinking in any::<bool>(),
    ) {
        let (writes, reads) = ([&writes[0][..], &writes[1]], [&reads[0][..], &reads[1]]);
        if blinking { pass(Blinking(AtomicU64::new(0)), writes, reads) } else { pass((), writes, reads) }
    }
}

/// What is sent as urgent can't be spliced, nor is it read with the others.
#[test]
fn a_byte_out_of_band_neither_stops_nor_shortens_the_stream() {
    let Link { client, server, relay } = Link::new();
    let (first, second) = (pattern::stream(1, 32 * MIB as usize), pattern::stream(2, 32 * MIB as usize));
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    let reader = spawn(move || {
        let (mut received, mut chunk) = (Vec::new(), vec![0; MIB as usize]);
        loop {
            match (&server).read(&mut chunk).unwrap() {
                0 => return received,
                read => received.extend_from_slice(&chunk[..read]),
            }
            count.store(received.len(), Ordering::Relaxed);
        }
    });
    (&client).write_all(&first).unwrap();
    assert_eq!(send(&client, b"!", SendFlags::OOB).unwrap(), 1);
    (&client).write_all(&second).unwrap();
    // A kernel knows one urgent byte at a time: one that has not been passed when the next is announced becomes an
    // ordinary byte, and a receive buffer may hold all of the above.
    while arrived.load(Ordering::Relaxed) <= first.len() {
        yield_now();
    }
    // The last thing before the end, too: an end-of-file must not be seen in front of what follows it.
    assert_eq!(send(&client, b"!", SendFlags::OOB).unwrap(), 1);
    (&client).write_all(b"the end").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let received = reader.join().unwrap();
    assert!(received == [&first[..], &second, b"the end"].concat(), "{} bytes", received.len());
    assert_eq!(outcome(relay).unwrap().to_destination, 64 * MIB + 7);
}

#[test]
fn a_reset_in_the_middle_is_a_reset_to_the_other_side() {
    let Link { client, server, relay } = Link::new();
    let received = AtomicU64::new(0);
    scope(|scope| {
        scope.spawn(|| {
            // Ends by the reset, which the relay passes on.
            let error = pattern::receive(&client, 1, |count| received.store(count, Ordering::Relaxed));
            assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
        let sent = pattern::send(&server, 1, 64 * MIB, |_| ());
        sent.unwrap();
        while received.load(Ordering::Relaxed) < 16 * MIB {
            yield_now();
        }
        reset(server);
    });
    let error = outcome(relay).unwrap_err();
    assert!(matches!(error, RelayError::Socket { side: Side::Destination, .. }), "{error:?}");
}

/// The memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_slow_reader_costs_no_memory_and_holds_the_sender_back() {
    const TOTAL: u64 = 256 * MIB;
    let Link { client, server, relay } = Link::new();
    let sent = AtomicU64::new(0);
    scope(|scope| {
        scope.spawn(|| {
            pattern::send(&client, 1, TOTAL, |count| sent.store(count, Ordering::Relaxed)).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        // Enough to be spliced by then; afterwards nobody reads.
        let mut first = vec![0; 8 * MIB as usize];
        (&server).read_exact(&mut first).unwrap();
        let before = resident();
        let stalled = until_unchanged(&sent);
        let grown = resident().saturating_sub(before);
        assert!(stalled < TOTAL / 2, "{stalled} bytes were swallowed");
        assert!(grown < 4 * MIB, "the process grew by {grown} bytes");

        let mut rest = Vec::new();
        (&server).read_to_end(&mut rest).unwrap();
        assert!([first, rest].concat() == pattern::stream(1, TOTAL as usize));
    });
    client.shutdown(Shutdown::Both).unwrap();
    drop(server);
    assert_eq!(outcome(relay).unwrap().to_destination, TOTAL);
}

/// Its value once it has stood still for a while.
fn until_unchanged(count: &AtomicU64) -> u64 {
    loop {
        let before = count.load(Ordering::Relaxed);
        sleep(Duration::from_millis(300));
        if count.load(Ordering::Relaxed) == before {
            return before;
        }
    }
}
