//! Several instances on one host: side by side, one inside of the other, and in each other's way.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use waylay_core::{Conditions, FailurePolicy, Filter, FilterId, Layer, Policy, Service, ServiceId};
use waylay_engine::Endpoint;
use waylay_engine_ebpf::Limits;
use waylay_netlab::{Dialled, Lab};

fn listener4() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn listener6() -> TcpListener {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap()
}

fn anywhere() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 80).into()
}

/// In IPv4, IPv6, and IPv4 from an IPv6 socket.
fn anywhere_in_each_family() -> [SocketAddr; 3] {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    [anywhere(), (v6, 80).into(), (Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(), 80).into()]
}

/// One service, number 1, for every connection.
fn one_service() -> Policy {
    let service = Service {
        id: ServiceId(1),
        name: "only".into(),
        before: Vec::new(),
        after: Vec::new(),
        on_failure: FailurePolicy::Closed,
    };
    let layer = Layer::Redirect { service: ServiceId(1) };
    let filter = Filter { id: FilterId(1), weight: 0, conditions: Conditions::default(), layer };
    Policy::new(vec![service], Vec::new(), vec![filter]).unwrap()
}

/// Listeners of a lab's only service.
struct Listeners {
    four: TcpListener,
    six: TcpListener,
}

impl Listeners {
    fn of(lab: &mut Lab) -> Self {
        let (four, six) = lab.as_service(1, || (listener4(), listener6()));
        for listener in [&four, &six] {
            listener.set_nonblocking(true).unwrap();
        }
        let endpoint: Endpoint = lab.endpoint(1, [&four, &six]);
        lab.install(&one_service(), vec![endpoint]);
        Self { four, six }
    }

    /// What has come since the last call.
    fn take(&self) -> Vec<TcpStream> {
        let all = |listener: &TcpListener| std::iter::from_fn(|| Some(listener.accept().ok()?.0)).collect();
        let (four, six): (Vec<_>, Vec<_>) = (all(&self.four), all(&self.six));
        four.into_iter().chain(six).collect()
    }
}

fn connected(addresses: &[SocketAddr]) -> Vec<Dialled> {
    addresses.iter().copied().map(Dialled::Connected).collect()
}

mod stepping_aside {
    use super::*;

    #[test]
    fn is_for_legs_that_another_instance_has_led_to_its_listener() {
        let mut outer = Lab::new("aside-outer", Limits::default());
        let mut inner = outer.below("app", "aside-inner", Limits::default());
        let (outer_services, inner_services) = (Listeners::of(&mut outer), Listeners::of(&mut inner));
        let addresses = anywhere_in_each_family();
        assert_eq!(inner.dial("app", &addresses), connected(&addresses));
        assert_eq!((inner_services.take().len(), outer_services.take().len()), (3, 0));
        // What the inner one's service dials is an application's leg to the outer one.
        assert_eq!(inner.dial("svc-1", &addresses), connected(&addresses));
        assert_eq!((inner_services.take().len(), outer_services.take().len()), (0, 3));
    }

    /// Else it were a way past an application's own services to whatever the other's do without asking.
    #[test]
    fn is_not_for_an_application_that_dials_the_listener_of_another_instance() {
        let mut one = Lab::new("aside-one", Limits::default());
        let mut other = Lab::new("aside-other", Limits::default());
        let (own, others) = (Listeners::of(&mut one), Listeners::of(&mut other));
        let addresses = [others.four.local_addr().unwrap(), others.six.local_addr().unwrap()];
        assert_eq!(one.dial("app", &addresses), connected(&addresses));
        assert_eq!((own.take().len(), others.take().len()), (2, 0));
    }

    /// A run that was killed leaves its listeners in the registry, and their ports to anybody.
    #[test]
    fn is_not_for_whoever_listens_on_the_port_of_a_service_that_is_gone() {
        let mut one = Lab::new("aside-living", Limits::default());
        let own = Listeners::of(&mut one);
        let mut gone = Lab::new("aside-gone", Limits::default());
        let address = Listeners::of(&mut gone).four.local_addr().unwrap();
        let anybody = TcpListener::bind(address).unwrap();
        anybody.set_nonblocking(true).unwrap();
        assert_eq!(one.dial("app", &[address]), connected(&[address]));
        assert!(anybody.accept().is_err(), "a connection got past the service");
        assert_eq!(own.take().len(), 1);
    }

