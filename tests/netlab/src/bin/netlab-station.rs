//! A station on a cgroup that is there already: `netlab-station DIRECTORY`. It does as it is told, line by line on standard input, and
//! answers on standard output; what it observes goes to standard error. All of it is JSON.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program: a failed step must show")]

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::{self, Write},
    path::Path,
    process::{ExitCode, ExitStatus},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use waylay_core::{
    Conditions, Event, Existing, FailurePolicy, Filter, FilterId, Layer, Policy, Protocol, Service, ServiceId,
};
use waylay_host::{
    Adoption, Assignment, Condition, Ground, Interruption, LiveFlow, LocalName, Observer, ResidentError,
    RunError, ServiceSpec, ServiceState, Station, StationSpec, Step, Swept, Transports,
    cgroup::Cgroup,
    launch::{Launch, SUBCOMMAND},
};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let first = args.next().unwrap();
    if first == SUBCOMMAND {
        let launch: Launch = args.next().unwrap().into_string().unwrap().parse().unwrap();
        let command: Vec<_> = args.skip(1).collect();
        let error = launch.exec(&command);
        tell(&json!({ "launch": error.to_string() }));
        return ExitCode::from(error.exit_code());
    }
    let scope = Cgroup::root().unwrap().at(Path::new(&first)).unwrap();
    match serve(scope) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            answer(&json!({ "error": in_words(&error) }));
            ExitCode::FAILURE
        }
    }
}

fn serve(scope: Cgroup) -> Result<(), RunError> {
    let spec = StationSpec {
        ground: Ground::Existing(scope),
        patience: Duration::from_secs(30),
        start_patience: Duration::from_secs(30),
        residents: true,
        interruption: Interruption::default(),
    };
    let mut station = Station::open(spec, Arc::new(Stderr))?;
    answer(&json!("open"));
    for asked in questions() {
        match asked.as_str() {
            Some("services") => answer(&station.services().iter().map(service).collect()),
            Some("flows") => answer(&station.flows()?.iter().map(flow).collect()),
            Some(_) | None => match apply(&mut station, asked.as_array().map_or(&[], Vec::as_slice)) {
                Ok(()) => answer(&json!("in force")),
                Err(error) => answer(&json!({ "error": in_words(&error) })),
            },
        }
    }
    station.close()?;
    answer(&json!("closed"));
    Ok(())
}

