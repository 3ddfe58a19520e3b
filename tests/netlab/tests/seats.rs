//! Connections that find no room where the programs keep what they know of one without allocating.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};
use waylay::query_original_destination;
use waylay_core::FailurePolicy;
use waylay_engine_ebpf::Limits;
use waylay_netlab::{Lab, Namespace, Waylay, one_service, patiently, python};

/// More than there are places near each other.
const CROWD: usize = 7;

/// Sockets whose cookies differ by a multiple of this are looked for in the same place, at both ends of a connection.
const TURN: u64 = 131_072;

fn cookie(socket: &Socket) -> u64 {
    rustix::net::sockopt::socket_cookie(socket).unwrap()
}

/// The next socket that has this place.
fn neighbour(place: u64) -> Socket {
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if cookie(&socket) % TURN == place {
            return socket;
        }
    }
}

/// Cookies are given out in turn by each processor.
fn stay_on_this_processor() {
    let mut here = rustix::thread::CpuSet::new();
    here.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &here).unwrap();
}

#[test]
fn of_sockets_are_not_needed_to_know_their_flows() {
    stay_on_this_processor();
    let mut lab = Lab::new("seats", Limits::default());
    let listener = lab.as_service(1, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    lab.install(&one_service(FailurePolicy::Closed), vec![lab.endpoint(1, [&listener])]);
    let destinations: Vec<SocketAddr> =
        (0..CROWD).map(|number| (Ipv4Addr::new(192, 0, 2, 1), 80 + number as u16).into()).collect();
    let place = cookie(&Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()) % TURN;
    let crowd: Vec<Socket> = lab.as_application(|| {
        let connected = destinations.iter().map(|destination| {
            let socket = neighbour(place);
            socket.connect(&(*destination).into()).unwrap();
            socket
        });
        connected.collect()
    });
    let accepted: Vec<_> = crowd.iter().map(|_| listener.accept().unwrap().0).collect();
    let asked_for: Vec<SocketAddr> =
        accepted.iter().map(|stream| query_original_destination(stream).unwrap()).collect();
    assert_eq!(asked_for, destinations);
    let peers: Vec<SocketAddr> =
        crowd.iter().map(|socket| socket.peer_addr().unwrap().as_socket().unwrap()).collect();
    assert_eq!(peers, destinations);
    assert_eq!(lab.engine.flow_count().unwrap(), CROWD);
    let sweeper = lab.engine.flow_sweeper().unwrap();
    (0..3).for_each(|_| sweeper.sweep().unwrap());
    assert_eq!(lab.engine.flow_count().unwrap(), CROWD);
    drop((crowd, accepted));
    patiently("the end", || (lab.engine.flow_count().unwrap() == 0).then_some(()));
}

/// Greets with its port; dials in numbers, while nothing arrives, and says how many came where they were going.
const DIALS: &str = "\
import errno, resource, socket, sys, threading
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
def greet(listener):
    while True:
        peer, _ = listener.accept()
        peer.sendall(b'%d' % listener.getsockname()[1])
        peer.close()
ports = []
for _ in range(4):
    listener = socket.create_server(('127.0.0.1', 0), backlog=4096)
    ports.append(listener.getsockname()[1])
    threading.Thread(target=greet, args=[listener], daemon=True).start()
dialled = []
for number in range(int(sys.argv[1])):
    s = socket.socket()
    s.setblocking(False)
    assert s.connect_ex(('127.0.0.1', ports[number % 4])) == errno.EINPROGRESS
    dialled.append(s)
print('on the way', flush=True)
sys.stdin.readline()
right = 0
for number, s in enumerate(dialled):
    s.settimeout(60)
    if s.recv(9) == b'%d' % ports[number % 4]: right += 1
    s.close()
print('right', right, flush=True)
";

/// So that more are on their way than there are places for.
#[test]
fn of_connections_whose_first_packets_are_lost_are_not_needed_either() {
    const COUNT: &str = "3000";
    let namespace = Namespace::new();
    namespace.ip(&["link", "set", "lo", "up"]);
    let nft = |rules: &str| assert!(namespace.command("nft").arg(rules).status().unwrap().success());
    nft(
        "table inet lost {\nchain in {\ntype filter hook input priority 0\ntcp flags & (syn|ack) == syn drop\n}\n}\n",
    );
    let mut run = Waylay::run(Some(&namespace)).through_logs(1).spawn([python(), "-c", DIALS, COUNT]);
    assert_eq!(run.answer(), "on the way");
    nft("delete table inet lost");
    assert_eq!(run.ask("go"), format!("right {COUNT}"));
}
