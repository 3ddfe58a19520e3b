//! The routes as the kernel's programs look them up are those of the definition.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use waylay_core::{
    Conditions, Errno, FailurePolicy, Filter, FilterId, Layer, Policy, Prefix, Reach, Routes, Service,
    ServiceId, normal_form,
};
use waylay_engine::Engine;
use waylay_engine_ebpf::Limits;
use waylay_netlab::{Dialled, Lab};

const ROUNDS: u32 = 10;
const PREFIXES: u32 = 60;
const ADDRESSES: u32 = 60;

struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, bound: u16) -> u16 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u16::try_from(self.0 % u64::from(bound)).unwrap()
    }

    /// Few addresses, so that they and the prefixes meet often.
    fn v4(&mut self) -> Ipv4Addr {
        let mut octet = || u8::try_from(16 * self.below(3)).unwrap();
        Ipv4Addr::new(10, octet(), octet(), octet() + 1)
    }

    fn v6(&mut self) -> Ipv6Addr {
        let mut group = || 16 * self.below(3);
        Ipv6Addr::new(0x2001, group(), group(), 0, group(), 0, 0, 1)
    }

    fn address(&mut self) -> IpAddr {
        match self.below(3) {
            0 => self.v6().into(),
            1 => self.v4().into(),
            _ => self.v4().to_ipv6_mapped().into(),
        }
    }

    fn prefix(&mut self) -> Prefix {
        let address = normal_form(self.address());
        let shortest = if address.to_ipv4_mapped().is_some() { 96 } else { 0 };
        let length = shortest + self.below(129 - shortest);
        Prefix::covering(address, u8::try_from(length).unwrap())
    }

    fn reach(&mut self) -> Reach {
        match self.below(4) {
            0 => Reach::Never(Errno::ENETUNREACH),
            1 => Reach::Never(Errno::EHOSTUNREACH),
            2 => Reach::Group,
            _ => Reach::From(None),
        }
    }

    fn routes(&mut self) -> Routes {
        let mut routes = Routes::default();
        (0..PREFIXES).for_each(|_| routes.set(self.prefix(), self.reach()));
        routes
    }
}

fn policy() -> Policy {
    let (id, on_failure) = (ServiceId(1), FailurePolicy::Closed);
    let service = Service { id, name: "s1".into(), before: Vec::new(), after: Vec::new(), on_failure };
    let layer = Layer::Redirect { service: id };
    let everything = Filter { id: FilterId(1), weight: 0, conditions: Conditions::default(), layer };
    Policy::new(vec![service], Vec::new(), vec![everything]).unwrap()
}

fn expected(routes: &Routes, address: SocketAddr) -> Dialled {
    match routes.to(address.ip()) {
        Reach::From(_) | Reach::Here(_) => Dialled::Connected(address),
        Reach::Group => Dialled::Refused(i32::from(Errno::ENETUNREACH.number())),
        Reach::Never(errno) => Dialled::Refused(i32::from(errno.number())),
    }
}

fn accept_all(listener: &TcpListener) -> usize {
    listener.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| listener.accept().ok()).count()
}

#[test]
fn the_longest_prefix_speaks_for_a_destination() {
    let mut lab = Lab::new("routes", Limits::default());
    let loopbacks = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    let listeners = lab.as_service(1, || loopbacks.map(|ip| TcpListener::bind((ip, 0)).unwrap()));
    lab.install(&policy(), vec![lab.endpoint(1, &listeners)]);
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let (mut connected, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        let routes = random.routes();
        lab.engine.set_routes(&routes).unwrap();
        let asked: Vec<SocketAddr> = (0..ADDRESSES).map(|_| (random.address(), 80).into()).collect();
        let answers = lab.dial("app", &asked);
        let expected: Vec<_> = asked.iter().map(|&address| expected(&routes, address)).collect();
        assert_eq!(answers, expected, "{routes:#?}");
        connected += listeners.iter().map(accept_all).sum::<usize>();
        refused += lab.refusals().len();
    }
    assert_eq!(connected + refused, 600);
    assert!(connected > 100 && refused > 100, "{connected} {refused}");
}
