use waylay_core::FilterId;

use super::*;
use crate::flows::Path;

const SOCKET: u64 = 7;

fn endpoint() -> Endpoint {
    Endpoint {
        service: ServiceId(1),
        cgroup: 1,
        tcp4: Vec::new(),
        tcp6: Vec::new(),
        udp4: Some(5000),
        udp6: vec![6000, 6001],
        behind6: None,
        local_name: waylay_engine::LocalName::Listener,
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Begins one, and gives the token, and the name of what had to go.
fn begin(
    flows: &mut DatagramFlows,
    number: u64,
    destination: &str,
    connected: bool,
) -> (SocketAddr, Option<SocketId>) {
    let destination = at(destination);
    let peer = if destination.is_ipv4() { at("127.0.0.1:4000") } else { at("[::1]:4000") };
    let (token, dropped) = flows.take_token(&endpoint(), destination.is_ipv4(), peer);
    let token = token.unwrap();
    let name = flows.name();
    let flow = Flow {
        number,
        service: ServiceId(1),
        filter: FilterId(1),
        destination,
        application: abi::Process::default(),
        exe_path: std::sync::Arc::new([0; abi::EXE_LEN]),
        wishes: abi::SocketWishes::default(),
        path: Path::new(peer, token),
        socket: name.0,
    };
    flows.begin(Datagrams::new(flow, SOCKET, connected, (1, 3)));
    (token, dropped)
}

#[test]
fn each_destination_of_a_socket_has_a_token_of_its_own_and_is_found_by_it() {
    let mut flows = DatagramFlows::default();
    let (one, _) = begin(&mut flows, 1, "192.0.2.1:53", false);
    let (two, _) = begin(&mut flows, 2, "192.0.2.2:53", false);
    assert_eq!([one, two], [at("127.128.0.1:5000"), at("127.128.0.2:5000")]);
    assert_eq!(flows.to(SOCKET, at("[::ffff:192.0.2.1]:53")).unwrap().flow.number, 1);
    assert_eq!(flows.of_token(SOCKET, two).unwrap().flow.destination, at("192.0.2.2:53"));
    assert!(flows.of_token(SOCKET + 1, two).is_none(), "another's socket");
    assert_eq!(flows.at(Path::new(at("127.0.0.1:9"), one)), Some(1), "wherever it comes from");
}

#[test]
fn over_ipv6_the_idlest_flow_of_the_same_source_makes_room_and_is_counted() {
    let mut flows = DatagramFlows::default();
    let (one, _) = begin(&mut flows, 1, "[2001:db8::1]:53", false);
    let (two, _) = begin(&mut flows, 2, "[2001:db8::2]:53", false);
    assert_ne!(one, two);
    flows.to(SOCKET, at("[2001:db8::1]:53")).unwrap().touch();
    let (three, dropped) = begin(&mut flows, 3, "[2001:db8::3]:53", false);
    assert_eq!(three, two);
    assert!(dropped.is_some() && flows.get(2).is_none() && flows.get(1).is_some());
    assert_eq!([flows.newly_dropped(), flows.newly_dropped()], [1, 0]);
}

#[test]
fn a_connected_sockets_flow_does_not_make_room() {
    let mut flows = DatagramFlows::default();
    begin(&mut flows, 1, "[2001:db8::1]:53", true);
    flows.connect(SOCKET, Some(1));
    begin(&mut flows, 2, "[2001:db8::2]:53", true);
    assert_eq!(flows.take_token(&endpoint(), false, at("[::1]:4000")), (None, None));
    flows.connect(SOCKET, Some(2));
    assert!(flows.take_token(&endpoint(), false, at("[::1]:4000")).0.is_some());
}

#[test]
fn what_is_idle_ends_and_that_of_a_connected_socket_not_before_the_socket() {
    let mut flows = DatagramFlows::default();
    begin(&mut flows, 1, "192.0.2.1:53", false);
    begin(&mut flows, 2, "192.0.2.2:53", true);
    flows.connect(SOCKET, Some(2));
    let (open, gone) = (BTreeSet::from([SOCKET]), BTreeSet::new());
    let later = Instant::now() + IDLE;
    assert_eq!(flows.sweep(&open, Instant::now()).len(), 0);
    assert_eq!(flows.sweep(&open, later).len(), 1);
    assert!(flows.get(1).is_none() && flows.of_connected(SOCKET).is_some());
    assert_eq!(flows.sweep(&gone, later).len() + flows.sweep(&gone, later).len(), 0);
    assert_eq!(flows.sweep(&gone, later + IDLE).len(), 1);
    assert!(flows.get(2).is_none() && flows.by_path.is_empty() && flows.by_destination.is_empty());
    assert!(flows.by_token.is_empty() && flows.of_connected.is_empty());
}

#[test]
fn records_stay_on_a_socket_that_has_no_port_yet_and_go_with_it() {
    let mut flows = DatagramFlows::default();
    begin(&mut flows, 1, "192.0.2.1:53", false);
    let flow = flows.get(1).unwrap().flow.clone();
    flows.carry(9, &flow);
    let (none, open) = (BTreeSet::new(), BTreeSet::from([9]));
    let now = Instant::now();
    for (sockets, ended) in [(&none, 0), (&none, 0), (&open, 0), (&none, 1)] {
        assert_eq!(flows.sweep(sockets, now).len(), ended);
    }
    assert!(flows.carried_by(9).is_none());
    // Of one that was gone before anybody looked they do not stay for ever.
    flows.carry(9, &flow);
    let looks: Vec<usize> = (0..LOOKS_FOR_ONE_UNSEEN).map(|_| flows.sweep(&none, now).len()).collect();
    assert_eq!((looks.iter().sum::<usize>(), looks.last()), (1, Some(&1)));
    assert!(flows.carried_by(9).is_none());
}

#[test]
fn whoever_has_called_a_server_is_answered_from_that_port_only() {
    let mut flows = DatagramFlows::default();
    flows.hear(53, at("127.0.0.1:4000"));
    assert!(flows.has_called(53, at("[::ffff:127.0.0.1]:4000")));
    assert!(!flows.has_called(54, at("127.0.0.1:4000")) && !flows.has_called(53, at("127.0.0.1:4001")));
}
