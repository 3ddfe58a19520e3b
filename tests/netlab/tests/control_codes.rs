//! The control codes as programs in C use them: a case for each row of the tables
//! in `docs/control-codes.md`. The cases are in `programs/control-codes`.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use libbpf_rs::{Link, ObjectBuilder};
use waylay_core::{
    Conditions, FailurePolicy, Filter, FilterId, Layer, Policy, PortRange, Service, ServiceId,
};
use waylay_engine::Endpoint;
use waylay_engine_ebpf::Limits;
use waylay_netlab::{CheckedBy, Lab, program};

/// A case that needs no service.
fn passes(case: &str) {
    let checked_by = CheckedBy::from_env();
    let output = checked_by.command(&program("control-codes", &checked_by)).arg(case).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout == b"passed\n", "{case}: {:?}\n{said}", output.status);
}

/// A case in the place of a service, with a redirected connection.
fn passes_in_a_service(case: &str) {
    Stage::new(case).play(case);
}

/// Two services, of which the first has every connection to port 80.
struct Stage {
    lab: Lab,
    /// A program of another version that is attached last.
    last: Option<&'static str>,
}

impl Stage {
    fn new(case: &str) -> Self {
        Self { lab: Lab::new(&case[..case.len().min(24)], Limits::default()), last: None }
    }

    fn play(mut self, case: &str) {
        let mut actor = Actor::start(&self.lab, case);
        let address = actor.listening();
        self.install(address);
        let _last = self.last.map(|program| AnotherVersion::new(&self.lab).attach(program));
        let mut client = Some(self.lab.as_application(|| TcpStream::connect(("192.0.2.1", 80)).unwrap()));
        let _direct = TcpStream::connect(address).unwrap();
        loop {
            actor.done();
            match actor.line().as_str() {
                "close the client" => drop(client.take()),
                said => return actor.end(said),
            }
        }
    }

    fn install(&mut self, address: SocketAddrV4) {
        let service = |id| Service {
            id: ServiceId(id),
            name: format!("s{id}"),
            before: Vec::new(),
            after: Vec::new(),
            on_failure: FailurePolicy::Closed,
        };
        let filter = Filter {
            id: FilterId(1),
            weight: 0,
            conditions: Conditions {
                remote_ports: Some(PortRange::single(80).into()),
                ..Conditions::default()
            },
            layer: Layer::Redirect { service: ServiceId(1) },
        };
        let policy = Policy::new([1, 2].map(service).into(), Vec::new(), vec![filter]).unwrap();
        let first = Endpoint { tcp4: vec![address], ..self.lab.endpoint(1, []) };
        self.lab.install(&policy, vec![first, self.lab.endpoint(2, [])]);
    }
}

/// The program that plays the service.
struct Actor {
    child: Child,
    input: ChildStdin,
    output: Box<dyn BufRead>,
}

