//! On plain sockets of the loopback, which is where the kernel side delivers to.

use std::net::Ipv4Addr;

use super::*;
use crate::datagrams::{DatagramBatch, DatagramSocket};

fn bind(address: &str) -> UdpSocket {
    UdpSocket::bind(address).unwrap()
}

/// One for IPv4 as `waylay run` makes it, and its port.
fn inbound() -> (DatagramSocket, u16) {
    let socket = DatagramSocket::new(bind("0.0.0.0:0")).unwrap();
    let port = socket.local_address().port();
    (socket, port)
}

fn outgoing(bytes: &[u8], to: SocketAddr) -> Outgoing<'_> {
    Outgoing { bytes, to: Some(to), from: None, header: Header::default() }
}

fn token(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 128, 0, last), port))
}

#[test]
fn a_datagram_tells_the_token_it_was_sent_to_and_is_answered_from_there() {
    let (service, port) = inbound();
    let client = bind("127.0.0.1:0");
    client.send_to(b"one", token(1, port)).unwrap();
    client.send_to(b"", token(2, port)).unwrap();
    let mut batch = DatagramBatch::new();
    service.receive(&mut batch).unwrap();
    let peer = client.local_addr().unwrap();
    let seen: Vec<_> = batch.iter().map(|datagram| (datagram.path, datagram.bytes.to_vec())).collect();
    let expected = [
        (FlowPath::new(token(1, port), peer), b"one".to_vec()),
        (FlowPath::new(token(2, port), peer), Vec::new()),
    ];
    assert_eq!(seen, expected);
    let answers: Vec<_> = batch.iter().map(|datagram| Outgoing::answer(datagram.path, b"back")).collect();
    service.send(&answers, |_, sent| sent.unwrap());
    let mut buffer = [0; 10];
    for last in [1, 2] {
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (4, token(last, port)));
    }
}

#[test]
fn a_socket_for_ipv6_is_its_own_token() {
    let service = DatagramSocket::new(bind("[::1]:0")).unwrap();
    let client = bind("[::1]:0");
    client.send_to(b"six", service.local_address()).unwrap();
    let mut batch = DatagramBatch::new();
    service.receive(&mut batch).unwrap();
    let path = FlowPath::new(service.local_address(), client.local_addr().unwrap());
    assert_eq!(batch.iter().map(|datagram| datagram.path).collect::<Vec<_>>(), [path]);
    service.send(&[Outgoing::answer(path, b"back")], |_, sent| sent.unwrap());
    assert_eq!(client.recv_from(&mut [0; 10]).unwrap(), (4, service.local_address()));
}

#[test]
fn datagrams_of_any_size_and_number_arrive_as_they_were_sent() {
    let (service, port) = inbound();
    let client = bind("127.0.0.1:0");
    let sizes =
        [64, 64, 64, 10, 64, 0, 64, 64, 1400, 1400, 1401, 9000, 65_507, 1, 1, 1, 0, 0, 700, 700, 699, 700];
    let contents: Vec<Vec<u8>> =
        sizes.iter().enumerate().map(|(index, size)| vec![index as u8; *size]).collect();
    let datagrams: Vec<_> = contents.iter().map(|bytes| outgoing(bytes, token(1, port))).collect();
    let mut sent = Vec::new();
    send(&client, &datagrams, Header::default(), |index, outcome| {
        outcome.unwrap();
        sent.push(index);
    });
    assert_eq!(sent, (0..sizes.len()).collect::<Vec<_>>());
    let (mut batch, mut arrived) = (DatagramBatch::new(), Vec::new());
    while arrived.len() < sizes.len() {
        service.receive(&mut batch).unwrap();
        assert!(batch.iter().all(|datagram| !datagram.truncated));
        arrived.extend(batch.iter().map(|datagram| datagram.bytes.to_vec()));
    }
    assert_eq!(arrived, contents);
}

/// Of one size and one way, so that nothing but their headers keeps them from being one message.
#[test]
fn datagrams_arrive_with_the_headers_they_were_sent_with() {
    for (at, host) in [("0.0.0.0:0", "127.128.0.1"), ("[::1]:0", "::1")] {
        let service = DatagramSocket::new(bind(at)).unwrap();
        let to = SocketAddr::new(host.parse().unwrap(), service.local_address().port());
        for connected in [false, true] {
            let client = bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
            if connected {
                client.connect(to).unwrap();
            }
            let headers: Vec<_> = (0..60)
                .map(|number| Header {
                    hop_limit: Some(number / 4 + 1),
                    traffic_class: Some(number / 3 * 13),
                })
                .collect();
            let send_to = (!connected).then_some(to);
            let with =
                |header: &Header| Outgoing { bytes: b"same", to: send_to, from: None, header: *header };
            let datagrams: Vec<_> = headers.iter().map(with).collect();
            send(&client, &datagrams, Header::default(), |_, sent| sent.unwrap());
            let (mut batch, mut arrived) = (DatagramBatch::new(), Vec::new());
            while arrived.len() < headers.len() {
                service.receive(&mut batch).unwrap();
                arrived.extend(batch.iter().map(|datagram| datagram.header));
            }
            assert_eq!(arrived, headers, "{to} {connected}");
        }
    }
}

