//! Several instances on one host: side by side, one inside of the other, and in each other's way.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
};

use rustix::process::Signal;
use waylay_core::{FailurePolicy, ServiceId};
use waylay_engine::Endpoint;
use waylay_engine_ebpf::Limits;
use waylay_netlab::{
    Dialled, Ground, Instance, Lab, Programs, Report, Running, TcpServer, Waylay, kill, one_service,
    patiently, python,
};

const WAYS_TO_CONNECT: &str = include_str!("../scripts/ways_to_connect.py");

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
        lab.install(&one_service(FailurePolicy::Closed), vec![endpoint]);
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

/// Greets, on the loopback of a family.
fn greeter(address: impl Into<IpAddr>) -> TcpServer {
    TcpServer::start(address.into(), |mut stream| {
        stream.write_all(b"hello")?;
        while stream.read(&mut [0])? > 0 {}
        Ok(())
    })
}

fn waylay() -> Waylay {
    Ground::loopback().waylay()
}

mod side_by_side {
    use super::*;

    /// Each service is told of processes of its own run, and answers once for each connection.
    #[test]
    fn ten_runs_with_services_of_one_name_see_their_own_connections_by_the_hundred() {
        let programs = Programs::new();
        let (probe, load) = (programs.probe("probe", "tell"), programs.path("netlab-load"));
        let start = |_| waylay().args(["--through", &probe]).spawn([&load, "500", "2"]);
        let runs: Vec<Running> = (0..10).map(start).collect();
        for run in runs {
            assert_eq!(run.finish().well().stdout, "right 500 wrong 0 missing 0\n");
        }
    }

    /// In the order third, first (killed), fourth, second; who is left goes on as before.
    #[test]
    fn runs_end_in_any_order_and_one_without_a_warning() {
        let servers: Vec<TcpServer> = (0..4).map(|_| greeter(Ipv4Addr::LOCALHOST)).collect();
        let start = |_| Some(waylay().through_logs(2).reporting().spawn_dialler());
        let mut runs: Vec<Option<Running>> = servers.iter().map(start).collect();
        let mut dialled = [0; 4];
        let mut dial = |runs: &mut Vec<Option<Running>>| {
            for (number, (run, server)) in runs.iter_mut().zip(&servers).enumerate() {
                let dial = format!("dial 127.0.0.1 {}", server.address().port());
                if let Some(run) = run {
                    assert_eq!(run.ask(&dial), "ok", "{number}");
                    dialled[number] += 1;
                }
            }
            dialled
        };
        let mut ended = Vec::new();
        dial(&mut runs);
        for number in [2, 0, 3, 1] {
            let mut run = runs[number].take().unwrap();
            if number == 0 {
                run.kill();
            }
            ended.push((number, run.finish()));
            dial(&mut runs);
        }
        let dialled = dial(&mut runs);
        for (number, finished) in ended.into_iter().filter(|(number, _)| *number != 0) {
            let reports = finished.well().reports();
            assert_eq!(reports.len(), 2 * dialled[number], "{number}: {reports:#?}");
            let address = servers[number].address();
            assert!(reports.iter().all(|report| report.original_destination == address), "{reports:#?}");
        }
    }
}

mod nested {
    use super::*;

    /// Two runs around the one whose command dials; their reports are in these files.
    const MIDDLE: &str = "middle.json";
    const INNER: &str = "inner.json";

    fn three_deep() -> Waylay {
        let outer = waylay().reporting().args(["--through", "a=log", "--through", "b=log"]);
        let middle = outer.around_another(MIDDLE).args(["--through", "c=log"]);
        middle.around_another(INNER).args(["--through", "d=log", "--through", "a=log"])
    }

    fn chains(reports: &[Report], service: &str) -> Vec<Vec<String>> {
        let of_service = reports.iter().filter(|report| report.service == service);
        of_service.map(|report| report.chain.clone()).collect()
    }

