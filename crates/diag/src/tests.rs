use std::{
    io::Read,
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::*;

fn dump(protocol: i32, state: u8) -> Vec<Socket> {
    Kernel::open().unwrap().dump(protocol, 1 << state).unwrap()
}

fn destroy(protocol: i32, socket: &Socket) -> io::Result<()> {
    Kernel::open()?.destroy(protocol, socket)
}

fn at(sockets: Vec<Socket>, address: SocketAddr) -> Option<Socket> {
    sockets.into_iter().find(|socket| socket.local == address)
}

#[test]
fn a_udp_socket_without_a_peer_is_found() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    assert!(at(dump(libc::IPPROTO_UDP, state::CLOSE), address).is_some());
    socket.connect("127.0.0.1:9").unwrap();
    assert_eq!(at(dump(libc::IPPROTO_UDP, state::CLOSE), address), None);
}

#[test]
fn a_connection_is_ended_for_both_its_sides() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let own = at(dump(libc::IPPROTO_TCP, state::ESTABLISHED), client.local_addr().unwrap()).unwrap();
    assert_eq!(own.remote, listener.local_addr().unwrap());
    destroy(libc::IPPROTO_TCP, &own).unwrap();
    let errno = |error: io::Error| error.raw_os_error();
    assert_eq!(errno(client.read(&mut [0]).unwrap_err()), Some(libc::ECONNABORTED));
    assert_eq!(errno(server.read(&mut [0]).unwrap_err()), Some(libc::ECONNRESET));
    assert_eq!(errno(destroy(libc::IPPROTO_TCP, &own).unwrap_err()), Some(libc::ENOENT));
}

#[test]
fn a_connected_udp_socket_is_ended_and_may_be_connected_anew() {
    let peer = UdpSocket::bind("[::1]:0").unwrap();
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    let own = at(dump(libc::IPPROTO_UDP, state::ESTABLISHED), socket.local_addr().unwrap()).unwrap();
    destroy(libc::IPPROTO_UDP, &own).unwrap();
    let error = socket.recv(&mut [0]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED));
    assert!(socket.connect(peer.local_addr().unwrap()).is_ok());
}

#[test]
fn what_is_bound_to_every_address_takes_those_of_both_families_if_it_may() {
    let socket = |local: &str, only_v6| Socket {
        local: local.parse().unwrap(),
        remote: "[::]:0".parse().unwrap(),
        only_v6,
        cgroup: 0,
        inode: 1,
        waiting: 0,
        state: state::LISTEN,
        family: libc::AF_INET6 as u8,
        key: [0; KEY_BYTES],
    };
    let takes = |socket: &Socket, address: &str| socket.takes(address.parse().unwrap());
    let dual = socket("[::]:5000", false);
    assert!(takes(&dual, "127.0.0.1:5000") && takes(&dual, "[::1]:5000") && !takes(&dual, "[::1]:5001"));
    assert_eq!(dual.addresses(), ["[::]:5000".parse().unwrap(), "0.0.0.0:5000".parse().unwrap()]);
    let six = socket("[::]:5000", true);
    assert!(!takes(&six, "127.0.0.1:5000") && takes(&six, "[2001:db8::1]:5000"));
    let four = socket("0.0.0.0:5000", false);
    assert!(takes(&four, "10.0.0.1:5000") && !takes(&four, "[::1]:5000"));
    let mapped = socket("[::ffff:127.0.0.1]:5000", false);
    assert!(takes(&mapped, "127.0.0.1:5000") && !takes(&mapped, "127.0.0.2:5000"));
}

#[test]
fn messages_that_are_cut_short_are_an_error_or_nothing() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let kernel = Kernel::open().unwrap();
    let (family, protocol, states) = (libc::AF_INET6, libc::IPPROTO_TCP, 1 << state::LISTEN);
    let key = [0; KEY_BYTES];
    kernel.ask(&Question { kind: Kind::Dump, family, protocol, states, key }).unwrap();
    let mut buffer = vec![0; BUFFER_BYTES];
    let (length, _) = rustix::net::recv(&kernel.0, &mut buffer[..], RecvFlags::empty()).unwrap();
    drop(listener);
    for end in 0..length {
        // Neither panics; how much was understood does not matter.
        let _outcome = read(&buffer[..end], &mut Vec::new());
    }
}

#[test]
fn a_socket_is_found_by_both_its_ends_and_a_listener_by_its_own() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let kernel = Kernel::open().unwrap();
        let find = |local, peer| kernel.find(libc::IPPROTO_TCP, (local, peer)).unwrap();
        let listener = TcpListener::bind(any).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let own = client.local_addr().unwrap();
        let found = find(own, address).unwrap();
        assert_eq!((found.local, found.remote, found.state), (own, address, state::ESTABLISHED));
        assert_eq!(found.is_v6(), address.is_ipv6());
        let nobody = SocketAddr::new(address.ip(), 1);
        assert_eq!(
            find(address, nobody).map(|found| (found.local, found.state)),
            Some((address, state::LISTEN))
        );
        drop(listener);
        assert_eq!(find(address, nobody), None);
    }
}

#[test]
fn of_a_protocol_that_the_kernel_does_not_have_there_are_no_sockets() {
    const NOBODYS: i32 = 253;
    assert_eq!(Kernel::open().unwrap().dump(NOBODYS, u32::MAX).unwrap(), []);
}