#[test]
fn a_hop_limit_that_nobody_has_chosen_is_not_taken_for_one_that_somebody_has() {
    for (at, client) in [("0.0.0.0:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0")] {
        let service = DatagramSocket::new(bind(at)).unwrap();
        let (client, mut batch) = (bind(client), DatagramBatch::new());
        prepare_outbound(&client).unwrap();
        let to = SocketAddr::new(client.local_addr().unwrap().ip(), service.local_address().port());
        send(&client, &[outgoing(b"there", to)], Header::default(), |_, sent| sent.unwrap());
        service.receive(&mut batch).unwrap();
        let arrived = batch.iter().next().unwrap();
        assert_eq!(arrived.header, Header { hop_limit: None, traffic_class: Some(0) });
        // What comes from a network is passed on as it is.
        service.send(&[Outgoing::answer(arrived.path, b"back")], |_, sent| sent.unwrap());
        crate::datagrams::receive(&client, &mut batch).unwrap();
        let header = batch.iter().next().unwrap().header;
        assert!(header.hop_limit.is_some(), "{header:?}");
        assert_eq!(header.traffic_class, Some(0));
    }
}

#[test]
fn a_header_is_besides_what_is_usual_for_the_socket() {
    for (at, level, name) in
        [("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_TOS), ("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_TCLASS)]
    {
        let socket = bind(at);
        assert_eq!(Header::usual(&socket).traffic_class, Some(0));
        options::set_option(socket.as_fd(), level, name, &0x28i32.to_ne_bytes()).unwrap();
        assert_eq!(Header::usual(&socket), Header { hop_limit: None, traffic_class: Some(0x28) });
    }
}

/// Nobody else's socket has to know how they were sent.
#[test]
fn a_run_of_datagrams_is_several_to_an_ordinary_socket() {
    let (client, server) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let bytes = [7; 100];
    let datagrams = vec![outgoing(&bytes, server.local_addr().unwrap()); 100];
    let mut sent = 0;
    send(&client, &datagrams, Header::default(), |_, outcome| sent += usize::from(outcome.is_ok()));
    assert_eq!(sent, 100);
    for _ in 0..100 {
        assert_eq!(server.recv(&mut [0; 1000]).unwrap(), 100);
    }
}

#[test]
fn one_that_cannot_be_sent_keeps_no_other_back() {
    let (client, server) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let to = server.local_addr().unwrap();
    let (small, large) = ([1; 10], vec![2; 65_508]);
    let datagrams = [outgoing(&small, to), outgoing(&large, to), outgoing(&small, to), outgoing(&small, to)];
    let mut outcomes = Vec::new();
    send(&client, &datagrams, Header::default(), |index, outcome| {
        outcomes.push((index, outcome.err().and_then(|error| error.raw_os_error())));
    });
    assert_eq!(outcomes, [(0, None), (1, Some(libc::EMSGSIZE)), (2, None), (3, None)]);
}

#[test]
fn what_is_not_accepted_is_reported_with_its_destination() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let nobody = bind(address).local_addr().unwrap();
        let socket: UdpSocket = datagram_socket(Domain::for_address(nobody)).unwrap().into();
        assert!(take_unreachable(&socket).is_none());
        send(&socket, &[outgoing(b"x", nobody)], Header::default(), |_, sent| sent.unwrap());
        let error = take_unreachable(&socket).unwrap();
        assert_eq!(error.destination, Some(nobody));
        assert_eq!(error.error.raw_os_error(), Some(libc::ECONNREFUSED));
        assert!(take_unreachable(&socket).is_none());
    }
}

/// This process is no service, so that its sockets have no such options.
#[test]
fn outside_of_a_service_no_flow_is_known() {
    let (service, port) = inbound();
    let path = FlowPath::new(token(1, port), token(2, port));
    assert!(matches!(service.identify(path), Err(QueryError::NotRegistered)));
    assert!(matches!(service.destination(path), Err(QueryError::NotRegistered)));
    assert!(matches!(service.open_reply(path, path.peer()), Err(QueryError::NotRegistered)));
}

#[test]
fn who_waits_for_many_sockets_is_told_which_has_something() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut readiness = Readiness::new().unwrap();
        let sockets: Vec<_> = (0..300).map(|_| bind("127.0.0.1:0")).collect();
        for (key, socket) in (0..).zip(&sockets) {
            readiness.add(socket, key).unwrap();
        }
        let (client, mut ready) = (bind("127.0.0.1:0"), Vec::new());
        for at in [7, 299, 0] {
            client.send_to(b"x", sockets[at].local_addr().unwrap()).unwrap();
            readiness.wait(&mut ready).await.unwrap();
            assert_eq!(
                ready.iter().map(|ready| (ready.key, ready.has_error)).collect::<Vec<_>>(),
                [(at as u64, false)]
            );
            sockets[at].recv(&mut [0; 4]).unwrap();
        }
    });
}
