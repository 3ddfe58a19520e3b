//! A reset of one peer is a reset to the other, whatever the relay is doing at the time.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use waylay_relay::{RelayError, Side};

use crate::link::{Link, outcome, read_to_reset, reset};

fn assert_reset_by(error: RelayError, side: Side) {
    assert_eq!(error.side(), Some(side), "{error:?}");
    assert_eq!(error.io_error().unwrap().kind(), ErrorKind::ConnectionReset, "{error:?}");
}

#[test]
fn of_the_application_reaches_the_destination() {
    let Link { mut client, mut server, relay } = Link::new();
    client.write_all(b"half a requ").unwrap();
    server.read_exact(&mut [0; 11]).unwrap();
    reset(client);
    assert_eq!(read_to_reset(server), b"");
    let error = outcome(relay).unwrap_err();
    assert_eq!(error.transfer().to_destination, 11);
    assert_reset_by(error, Side::Application);
}

#[test]
fn of_the_destination_reaches_the_application() {
    let Link { mut client, mut server, relay } = Link::new();
    server.write_all(b"half an ans").unwrap();
    client.read_exact(&mut [0; 11]).unwrap();
    reset(server);
    assert_eq!(read_to_reset(client), b"");
    let error = outcome(relay).unwrap_err();
    assert_eq!(error.transfer().to_application, 11);
    assert_reset_by(error, Side::Destination);
}

#[test]
fn after_a_half_close_is_still_a_reset() {
    let Link { client, mut server, relay } = Link::new();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    reset(server);
    assert_eq!(read_to_reset(client), b"");
    assert_reset_by(outcome(relay).unwrap_err(), Side::Destination);
}

#[test]
fn of_an_application_that_left_with_its_answer_unread_reaches_the_destination() {
    let Link { client, mut server, relay } = Link::new();
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    // The relay's second write at the latest meets a socket that no longer exists.
    while server.write_all(&[1; 4096]).is_ok() {}
    let error = outcome(relay).unwrap_err();
    assert_eq!(error.side(), Some(Side::Application), "{error:?}");
}

#[test]
fn is_noticed_while_the_other_side_does_not_read() {
    let Link { client, server, relay } = Link::new();
    client.set_nonblocking(true).unwrap();
    // Enough attempts to fill whatever the kernel holds; none of the bytes is ever read by the server.
    let mut full = 0;
    while full < 1000 {
        match (&client).write(&[1; 65536]) {
            Ok(count) => full = if count == 0 { full } else { 0 },
            Err(_) => {
                full += 1;
                std::thread::yield_now();
            }
        }
    }
    reset(client);
    assert_reset_by(outcome(relay).unwrap_err(), Side::Application);
    assert!(read_to_reset(server).iter().all(|byte| *byte == 1));
}

#[test]
fn leaves_the_bytes_before_it_readable() {
    let Link { client, mut server, relay } = Link::new();
    server.write_all(&[5; 1000]).unwrap();
    reset(server);
    assert_reset_by(outcome(relay).unwrap_err(), Side::Destination);
    assert_eq!(read_to_reset(client), [5; 1000]);
}