    /// The inner one sees the outer one's listener as its own application does; the outer one refuses.
    #[test]
    fn leaves_it_to_the_outer_instance_to_refuse_who_dials_its_listener() {
        let mut outer = Lab::new("refusing-outer", Limits::default());
        let mut inner = outer.below("app", "refusing-inner", Limits::default());
        let (outer_services, inner_services) = (Listeners::of(&mut outer), Listeners::of(&mut inner));
        let address = outer_services.four.local_addr().unwrap();
        assert_eq!(inner.dial("app", &[address]), [Dialled::Refused(111)]);
        assert_eq!((inner_services.take().len(), outer_services.take().len()), (0, 0));
    }
}

mod overlap {
    use std::fs;

    use waylay_engine_ebpf::{EbpfEngine, EbpfError};

    use super::*;

    fn sentence(refused: Result<EbpfEngine, EbpfError>) -> String {
        match refused {
            Err(error @ EbpfError::Overlap { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Each would send what the other's services dial to its own, and so on.
    #[test]
    fn of_two_engines_on_one_cgroup_is_refused_and_names_the_other() {
        let mut lab = Lab::new("twice", Limits::default());
        let services = Listeners::of(&mut lab);
        let said = sentence(lab.second_engine_on(None));
        let (scope, instance, pid) = (lab.cgroup(None), lab.instance(), std::process::id());
        let named = format!("{} is the scope of {instance} (process {pid}): ", scope.display());
        assert!(said.starts_with(&named), "{said}");
        // The first goes on, and nothing of the second is left.
        assert_eq!(lab.dial("app", &[anywhere()]), connected(&[anywhere()]));
        assert_eq!(services.take().len(), 1);
    }

    #[test]
    fn of_a_scope_with_the_service_of_an_engine_around_it_is_refused() {
        let mut lab = Lab::new("taken", Limits::default());
        let _services = Listeners::of(&mut lab);
        let said = sentence(lab.second_engine_on(Some("svc-1")));
        let (cgroup, instance) = (lab.cgroup(Some("svc-1")), lab.instance());
        assert!(said.starts_with(&format!("{} holds a service of {instance}", cgroup.display())), "{said}");
    }

    /// It comes to the same whoever is first.
    #[test]
    fn of_a_service_in_the_scope_of_an_engine_within_its_own_is_refused() {
        let mut outer = Lab::new("late-outer", Limits::default());
        let inner = outer.below("app", "late-inner", Limits::default());
        let said = outer.engine.serve_cgroup(ServiceId(2), &inner.cgroup(Some("svc-2"))).unwrap_err();
        let named = format!("{} is the scope of {}", inner.cgroup(None).display(), inner.instance());
        assert!(said.to_string().starts_with(&named), "{said}");
        // What is refused is not held.
        let mut inner = inner;
        inner.engine.serve_cgroup(ServiceId(2), &inner.cgroup(Some("svc-2"))).unwrap();
    }

    #[test]
    fn of_a_service_elsewhere_is_none_but_it_must_be_in_the_scope() {
        let mut one = Lab::new("elsewhere-one", Limits::default());
        let other = Lab::new("elsewhere-other", Limits::default());
        let error = one.engine.serve_cgroup(ServiceId(1), &other.cgroup(Some("svc-1"))).unwrap_err();
        assert!(matches!(error, EbpfError::ServiceOutside { .. }), "{error}");
    }

    #[test]
    fn is_over_when_the_other_engine_is_removed() {
        let lab = Lab::new("after", Limits::default());
        let second = lab.cgroup(Some("app"));
        let first = lab.second_engine_on(Some("app")).unwrap();
        sentence(lab.second_engine_on(Some("app")).map(|_| panic!("both")));
        first.remove().unwrap();
        lab.second_engine_on(Some("app")).unwrap().remove().unwrap();
        assert!(fs::exists(second).unwrap());
    }
}