fn questions() -> impl Iterator<Item = Value> {
    io::stdin().lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

/// From a thread that ends with it, as somebody may who answers requests.
fn apply(station: &mut Station, services: &[Value]) -> Result<(), RunError> {
    let assignment = Assignment {
        policy: policy(services),
        services: services.iter().map(|service| (id(service), spec(service))).collect::<BTreeMap<_, _>>(),
    };
    std::thread::scope(|scope| scope.spawn(|| station.apply(&assignment)).join().unwrap())
}

fn id(service: &Value) -> ServiceId {
    ServiceId(u32::try_from(service["id"].as_u64().unwrap()).unwrap())
}

fn name(service: &Value) -> String {
    service["name"].as_str().unwrap().to_owned()
}

/// Each for every connection of its transports, in this order.
fn policy(services: &[Value]) -> Policy {
    let declared = services.iter().map(|service| Service {
        id: id(service),
        name: name(service),
        before: Vec::new(),
        after: Vec::new(),
        on_failure: if service["open"] == json!(true) { FailurePolicy::Open } else { FailurePolicy::Closed },
    });
    let filters = services.iter().map(|service| Filter {
        id: FilterId(id(service).0),
        weight: 0,
        conditions: Conditions {
            protocol: (service["udp"] != json!(true)).then_some(Protocol::Tcp.into()),
            ..Conditions::default()
        },
        layer: Layer::Redirect { service: id(service) },
    });
    let resets = services.iter().any(|service| service["existing"] == json!("reset"));
    let existing = if resets { Existing::Reset } else { Existing::Leave };
    Policy::new(declared.collect(), Vec::new(), filters.collect()).unwrap().with_existing(existing)
}

fn spec(service: &Value) -> ServiceSpec {
    let listens = service["listens"].as_str().map(|address| vec![address.parse().unwrap()]);
    let known_by = service["known_by"].as_str().map(|text| text.parse().unwrap());
    let command = service["command"].as_array().cloned().unwrap_or_default();
    ServiceSpec {
        name: name(service),
        transports: transports(service),
        builtin: false,
        command: command.iter().map(|word| word.as_str().unwrap().into()).collect(),
        input: Vec::new(),
        identity: None,
        leave_within: service["leave_within_ms"].as_u64().map(Duration::from_millis),
        adoption: listens.map(|listens| Adoption { known_by, listens, local_name: local_name(service) }),
    }
}

fn transports(service: &Value) -> Transports {
    if service["udp"] == json!(true) {
        Transports::TcpAndUdp
    } else if service["udp"] == json!("only") {
        Transports::Udp
    } else {
        Transports::Tcp
    }
}

fn local_name(service: &Value) -> LocalName {
    match service["destination"].as_str() {
        None => LocalName::Listener,
        Some("local") => LocalName::Destination,
        Some("packet") => LocalName::Packet,
        Some(other) => panic!("no way to learn of a destination: {other}"),
    }
}

fn service(state: &ServiceState) -> Value {
    let condition = match state.condition {
        Condition::Serving => "serving",
        Condition::Gone => "gone",
        Condition::Leaving => "leaving",
    };
    let cgroup = state.cgroup.display().to_string();
    json!({
        "id": state.id.0, "name": state.name, "condition": condition, "cgroup": cgroup,
        "processes": state.processes, "listeners": state.listening.tcp4,
    })
}

fn flow(flow: &LiveFlow) -> Value {
    json!({
        "application": flow.application.pid, "uid": flow.application.uid,
        "source": flow.source, "destination": flow.destination, "accepted": flow.accepted,
        "exe": flow.application.exe, "comm": flow.application.comm,
        "hops": flow.hops.iter().map(|hop| [hop.service.0, hop.filter.0]).collect::<Vec<_>>(),
    })
}

fn answer(answer: &Value) {
    println!("{answer}");
}

/// In one piece, as services and whatever is about to become one have the same stderr, and may be ended while they write.
fn tell(what: &Value) {
    io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
}

fn in_words(error: &dyn Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {}", in_words(source)))
}

struct Stderr;

impl Observer for Stderr {
    fn report(&self, service: &str, line: &str) {
        tell(&json!({ "report": [service, line] }));
    }
    fn refused(&self, event: &Event, service: Option<&str>) {
        tell(&json!({ "refused": [service, format!("{event:?}")] }));
    }
    fn service_hung(&self, service: &str, _waited: Duration) {
        tell(&json!({ "hung": service }));
    }
    fn service_died(&self, service: &str, status: ExitStatus, on_failure: FailurePolicy) {
        tell(&json!({ "died": [service, status.to_string(), format!("{on_failure:?}")] }));
    }
    fn adopted_ended(&self, service: &str, _on_failure: FailurePolicy) {
        tell(&json!({ "ended": service }));
    }
    fn resident_listens(&self, service: &str, listens: bool, _on_failure: FailurePolicy) {
        tell(&json!({ "listens": [service, listens] }));
    }
    fn resident_awaited(&self, service: &str, why: &ResidentError, _on_failure: FailurePolicy) {
        tell(&json!({ "awaited": [service, why.to_string()] }));
    }
    fn family_missing(&self, service: &str, family: &str, _on_failure: FailurePolicy) {
        tell(&json!({ "missing": [service, family] }));
    }
    fn existing_ended(&self, swept: &Swept) {
        let reset: Vec<String> = swept.reset.iter().map(ToString::to_string).collect();
        tell(&json!({ "reset": reset, "left": format!("{:?} {:?}", swept.left, swept.unseen) }));
    }
    fn waiting_for_background(&self) {}
    fn step(&self, _step: Step<'_>) {}
    fn cleaned_up(&self, runs: usize) {
        tell(&json!({ "cleaned_up": runs }));
    }
}