    #[test]
    fn a_connection_passes_the_innermost_run_first_and_each_keeps_its_own_chain() {
        let (four, six) = (greeter(Ipv4Addr::LOCALHOST), greeter(Ipv6Addr::LOCALHOST));
        let mut run = three_deep().spawn_dialler();
        for (host, server) in [("127.0.0.1", &four), ("::1", &six), ("::ffff:127.0.0.1", &four)] {
            assert_eq!(run.ask(&format!("dial {host} {}", server.address().port())), "ok", "{host}");
        }
        let finished = run.finish().well();
        let (outer, middle, inner) =
            (finished.reports(), finished.reports_in(MIDDLE), finished.reports_in(INNER));
        for (reports, service, chain) in [
            (&inner, "d", &["d"][..]),
            (&inner, "a", &["d", "a"]),
            (&middle, "c", &["c"]),
            (&outer, "a", &["a"]),
            (&outer, "b", &["a", "b"]),
        ] {
            assert_eq!(chains(reports, service), vec![chain; 3], "{reports:#?}");
        }
        for reports in [&inner, &middle, &outer] {
            let went = |to: &TcpServer| {
                reports.iter().filter(|report| report.original_destination == to.address()).count()
            };
            assert_eq!(went(&four) * 3, reports.len() * 2, "{reports:#?}");
            assert_eq!(went(&six) * 3, reports.len(), "{reports:#?}");
            assert!(reports.iter().all(|report| report.bytes_to_application == 5), "{reports:#?}");
        }
        // The application of a run is who dials in its scope: the run inside of it dials by its last service.
        let python = python();
        assert!(inner.iter().all(|report| report.application == python), "{inner:#?}");
        let waylay = Waylay::binary();
        let of_services = |report: &Report| Path::new(&report.application) == waylay;
        assert!(middle.iter().chain(&outer).all(of_services), "{middle:#?} {outer:#?}");
    }

    /// At every level both sockets of a service, and that of the application, show the original destination.
    #[test]
    fn every_socket_is_answered_for_by_its_own_run_in_thousands_of_connections() {
        let programs = Programs::new();
        let outer = waylay().args(["--through", &programs.probe("outer", "tell")]);
        let middle = outer.around_another(MIDDLE).args(["--through", &programs.probe("middle", "vouch")]);
        let inner = middle.around_another(INNER).args(["--through", &programs.probe("inner", "vouch")]);
        let finished = inner.watch([&programs.path("netlab-load"), "2000", "4", "behind-others"]).well();
        assert_eq!(finished.stdout, "right 2000 wrong 0 missing 0\n", "{finished:?}");
    }

    #[test]
    fn the_outer_run_goes_on_when_the_inner_one_has_ended() {
        let server = greeter(Ipv4Addr::LOCALHOST);
        let port = server.address().port();
        let read = format!("read -n 5 word < /dev/tcp/127.0.0.1/{port}; echo $word");
        let both = format!("\"$0\" run --through inner=log -- bash -c '{read}'; {read}");
        let mut command = waylay().reporting().args(["--through", "outer=log", "--", "bash", "-c", &both]);
        command = command.args([Waylay::binary()]);
        let finished = command.finish().well();
        assert_eq!(finished.stdout, "hello\nhello\n", "{finished:?}");
        assert!(finished.stderr.contains("via inner"), "{finished:?}");
        let outer = finished.reports();
        let applications: Vec<_> = outer.iter().map(|report| report.application.as_str()).collect();
        assert_eq!(applications.len(), 2, "{outer:#?}");
        assert!(applications[0].ends_with("/waylay") && applications[1].ends_with("/bash"), "{outer:#?}");
    }

    fn two_deep() -> Waylay {
        waylay().reporting().args(["--through", "outer=log"]).around_another(INNER)
    }

    fn inner_of(run: &mut Running) -> (Instance, u32) {
        let outer = run.instance();
        patiently("the inner run", || {
            let pid = outer.pids("app").into_iter().next()?;
            let inner = Instance::of_waylay(pid)?;
            (!inner.pids("app").is_empty()).then_some((inner, pid))
        })
    }

