//! An observer sees exactly the bytes, before anybody else does, and has the last word.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Sender, channel};
use std::thread::scope;

use waylay_relay::{BUFFER_BYTES, Direction, Observer, RelayError, Verdict};

use crate::link::{Link, outcome, read_to_reset, runtime};
use crate::pattern;

struct Recorder(Sender<(Direction, Vec<u8>)>);

impl Observer for Recorder {
    fn bytes(&mut self, direction: Direction, bytes: &[u8]) -> Verdict {
        assert!((1..=BUFFER_BYTES).contains(&bytes.len()));
        self.0.send((direction, bytes.to_vec())).unwrap();
        Verdict::Forward
    }
}

#[test]
fn it_sees_exactly_the_bytes_in_order() {
    const TOTAL: usize = 3_000_001;
    let (sender, chunks) = channel();
    let Link { client, server, relay } = Link::observed(Recorder(sender));
    scope(|scope| {
        for (socket, seed) in [(&client, 1), (&server, 2)] {
            scope.spawn(move || {
                pattern::send(socket, seed, TOTAL as u64, |_| ()).unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
            });
        }
        scope.spawn(|| pattern::receive(&client, 2, |_| ()).unwrap());
        scope.spawn(|| pattern::receive(&server, 1, |_| ()).unwrap());
    });
    outcome(relay).unwrap();

    let (mut up, mut down) = (Vec::new(), Vec::new());
    for (direction, bytes) in chunks {
        match direction {
            Direction::ToDestination => up.extend(bytes),
            Direction::ToApplication => down.extend(bytes),
        }
    }
    for (seen, seed) in [(up, 1), (down, 2)] {
        assert!(seen == pattern::stream(seed, TOTAL));
    }
}

#[test]
fn its_stop_resets_both_sides_and_forwards_nothing_of_the_chunk() {
    let stop_at_x =
        |_: Direction, bytes: &[u8]| if bytes.contains(&b'x') { Verdict::Stop } else { Verdict::Forward };
    let Link { mut client, mut server, relay } = Link::observed(stop_at_x);
    client.write_all(b"fine").unwrap();
    server.read_exact(&mut [0; 4]).unwrap();
    server.write_all(b"exact").unwrap();

    let error = outcome(relay).unwrap_err();
    assert!(matches!(error, RelayError::Stopped { direction: Direction::ToApplication, .. }), "{error:?}");
    assert_eq!((error.transfer().to_destination, error.transfer().to_application), (4, 0));
    assert!(error.io_error().is_none() && error.side().is_none() && error.operation().is_none());
    assert_eq!(read_to_reset(client), b"");
    assert_eq!(read_to_reset(server), b"");
}

#[test]
fn its_panic_resets_both_sides() {
    let Link { mut client, server, relay } =
        Link::observed(|_: Direction, _: &[u8]| -> Verdict { panic!("a bug") });
    client.write_all(b"anything").unwrap();
    assert!(runtime().block_on(relay).unwrap_err().is_panic());
    assert_eq!(read_to_reset(client), b"");
    assert_eq!(read_to_reset(server), b"");
}