impl Actor {
    fn start(lab: &Lab, case: &str) -> Self {
        let checked_by = CheckedBy::from_env();
        let mut command = checked_by.command(&program("control-codes", &checked_by));
        command.arg(case).args([lab.procs("svc-1"), lab.procs("svc-2")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = Box::new(BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    fn done(&mut self) {
        // If it has failed meanwhile, its end says so.
        let _gone = self.input.write_all(b"done\n");
    }

    fn listening(&mut self) -> SocketAddrV4 {
        let line = self.line();
        let port = line.strip_prefix("listening ").unwrap_or_else(|| panic!("{line:?}"));
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().unwrap())
    }

    fn end(mut self, said: &str) {
        let status = self.child.wait().unwrap();
        assert!(status.success() && said == "passed", "{status}: {said:?}");
    }
}

/// The programs of another version, attached to the cgroup of the first service.
struct AnotherVersion {
    object: libbpf_rs::Object,
    cgroup: File,
    _built: tempfile::TempDir,
}

impl AnotherVersion {
    fn new(lab: &Lab) -> Self {
        let built = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/another-version.bpf.c");
        let object = built.path().join("object");
        let mut clang = Command::new("clang");
        clang.args(["-target", "bpf", "-g", "-O2", "-idirafter", "/usr/include/x86_64-linux-gnu", "-c"]);
        assert!(clang.arg(source).arg("-o").arg(&object).status().unwrap().success());
        let cgroup = File::open(lab.procs("svc-1").parent().unwrap()).unwrap();
        let object = ObjectBuilder::default().open_file(object).unwrap().load().unwrap();
        Self { object, cgroup, _built: built }
    }

    fn attach(&mut self, program: &str) -> Link {
        let found = self.object.progs_mut().find(|found| found.name() == program).unwrap();
        found.attach_cgroup(self.cgroup.as_raw_fd()).unwrap()
    }
}

/// Asked before ours, which leave alone what has been answered.
#[test]
fn query_another_version() {
    let stage = Stage::new("query_another_version");
    let _answering = AnotherVersion::new(&stage.lab).attach("answer");
    stage.play("query_another_version");
}

/// Asked after ours, and so with the last word.
#[test]
fn set_network_down() {
    let stage = Stage { last: Some("refuse"), ..Stage::new("set_network_down") };
    stage.play("set_network_down");
}

/// The page that describes the control codes names a case for each of its rows, and leaves none out.
#[test]
fn every_case_is_that_of_a_row() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/control-codes.md"));
    let page = page.unwrap();
    let named: BTreeSet<&str> =
        page.split('`').skip(1).step_by(2).filter_map(|name| name.strip_prefix("case:")).collect();
    let listed = Command::new(program("control-codes", &CheckedBy::Nothing)).arg("list").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let listed: BTreeSet<&str> = listed.lines().map(|line| line.trim_start_matches("service ")).collect();
    assert_eq!(named, listed);
    assert_eq!(listed, CASES.iter().copied().collect());
}

macro_rules! cases {
    ($($how:ident: $($case:ident)*;)*) => {
        /// Every case that is run.
        const CASES: &[&str] = &[$($(stringify!($case),)*)* "query_another_version", "set_network_down"];
        $($(#[test]
        fn $case() {
            $how(stringify!($case));
        })*)*
    };
}

cases! {
    passes_in_a_service:
        query_answers
        query_short_buffer
        query_huge_buffer
        query_fault
        query_input
        query_of_a_listener
        query_not_connected
        query_ended
        query_not_redirected
        query_outside_of_a_service
        query_of_another_kind
        query_no_socket
        query_would_block
        query_interrupted
        query_closed_while_it_waits
        query_waits_for_the_connection
        query_in_a_completion_routine
        query_before_startup
        set_succeeds
        set_on_a_bound_socket
        set_refused
        set_output
        set_connected
        set_ended
        set_outside_of_a_service
        set_by_another_service
        set_fault
        set_of_another_kind
        set_no_socket
        set_never_waits
        set_in_a_completion_routine
        set_without_room
        set_before_startup
        overlapped_at_once_sets_the_event
        overlapped_at_once_queues_the_routine
        overlapped_of_a_socket_without_the_attribute
        overlapped_that_fails_at_once_indicates_nothing
        overlapped_wild_structures
        overlapped_of_a_provider;
    passes:
        overlapped_pends_and_sets_the_event
        overlapped_pends_and_is_waited_for
        overlapped_pends_and_queues_the_routine
        overlapped_pends_and_the_connection_fails
        overlapped_aborted_by_close
        overlapped_aborted_by_flush
        overlapped_aborted_by_the_end_of_its_thread
        overlapped_aborted_by_cleanup
        overlapped_used_by_two_threads
        overlapped_of_many_threads
        unknown_codes
        startup
        sockets
        last_error
        events
        extension_functions
        messages
        flow_idle
        flush
        results;
}