    /// The rules of a run that was killed stay, for the services of a run inside of it too.
    #[test]
    fn nothing_gets_past_an_outer_run_that_was_killed() {
        let server = greeter(Ipv4Addr::LOCALHOST);
        let dial = format!("dial 127.0.0.1 {}", server.address().port());
        let mut run = two_deep().args(["--through", "inner=log"]).spawn_dialler();
        assert_eq!(run.ask(&dial), "ok");
        let (inner, pid) = inner_of(&mut run);
        let outer = run.instance();
        let log = run.directory().join(INNER);
        let reports = || Report::parse_all(&fs::read_to_string(&log).unwrap_or_default());
        // Until the first connection is over, the end of the outer run would be one with an error for it.
        patiently("the first report", || (reports().len() == 1).then_some(()));
        run.kill();
        patiently("the end of the outer service", || outer.has_ended("svc-outer").then_some(()));
        for _ in 0..3 {
            let answer = run.ask(&dial);
            assert!(answer.ends_with("ECONNRESET"), "{answer}");
        }
        assert_eq!(server.accepted(), 1);
        run.close_input();
        patiently("the end of the inner run", || inner.is_gone().then_some(()));
        patiently("the end of its process", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        let reports = reports();
        let verdicts: Vec<&str> = reports.iter().map(|report| report.verdict.as_str()).collect();
        assert_eq!(verdicts, ["forwarded", "unreachable", "unreachable", "unreachable"], "{reports:#?}");
        waylay().watch(["true"]).well();
        patiently("the clean-up", || outer.is_gone().then_some(()));
    }

    /// What is left of the inner one refuses; the outer one lives as long as the command, and leaves nothing of both.
    #[test]
    fn nothing_gets_past_an_inner_run_that_was_killed() {
        let server = greeter(Ipv4Addr::LOCALHOST);
        let dial = format!("dial 127.0.0.1 {}", server.address().port());
        let mut run = two_deep().args(["--through", "inner=log"]).spawn_dialler();
        assert_eq!(run.ask(&dial), "ok");
        let (inner, pid) = inner_of(&mut run);
        kill(pid, Signal::KILL);
        patiently("the end of the inner service", || inner.has_ended("svc-inner").then_some(()));
        for _ in 0..3 {
            assert_eq!(run.ask(&dial), "ECONNREFUSED");
        }
        assert!(run.is_running());
        let outer = run.instance();
        let finished = run.finish();
        assert_eq!(finished.code(), 128 + 9, "{finished:?}");
        assert_eq!((server.accepted(), finished.reports().len()), (1, 1), "{finished:?}");
        assert!(outer.is_gone());
        waylay().watch(["true"]).well();
        patiently("the clean-up", || inner.is_gone().then_some(()));
    }

    #[test]
    fn whatever_way_a_socket_is_connected_both_runs_see_it() {
        let server = greeter(Ipv4Addr::LOCALHOST);
        let ways = "mptcp fast_open_by_sendto fast_open_by_option non_blocking from_a_bound_address";
        let each = format!("for way in {ways}; do \"$0\" -c \"$1\" $way {}; done", server.address().port());
        let run = two_deep().args(["--through", "inner=log"]);
        let finished = run.watch(["sh", "-c", &each, python(), WAYS_TO_CONNECT]).well();
        assert_eq!(finished.stdout, "hello\n".repeat(5), "{finished:?}");
        for reports in [finished.reports(), finished.reports_in(INNER)] {
            let went = reports.iter().map(|report| report.original_destination).collect::<Vec<_>>();
            assert_eq!(went, [server.address(); 5], "{reports:#?}");
        }
    }

    /// As behind sudo: the command is the person's, the run is root's.
    #[test]
    fn an_inner_run_gives_its_command_to_the_person_behind_sudo() {
        let server = greeter(Ipv4Addr::LOCALHOST);
        let read =
            format!("id -u; read -n 5 word < /dev/tcp/127.0.0.1/{}; echo $word", server.address().port());
        let inner = format!("SUDO_UID=65534 exec \"$0\" run --through inner=log -- bash -c '{read}'");
        let run = waylay().reporting().args(["--through", "outer=log", "--", "bash", "-c", &inner]);
        let finished = run.args([Waylay::binary()]).finish().well();
        assert_eq!(finished.stdout, "65534\nhello\n", "{finished:?}");
        assert!(finished.stderr.contains("via inner"), "{finished:?}");
        assert_eq!(finished.report_of("outer").original_destination, server.address());
    }

    /// Of a user's command nothing can be hooked, and nothing be put outside of the outer run.
    #[test]
    fn a_run_inside_of_a_users_is_refused_in_a_line() {
        let programs = Programs::new();
        let start = |way: &str| {
            let inner = format!("{way} {} run --engine ebpf -- true", programs.path("waylay"));
            let arguments = ["--user", "nobody", "--through", "outer=log", "--", "sh", "-c", &inner];
            waylay().args(arguments).finish()
        };
        let refused = start("exec");
        let said = refused.refused_in_a_line();
        assert!(said.starts_with("waylay: waylay run needs root"), "{said}");
        let refused = start("exec unshare --user --map-root-user");
        let said = refused.refused_in_a_line();
        assert!(said.starts_with("waylay: not permitted to load eBPF programs"), "{said}");
    }
}

/// An instance within a service of another: the programs of both are asked about the inner service's sockets.
mod two_programs_on_one_cgroup {
    use socket2::{Domain, Socket, Type};
    use waylay::{
        QueryError, RedirectRecords, SetError, query_original_destination, query_redirect_records,
        set_redirect_records,
    };

    use super::*;

    struct Both {
        inner: Lab,
        inner_services: Listeners,
        outer: Lab,
        outer_services: Listeners,
    }

    impl Both {
        fn new(name: &str) -> Self {
            let mut outer = Lab::new(&format!("{name}-outer"), Limits::default());
            let outer_services = Listeners::of(&mut outer);
            let mut inner = outer.below("svc-1", &format!("{name}-inner"), Limits::default());
            let inner_services = Listeners::of(&mut inner);
            Self { inner, inner_services, outer, outer_services }
        }

