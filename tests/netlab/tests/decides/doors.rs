//! Who listens: the services, and servers at every address; and what is seen there of a connection.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use waylay::{
    QueryError, RedirectRecords, query_redirect_chain, query_redirect_context, query_redirect_records,
};
use waylay_core::Refusal;
use waylay_netlab::Namespace;

use crate::{
    case::{PORTS, SERVICES},
    ground::Ground,
};

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Server,
    Service(u32),
}

/// What a connect() came to, seen from all sides.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// At the server of this address, which is the one the caller is shown.
    AtDestination(SocketAddr),
    AtService {
        service: u32,
        /// Which of its listeners.
        ip4: bool,
        /// What the caller is shown.
        peer: SocketAddr,
        /// What the service is told.
        hops: Vec<(u32, u32)>,
        destination: SocketAddr,
        application: (u32, u32, u64, String),
    },
    Refused {
        errno: i32,
        reported: Vec<Refusal>,
    },
    /// Nobody has it, or the records could not be set.
    Lost(String),
}

pub(crate) fn see_at_destination(
    accepted: &TcpStream,
    peer: SocketAddr,
) -> (Seen, Option<(TcpStream, RedirectRecords)>) {
    let at = canonical(accepted.local_addr().unwrap());
    let seen = match canonical(peer) == at {
        true => Seen::AtDestination(at),
        false => Seen::Lost(format!("at {at}, and {peer} is shown")),
    };
    (seen, None)
}

pub(crate) fn see_at_service(
    service: u32,
    accepted: TcpStream,
    peer: SocketAddr,
) -> (Seen, Option<(TcpStream, RedirectRecords)>) {
    let asked = (
        query_redirect_records(&accepted),
        query_redirect_context(&accepted),
        query_redirect_chain(&accepted),
    );
    if let (Err(QueryError::NotRegistered | QueryError::NotRedirected), Err(_), Err(_)) = asked {
        // Dialled without the engine's doing: a destination as any other.
        return see_at_destination(&accepted, peer);
    }
    let (Ok(records), Ok(context), Ok(hops)) = asked else {
        return (Seen::Lost(format!("at service {service}, which is answered {asked:?}")), None);
    };
    let application = context.application();
    let seen = Seen::AtService {
        service,
        ip4: accepted.local_addr().unwrap().is_ipv4(),
        peer: canonical(peer),
        hops: hops.iter().map(|hop| (hop.service_id, hop.filter_id)).collect(),
        destination: canonical(context.original_destination()),
        application: (application.pid, application.uid, application.cgroup, application.path.clone()),
    };
    (seen, Some((accepted, records)))
}

fn listener(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(64).unwrap();
    socket.into()
}

/// All of them, the servers in both network namespaces.
pub(crate) fn doors(ground: &Ground, visitors: &Namespace) -> Vec<(Door, TcpListener)> {
    let services = (1..=SERVICES).flat_map(|service| {
        let listeners = ground.make(service, || service_listeners(service));
        listeners.map(|listener| (Door::Service(service), listener))
    });
    let of_visitors = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            visitors.enter();
            servers()
        });
        inside.join().unwrap()
    });
    let servers = servers().into_iter().chain(of_visitors).map(|listener| (Door::Server, listener));
    services.chain(servers).collect()
}

fn servers() -> Vec<TcpListener> {
    let everywhere = |port: u16| {
        [listener((Ipv4Addr::UNSPECIFIED, port).into()), listener((Ipv6Addr::UNSPECIFIED, port).into())]
    };
    PORTS[..PORTS.len() - 1].iter().copied().flat_map(everywhere).collect()
}

/// Whether nobody listens there in the namespace of visitors, or in that of the others.
pub(crate) fn is_deserted(port: u16, visitors: bool) -> bool {
    port == PORTS[PORTS.len() - 1] || visitors && !PORTS.contains(&port)
}

fn service_listeners(service: u32) -> [TcpListener; 2] {
    let port = 9000 + service as u16;
    [listener((Ipv4Addr::LOCALHOST, port).into()), listener((Ipv6Addr::LOCALHOST, port).into())]
}

/// To connect(), the unspecified address means this host: of IPv4 the address that the socket is bound to, if it is.
pub(crate) fn resolved(from: Option<SocketAddr>, address: SocketAddr) -> SocketAddr {
    let own4 = from.and_then(|from| match from.ip().to_canonical() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    let this4 = own4.unwrap_or(Ipv4Addr::LOCALHOST);
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => this4.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if own4.is_some() => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.to_ipv4_mapped() == Some(Ipv4Addr::UNSPECIFIED) => this4.to_ipv6_mapped().into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    (ip, address.port()).into()
}

pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}

pub(crate) fn is_ip4(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_ipv4()
}
