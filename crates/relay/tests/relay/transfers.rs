//! Everything arrives, in order, and both ends are orderly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{scope, spawn};
use std::time::Duration;

use waylay_relay::Transfer;

use crate::link::{Link, outcome, pair, relay};
use crate::pattern;

const MIB: u64 = 1024 * 1024;

fn send_and_finish(to: &TcpStream, seed: u64, total: u64) {
    pattern::send(to, seed, total, |_| ()).unwrap();
    to.shutdown(Shutdown::Write).unwrap();
}

fn receive(from: &TcpStream, seed: u64) -> u64 {
    pattern::receive(from, seed, |_| ()).unwrap()
}

#[test]
fn both_directions_at_once_arrive_byte_for_byte() {
    let Link { client, server, relay } = Link::new();
    scope(|scope| {
        scope.spawn(|| send_and_finish(&client, 1, 64 * MIB));
        scope.spawn(|| send_and_finish(&server, 2, 64 * MIB + 5));
        scope.spawn(|| assert_eq!(receive(&server, 1), 64 * MIB));
        scope.spawn(|| assert_eq!(receive(&client, 2), 64 * MIB + 5));
    });
    let expected = Transfer { to_destination: 64 * MIB, to_application: 64 * MIB + 5 };
    assert_eq!(outcome(relay).unwrap(), expected);
}

#[test]
fn the_answer_follows_the_end_of_the_request() {
    let Link { client, server, relay } = Link::new();
    send_and_finish(&client, 3, 1000);
    assert_eq!(receive(&server, 3), 1000);
    scope(|scope| {
        scope.spawn(|| send_and_finish(&server, 4, 50 * MIB));
        scope.spawn(|| assert_eq!(receive(&client, 4), 50 * MIB));
    });
    assert_eq!(outcome(relay).unwrap(), Transfer { to_destination: 1000, to_application: 50 * MIB });
}

#[test]
fn the_request_goes_on_after_the_end_of_the_answer() {
    let Link { client, server, relay } = Link::new();
    send_and_finish(&server, 5, 1000);
    assert_eq!(receive(&client, 5), 1000);
    scope(|scope| {
        scope.spawn(|| send_and_finish(&client, 6, 50 * MIB));
        scope.spawn(|| assert_eq!(receive(&server, 6), 50 * MIB));
    });
    assert_eq!(outcome(relay).unwrap(), Transfer { to_destination: 50 * MIB, to_application: 1000 });
}

#[test]
fn an_empty_connection_ends_in_order() {
    let Link { mut client, mut server, relay } = Link::new();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(outcome(relay).unwrap(), Transfer::default());
}

#[test]
fn a_gibibyte_each_way_arrives_byte_for_byte() {
    let Link { client, server, relay } = Link::new();
    scope(|scope| {
        scope.spawn(|| send_and_finish(&client, 7, 1024 * MIB));
        scope.spawn(|| send_and_finish(&server, 8, 1024 * MIB));
        scope.spawn(|| assert_eq!(receive(&server, 7), 1024 * MIB));
        scope.spawn(|| assert_eq!(receive(&client, 8), 1024 * MIB));
    });
    let expected = Transfer { to_destination: 1024 * MIB, to_application: 1024 * MIB };
    assert_eq!(outcome(relay).unwrap(), expected);
}

#[test]
fn ten_thousand_short_connections_lose_nothing() {
    scope(|scope| {
        for worker in 0..4u64 {
            scope.spawn(move || {
                for number in worker * 2500..(worker + 1) * 2500 {
                    if number.is_multiple_of(2) { closed_at_once(number) } else { exchange(number) }
                }
            });
        }
    });
}

/// A server that sends and closes at once, to a client that says nothing.
fn closed_at_once(number: u64) {
    let Link { client, server, relay } = Link::new();
    let answer = pattern::mix(number) % 50_000;
    pattern::send(&server, number, answer, |_| ()).unwrap();
    drop(server);
    assert_eq!(receive(&client, number), answer);
    drop(client);
    assert_eq!(outcome(relay).unwrap(), Transfer { to_destination: 0, to_application: answer });
}

/// A request and an answer, neither of which waits for the other.
fn exchange(number: u64) {
    let Link { client, server, relay } = Link::new();
    let (request, answer) = (pattern::mix(number) % 3000, pattern::mix(!number) % 50_000);
    let server = spawn(move || {
        send_and_finish(&server, !number, answer);
        assert_eq!(receive(&server, number), request);
    });
    send_and_finish(&client, number, request);
    assert_eq!(receive(&client, !number), answer);
    drop(client);
    server.join().unwrap();
    assert_eq!(outcome(relay).unwrap(), Transfer { to_destination: request, to_application: answer });
}

#[test]
fn what_was_sent_before_the_relay_starts_arrives() {
    let ((client, application), (destination, server)) = (pair(), pair());
    pattern::send(&client, 1, 100_000, |_| ()).unwrap();
    send_and_finish(&server, 2, 200_000);
    let relay = relay(application, destination, ());
    assert_eq!(receive(&client, 2), 200_000);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(receive(&server, 1), 100_000);
    assert_eq!(outcome(relay).unwrap(), Transfer { to_destination: 100_000, to_application: 200_000 });
}

#[test]
fn a_reader_that_stalls_holds_the_writer_back() {
    let ((client, application), (destination, server)) = (pair(), pair());
    for socket in [&client, &application, &destination, &server] {
        shrink(socket);
    }
    let relay = relay(application, destination, ());

    // Whatever the machine's speed, the writer can't get far while nobody reads.
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let sent = write_until_blocked(&client, 64 * MIB);
    assert!(sent < 4 * MIB, "{sent} bytes were swallowed");

    client.set_write_timeout(None).unwrap();
    let reader = spawn(move || {
        let mut received = Vec::new();
        (&server).read_to_end(&mut received).unwrap();
        received
    });
    let rest = vec![9; 8 * MIB as usize];
    (&client).write_all(&rest).unwrap();
    client.shutdown(Shutdown::Write).unwrap();

    let received = reader.join().unwrap();
    assert_eq!(received.len() as u64, sent + 8 * MIB);
    let (first, second) = received.split_at(sent as usize);
    assert!(first.iter().all(|byte| *byte == 8) && second.iter().all(|byte| *byte == 9));
    assert_eq!(outcome(relay).unwrap().to_destination, sent + 8 * MIB);
}

fn shrink(socket: &TcpStream) {
    let socket = socket2::SockRef::from(socket);
    socket.set_send_buffer_size(64 * 1024).unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
}

fn write_until_blocked(mut to: &TcpStream, limit: u64) -> u64 {
    let mut sent = 0;
    while sent < limit {
        match to.write(&[8; 4096]) {
            Ok(count) => sent += count as u64,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    sent
}