        /// A connection that the inner service has accepted, and its application's end.
        fn accepted(&self) -> (TcpStream, Socket) {
            let application = dialled(&self.inner);
            (self.inner_services.take().remove(0), application)
        }

        fn set(&self, records: &RedirectRecords) -> Result<(), SetError> {
            self.inner.as_service(1, || set_redirect_records(&tcp(), records))
        }
    }

    fn tcp() -> Socket {
        Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
    }

    fn dialled(lab: &Lab) -> Socket {
        lab.as_application(|| {
            let socket = tcp();
            socket.connect(&anywhere().into()).unwrap();
            socket
        })
    }

    #[test]
    fn leave_alone_what_the_other_has_answered() {
        let both = Both::new("answers");
        let (accepted, _application) = both.accepted();
        let records = query_redirect_records(&accepted).unwrap();
        assert_eq!(query_original_destination(&accepted).unwrap(), anywhere());
        both.set(&records).unwrap();
        // Nor does the inner one stand between the outer one and its own.
        let _application = dialled(&both.outer);
        let accepted = both.outer_services.take().remove(0);
        let records = query_redirect_records(&accepted).unwrap();
        both.outer.as_service(1, || set_redirect_records(&tcp(), &records)).unwrap();
    }

    #[test]
    fn leave_alone_what_the_other_has_refused() {
        let both = Both::new("refusals");
        let (accepted, application) = both.accepted();
        let records = query_redirect_records(&accepted).unwrap();
        application.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(application);
        patiently("the end of the flow", || (both.inner.engine.flow_count().unwrap() == 0).then_some(()));
        let ended = query_redirect_records(&accepted);
        assert!(matches!(ended, Err(QueryError::FlowEnded)), "{ended:?}");
        let ended = both.set(&records);
        assert!(matches!(ended, Err(SetError::FlowEnded)), "{ended:?}");
        let mut tampered = records.as_bytes().to_vec();
        tampered[47] ^= 1;
        let tampered = both.set(&RedirectRecords::from_bytes(&tampered));
        assert!(matches!(tampered, Err(SetError::Tampered)), "{tampered:?}");
        let nobodys = both.set(&RedirectRecords::from_bytes(&{
            let mut bytes = records.as_bytes().to_vec();
            bytes[23] ^= 1;
            bytes
        }));
        assert!(matches!(nobodys, Err(SetError::Expired)), "{nobodys:?}");
    }

    /// To the outer one it is the service that dials without records: it goes on after it, and not to it again.
    #[test]
    fn do_not_send_what_is_dialled_within_a_service_to_that_service() {
        let both = Both::new("within");
        let server = listener4();
        let address = server.local_addr().unwrap();
        assert_eq!(both.inner.dial("app", &[address]), connected(&[address]));
        assert_eq!((both.inner_services.take().len(), both.outer_services.take().len()), (1, 0));
        assert_eq!(both.inner.dial("svc-1", &[address]), connected(&[address]));
        server.accept().unwrap();
        assert_eq!((both.inner_services.take().len(), both.outer_services.take().len()), (0, 0));
    }

    /// What the outer one gave its service is of use there, although a program of another instance is asked first.
    #[test]
    fn take_the_records_of_their_own_instance_whichever_is_asked_first() {
        let both = Both::new("either");
        let _application = dialled(&both.outer);
        let accepted = both.outer_services.take().remove(0);
        let records = query_redirect_records(&accepted).unwrap();
        // A process of the inner instance is one of the outer one's service: it is in its cgroup.
        both.set(&records).unwrap();
    }
}

mod of_another_version {
    use super::*;

    /// A run that shares no registry with one around it would take that one's services for applications.
    #[test]
    fn a_run_is_refused_inside_of_one() {
        let inner = "read go; exec \"$0\" run -- true";
        let run = waylay().args(["--through", "outer=log", "--", "sh", "-c", inner]);
        let mut run = run.args([Waylay::binary()]).spawn_as_is();
        let outer = run.instance();
        let record = fs::read_to_string(outer.record()).unwrap();
        let other = record.replace("\"registry\":", "\"registry\":1");
        assert_ne!(record, other);
        // In place: the lock is on the file.
        fs::write(outer.record(), other).unwrap();
        run.tell("go");
        let refused = run.finish();
        let said = refused.refused_in_a_line();
        let named =
            format!("waylay: this is inside of the run waylay-{}, which is of another version", outer.id());
        assert!(said.starts_with(&named), "{said}");
    }
}
