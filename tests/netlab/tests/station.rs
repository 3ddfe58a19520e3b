//! A policy that changes while processes go on: stations on a cgroup that is there already.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use waylay_netlab::{
    Dialler, Home, Lines, Namespace, Process, Programs, Station, TcpServer, free_port, kill, patiently,
    system_python,
};

/// Greets, and gives back what it is sent.
fn echo() -> TcpServer {
    TcpServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST), |mut stream: TcpStream| {
        stream.write_all(b"hello")?;
        let mut bytes = [0; 4096];
        loop {
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                read => stream.write_all(&bytes[..read])?,
            }
        }
    })
}

fn say(what: &str, server: &TcpServer) -> String {
    format!("{what} {} {}", server.address().ip(), server.address().port())
}

/// A log of that name.
fn log(id: u32, name: &str, programs: &Programs) -> Value {
    json!({ "id": id, "name": name, "command": [programs.path("waylay"), "__serve", "log", "--name", name] })
}

/// Its reports, as far as they have come.
fn reports(station: &Station, name: &str) -> Vec<String> {
    let seen = station.seen().text();
    let seen = seen.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_it = seen.filter(|line| line["report"][0] == json!(name));
    of_it.map(|line| line["report"][1].as_str().unwrap().to_owned()).collect()
}

fn wait_for_reports(station: &Station, name: &str, count: usize) {
    patiently(&format!("{count} reports of {name}"), || {
        (reports(station, name).len() == count).then_some(())
    });
}

/// The names of those that serve, and of those that leave.
fn names(station: &mut Station, condition: &str) -> Vec<String> {
    let services = station.services().into_iter().filter(|service| service["condition"] == json!(condition));
    services.map(|service| service["name"].as_str().unwrap().to_owned()).collect()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect()
}

/// The station's own cgroup in its scope.
fn own_cgroup(home: &Home) -> PathBuf {
    let [own] = &children(home.directory())[..] else { panic!("{:?}", children(home.directory())) };
    own.clone()
}

/// What of a station can be seen on the host.
fn traces(own: &Path) -> Vec<PathBuf> {
    let name = own.file_name().unwrap().to_str().unwrap();
    let record = format!("/run/waylay/{}.json", name.trim_start_matches("waylay-"));
    let all = [own.to_owned(), Path::new("/sys/fs/bpf/waylay").join(name), record.into()];
    all.into_iter().filter(|path| path.exists()).collect()
}

/// A scope with a client in it that was there before, a server outside, and a station.
struct Scene {
    programs: Programs,
    home: Home,
    client: Dialler,
    server: TcpServer,
    station: Station,
}

impl Scene {
    fn new(name: &str) -> Self {
        let home = Home::new(name);
        let client = home.start_dialler();
        let station = Station::open(home.directory());
        Self { programs: Programs::new(), home, client, server: echo(), station }
    }

    fn log(&self, id: u32, name: &str) -> Value {
        log(id, name, &self.programs)
    }

    fn ask(&mut self, what: &str) -> String {
        self.client.ask(&say(what, &self.server))
    }
}

#[test]
fn who_was_there_before_is_redirected_from_the_moment_a_policy_is_in_force() {
    let mut scene = Scene::new("before");
    assert_eq!(scene.ask("open"), "ok");
    let log = scene.log(1, "log");
    scene.station.apply(&[log]).unwrap();
    assert_eq!(scene.ask("dial"), "ok");
    wait_for_reports(&scene.station, "log", 1);
    // What it had open it has.
    scene.station.apply(&[]).unwrap();
    assert_eq!(scene.ask("dial"), "ok");
    assert_eq!(reports(&scene.station, "log").len(), 1);
    assert_eq!(scene.server.accepted(), 3);
    scene.station.close();
}

#[test]
fn an_end_leaves_the_scope_as_it_was() {
    let mut scene = Scene::new("end");
    let log = scene.log(1, "log");
    scene.station.apply(&[log]).unwrap();
    let own = own_cgroup(&scene.home);
    assert_eq!(traces(&own).len(), 3);
    assert_eq!(scene.ask("dial"), "ok");
    scene.station.close();
    assert_eq!(traces(&own), Vec::<PathBuf>::new());
    assert_eq!(children(scene.home.directory()), Vec::<PathBuf>::new());
    assert_eq!(scene.client.ask(&say("dial", &scene.server)), "ok");
}

/// Whichever way a service is replaced: what it has accepted goes on through it, and nothing that is dialled meanwhile
/// is refused or missed.
#[test]
fn a_service_that_is_replaced_while_connections_run_loses_none() {
    let mut scene = Scene::new("replaced");
    let first = scene.log(1, "log");
    scene.station.apply(&[first]).unwrap();
    assert_eq!(scene.ask("open"), "ok");
    assert_eq!(scene.client.ask("ping"), "pong");
    let stop = Arc::new(AtomicBool::new(false));
    let dialling = {
        let (mut busy, say, stop) =
            (scene.home.start_dialler(), say("dial", &scene.server), Arc::clone(&stop));
        thread::spawn(move || {
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                answers.push(busy.ask(&say));
            }
            answers
        })
    };
    for id in 2..12 {
        let next = scene.log(id, "log");
        scene.station.apply(&[next]).unwrap();
        assert_eq!(scene.client.ask("ping"), "pong", "{id}");
    }
    stop.store(true, Ordering::Relaxed);
    let answers = dialling.join().unwrap();
    assert!(answers.len() > 10 && answers.iter().all(|answer| answer == "ok"), "{answers:?}");
    // Each was seen by the service in whose time it was dialled. What that one carries on after it was replaced passes its
    // successor too.
    let first_legs = |report: &String| {
        let report: Value = serde_json::from_str(report).unwrap();
        report["chain"].as_array().unwrap().len() == 1
    };
    patiently("a report of each", || {
        let seen = reports(&scene.station, "log").into_iter().filter(first_legs).count();
        (seen == answers.len()).then_some(())
    });
    assert_eq!(scene.server.accepted(), answers.len() + 1);
    assert_eq!(scene.client.ask("ping"), "pong");
    patiently("only the first one has something to finish", || {
        (names(&mut scene.station, "leaving").len() == 1).then_some(())
    });
    assert_eq!(names(&mut scene.station, "serving"), ["log"]);
    scene.station.close();
}

#[test]
fn a_wrong_command_leaves_what_was_in_force() {
    let mut scene = Scene::new("wrong");
    let first = scene.log(1, "first");
    scene.station.apply(std::slice::from_ref(&first)).unwrap();
    let own = own_cgroup(&scene.home);
    let wrong = json!({ "id": 2, "name": "second", "command": ["/nobody/is/here"] });
    let silent = json!({
        "id": 3, "name": "third", "command": ["true"], "listens": format!("127.0.0.1:{}", free_port()),
    });
    for (bad, words) in [(wrong, "command not found"), (silent, "ended with exit status: 0")] {
        let another = scene.log(4, "fourth");
        let error = scene.station.apply(&[another, bad.clone(), first.clone()]).unwrap_err();
        assert!(error.contains(words), "{error}");
        assert_eq!(children(&own), [own.join("svc-first")]);
        assert_eq!(names(&mut scene.station, "serving"), ["first"]);
        assert_eq!(scene.ask("dial"), "ok");
    }
    wait_for_reports(&scene.station, "first", 2);
    // Nobody has tried to lead anything to those that did not come.
    assert!(!scene.station.seen().text().contains("refused"), "{}", scene.station.seen().text());
    // And a good one may take an id that has not been in force.
    let another = scene.log(4, "fourth");
    scene.station.apply(&[another]).unwrap();
    assert_eq!(scene.ask("dial"), "ok");
    wait_for_reports(&scene.station, "fourth", 1);
    scene.station.close();
}

/// Without a policy that was in force before, nothing is.
#[test]
fn a_first_policy_that_cannot_be_leaves_nothing_in_force() {
    let mut scene = Scene::new("first");
    let own = own_cgroup(&scene.home);
    let silent = json!({
        "id": 1, "name": "silent", "command": ["true"], "listens": format!("127.0.0.1:{}", free_port()),
    });
    let log = scene.log(2, "log");
    let error = scene.station.apply(&[log, silent]).unwrap_err();
    assert!(error.contains("ended with exit status: 0"), "{error}");
    assert_eq!(children(&own), Vec::<PathBuf>::new());
    assert_eq!(scene.ask("dial"), "ok");
    assert!(!scene.station.seen().text().contains("report"), "{}", scene.station.seen().text());
    let log = scene.log(3, "log");
    scene.station.apply(&[log]).unwrap();
    assert_eq!(scene.ask("dial"), "ok");
    wait_for_reports(&scene.station, "log", 1);
    scene.station.close();
}

/// More often than there are slots and users.
#[test]
fn services_come_and_go_two_hundred_times() {
    let mut scene = Scene::new("often");
    let stays = scene.log(1000, "stays");
    for id in 1..=200 {
        let next = scene.log(id, "comes-and-goes");
        scene.station.apply(&[next, stays.clone()]).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(scene.ask("dial"), "ok", "{id}");
    }
    scene.station.apply(&[stays]).unwrap();
    wait_for_reports(&scene.station, "comes-and-goes", 200);
    wait_for_reports(&scene.station, "stays", 200);
    patiently("nobody leaves any more", || names(&mut scene.station, "leaving").is_empty().then_some(()));
    let own = own_cgroup(&scene.home);
    assert_eq!(children(&own), [own.join("svc-stays")]);
    // Slots are freed without a change, and with them the last of what a service had.
    let pins = Path::new("/sys/fs/bpf/waylay").join(own.file_name().unwrap());
    let of_services = || {
        let names = fs::read_dir(&pins).unwrap().flatten().map(|pin| pin.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("wl_setsockopt-")).collect::<Vec<_>>()
    };
    patiently("only one is served", || (of_services() == ["wl_setsockopt-1000"]).then_some(()));
    scene.station.close();
}

/// A proxy that knows nothing of waylay: it asks where a connection was going, and goes on there.
const PROXY: &str = "\
import socket, struct, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
    except OSError: pass
    try: b.shutdown(socket.SHUT_WR)
    except OSError: pass
def serve(a):
    port, address = struct.unpack('!2xH4s8x', a.getsockopt(socket.SOL_IP, 80, 16))
    b = socket.create_connection((socket.inet_ntoa(address), port))
    threading.Thread(target=pump, args=(a, b), daemon=True).start()
    pump(b, a)
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print('listening', flush=True)
while True: threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
";

fn adopted(id: u32, name: &str, port: u16) -> Value {
    json!({
        "id": id, "name": name, "command": [system_python(), "-c", PROXY, port.to_string()],
        "listens": format!("127.0.0.1:{port}"),
    })
}

#[test]
fn adopted_services_come_and_go_as_others_do() {
    let mut scene = Scene::new("adopted");
    let log = scene.log(1, "log");
    let (one, other) = (free_port(), free_port());
    scene.station.apply(&[log.clone(), adopted(2, "proxy", one)]).unwrap();
    assert_eq!(scene.ask("open"), "ok");
    let flows = scene.station.flows();
    let hops: Vec<&Value> = flows.iter().map(|flow| &flow["hops"]).collect();
    assert_eq!(hops, [&json!([[1, 1]]), &json!([[1, 1], [2, 2]])]);
    scene.station.apply(&[adopted(3, "another", other), log]).unwrap();
    assert_eq!(scene.client.ask("ping"), "pong");
    assert_eq!(names(&mut scene.station, "serving"), ["log", "another"]);
    assert_eq!(names(&mut scene.station, "leaving"), ["proxy"]);
    let mut second = scene.home.start_dialler();
    assert_eq!(second.ask(&say("open", &scene.server)), "ok");
    let through_another = |flow: &Value| flow["hops"][0] == json!([3, 3]);
    assert!(scene.station.flows().iter().any(through_another), "{:?}", scene.station.flows());
    // It ends when it has finished what it had.
    assert_eq!(scene.client.ask("ping"), "pong");
    drop(scene.client);
    patiently("the first has left", || names(&mut scene.station, "leaving").is_empty().then_some(()));
    assert_eq!(second.ask("ping"), "pong");
    scene.station.close();
}

/// One that goes by getsockname, as TPROXY has it.
fn transparent(id: u32, name: &str, destination: Option<&str>, port: u16) -> Value {
    let by_name = "a.getsockname()";
    let program = PROXY
        .replace("struct.unpack('!2xH4s8x', a.getsockopt(socket.SOL_IP, 80, 16))", by_name)
        .replace("port, address", "address, port")
        .replace("socket.inet_ntoa(address)", "address")
        .replace(
            "server = socket.create_server(('127.0.0.1', int(sys.argv[1])))",
            "server = socket.socket()\nserver.setsockopt(socket.SOL_IP, 19, 1)\n\
             server.bind(('127.0.0.1', int(sys.argv[1])))\nserver.listen()",
        );
    json!({
        "id": id, "name": name, "command": [system_python(), "-c", program, port.to_string()],
        "listens": format!("127.0.0.1:{port}"), "destination": destination,
    })
}

/// They ask for `IP_TRANSPARENT` at their start, before the policy that has them is in force.
#[test]
fn adopted_services_that_ask_for_transparency_come_later_too() {
    let mut scene = Scene::new("later");
    let log = scene.log(1, "log");
    scene.station.apply(std::slice::from_ref(&log)).unwrap();
    assert_eq!(scene.ask("open"), "ok");
    scene.station.apply(&[log.clone(), transparent(2, "proxy", Some("local"), free_port())]).unwrap();
    let mut second = scene.home.start_dialler();
    assert_eq!(second.ask(&say("open", &scene.server)), "ok");
    let through_both = |flow: &Value| flow["hops"] == json!([[1, 1], [2, 2]]);
    assert!(scene.station.flows().iter().any(through_both), "{:?}", scene.station.flows());
    // An ordinary one is refused it, as everybody is.
    let refused = scene.station.apply(&[log, transparent(3, "other", None, free_port())]).unwrap_err();
    assert!(refused.contains("other"), "{refused}");
    assert_eq!(names(&mut scene.station, "serving"), ["log", "proxy"]);
    assert_eq!(second.ask("ping"), "pong");
    scene.station.close();
}

#[test]
fn one_that_runs_already_is_led_connections_for_a_while_and_goes_on() {
    let mut scene = Scene::new("resident");
    let port = free_port();
    let home = Home::new("proxy");
    let command = format!("{} -c \"$(cat {})\" {port}", system_python(), write(&scene.programs, PROXY));
    let (_proxy, said): (Process, Lines) = home.start(&command);
    said.wait_for("listening");
    let resident = json!({
        "id": 1, "name": "resident", "listens": format!("127.0.0.1:{port}"),
        "known_by": format!("cgroup={}", home.path().display()),
    });
    let own = own_cgroup(&scene.home);
    let record = format!("/run/waylay/{}.json", own.to_str().unwrap().rsplit_once("waylay-").unwrap().1);
    scene.station.apply(&[resident]).unwrap();
    assert!(fs::read_to_string(&record).unwrap().contains("resident\""), "{record}");
    assert_eq!(scene.ask("open"), "ok");
    assert_eq!(scene.station.flows().len(), 1);
    let log = scene.log(2, "log");
    scene.station.apply(&[log]).unwrap();
    assert_eq!(scene.client.ask("ping"), "pong");
    assert_eq!(names(&mut scene.station, "leaving"), ["resident"]);
    drop(scene.client);
    patiently("it is led nothing", || names(&mut scene.station, "leaving").is_empty().then_some(()));
    scene.client = scene.home.start_dialler();
    assert_eq!(scene.ask("dial"), "ok");
    wait_for_reports(&scene.station, "log", 1);
    assert!(TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok());
    scene.station.close();
}

fn write(programs: &Programs, text: &str) -> String {
    let path = programs.path("proxy.py");
    fs::write(&path, text).unwrap();
    path
}

/// Its own, while its processes are the application's: a service that has died is one of which the station knows.
#[test]
fn a_service_that_dies_is_gone_until_it_is_replaced() {
    let mut scene = Scene::new("dies");
    let log = scene.log(1, "log");
    scene.station.apply(&[log]).unwrap();
    let services = scene.station.services();
    kill(u32::try_from(services[0]["processes"][0].as_u64().unwrap()).unwrap(), Signal::KILL);
    scene.station.seen().wait_for("died");
    assert_eq!(names(&mut scene.station, "gone"), ["log"]);
    assert_eq!(scene.ask("dial"), "ECONNREFUSED");
    assert!(scene.station.seen().wait_for("refused").contains("log"));
    let log = scene.log(2, "log");
    scene.station.apply(&[log]).unwrap();
    assert_eq!(names(&mut scene.station, "serving"), ["log"]);
    assert_eq!(scene.ask("dial"), "ok");
    scene.station.close();
}

/// What a dead station has pinned stays in force, whoever comes by, until another one takes its place.
#[test]
fn another_one_takes_the_place_of_one_that_was_killed() {
    let mut scene = Scene::new("killed");
    let log = scene.log(1, "log");
    scene.station.apply(std::slice::from_ref(&log)).unwrap();
    let own = own_cgroup(&scene.home);
    let refused = Station::try_open(scene.home.directory()).unwrap_err();
    assert!(refused.contains("would pass connections to and fro"), "{refused}");
    scene.station.kill();
    patiently("the service has died with it", || {
        fs::read_to_string(own.join("svc-log/cgroup.procs")).unwrap().is_empty().then_some(())
    });
    let dial = say("dial", &scene.server);
    assert_eq!(scene.client.ask(&dial), "ECONNREFUSED");
    // Somebody else's scope is no reason to clean up here: there is a process in it.
    let elsewhere = Home::new("elsewhere");
    Station::open(elsewhere.directory()).close();
    assert_eq!(scene.client.ask(&dial), "ECONNREFUSED");
    assert_eq!(traces(&own).len(), 3);
    let mut next = Station::open(scene.home.directory());
    assert!(next.seen().wait_for("cleaned_up").contains('1'));
    assert_eq!(traces(&own), Vec::<PathBuf>::new());
    next.apply(&[log]).unwrap();
    assert_eq!(scene.client.ask(&dial), "ok");
    next.close();
}

/// Where nobody is left, whoever comes by cleans up.
#[test]
fn what_a_killed_one_has_left_in_an_empty_scope_is_removed_by_others() {
    let mut scene = Scene::new("emptied");
    let log = scene.log(1, "log");
    scene.station.apply(&[log]).unwrap();
    let own = own_cgroup(&scene.home);
    scene.station.kill();
    drop(scene.client);
    let elsewhere = Home::new("elsewhere");
    patiently("it is empty", || {
        Station::open(elsewhere.directory()).close();
        traces(&own).is_empty().then_some(())
    });
}

/// A live one tells who connects where, by which filters.
#[test]
fn what_is_redirected_can_be_asked_for() {
    let mut scene = Scene::new("flows");
    let (one, two) = (scene.log(7, "one"), scene.log(9, "two"));
    scene.station.apply(&[two, one]).unwrap();
    assert_eq!(scene.station.flows(), Vec::<Value>::new());
    assert_eq!(scene.ask("open"), "ok");
    let flows = scene.station.flows();
    assert_eq!(flows.len(), 2, "{flows:?}");
    for flow in &flows {
        assert_eq!(flow["destination"], json!(scene.server.address().to_string()));
        assert!(flow["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{flow}");
        assert_eq!((&flow["uid"], &flow["accepted"]), (&json!(0), &json!(true)));
        assert!(flow["exe"].as_str().unwrap().contains("python"), "{flow}");
    }
    assert_eq!(flows[0]["hops"], json!([[9, 9]]));
    assert_eq!(flows[1]["hops"], json!([[9, 9], [7, 7]]));
    drop(scene.client);
    patiently("they have ended", || scene.station.flows().is_empty().then_some(()));
    scene.station.close();
}

#[test]
fn what_is_older_than_the_policy_is_reset_where_it_says_so_and_what_was_redirected_or_accepted_goes_on() {
    let mut scene = Scene::new("existing");
    let resetting = |id: u32, scene: &Scene| {
        let mut service = scene.log(id, "log");
        service["existing"] = json!("reset");
        service
    };
    let (mut accepting, listener) = (scene.home.start_dialler(), free_port());
    assert_eq!(accepting.ask(&format!("listen 127.0.0.1 {listener}")), "listening");
    let mut caller = TcpStream::connect((Ipv4Addr::LOCALHOST, listener)).unwrap();
    assert_eq!(accepting.ask("accept"), "ok");
    thread::spawn(move || {
        let mut byte = [0];
        while caller.read_exact(&mut byte).is_ok() && caller.write_all(&byte).is_ok() {}
    });
    assert_eq!(scene.ask("open"), "ok");
    let log = scene.log(1, "log");
    scene.station.apply(&[log]).unwrap();
    assert_eq!(scene.client.ask("ping"), "pong");
    let log = resetting(1, &scene);
    scene.station.apply(&[log]).unwrap();
    assert_eq!(scene.client.ask("ping"), "ECONNABORTED");
    assert_eq!(accepting.ask("ping"), "pong");
    // One that is led to a service goes on when the policy changes, and when another takes the service's place.
    assert_eq!(scene.ask("open"), "ok");
    for id in [1, 2] {
        let log = resetting(id, &scene);
        scene.station.apply(&[log]).unwrap();
        assert_eq!(scene.client.ask("ping"), "pong");
    }
    let seen = scene.station.seen().text();
    let swept: Vec<Value> = seen.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let reset: Vec<&Value> = swept.iter().filter_map(|line| line["reset"].as_array()).flatten().collect();
    let [only] = reset[..] else { panic!("{seen}") };
    assert!(only.as_str().unwrap().ends_with(&format!("tcp -> {}", scene.server.address())), "{only}");
    scene.station.close();
}

const TRIES: &str = "\
import errno, socket, sys
kind, host, port = sys.argv[1:]
try:
    with socket.socket(socket.AF_INET, getattr(socket, kind)) as s:
        s.settimeout(20)
        s.connect((host, int(port)))
        if kind == 'SOCK_DGRAM':
            s.send(b'x')
            s.recv(1)
        print('from', s.getsockname()[0])
except OSError as error: print(errno.errorcode.get(error.errno, error))
";

/// As that of a whole host is: it must not be told by its own programs what they have been told by it, nor be refused the sockets
/// that it needs.
#[test]
fn a_station_within_its_own_scope_hears_of_routes_and_brings_errors() {
    let (programs, home, namespace) = (Programs::new(), Home::new("within"), Namespace::new());
    let mut station = Station::open_inside(home.directory(), &namespace);
    let mut log = log(1, "log", &programs);
    log["udp"] = json!(true);
    station.apply(&[log]).unwrap();
    let tries = |kind: &str, host: &str| {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", home.directory().display());
        let mut command = namespace.command("/bin/sh");
        command.args(["-c", &enter, "sh", system_python(), "-c", TRIES, kind, host, "9"]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    namespace.ip(&["link", "add", "wire", "type", "veth", "peer", "name", "end"]);
    namespace.ip(&["link", "set", "end", "up"]);
    namespace.ip(&["link", "set", "wire", "up"]);
    assert_eq!(tries("SOCK_STREAM", "203.0.113.7"), "ENETUNREACH\n");
    namespace.ip(&["addr", "add", "203.0.113.1/24", "dev", "wire"]);
    patiently("the route is known, and where it starts", || {
        (tries("SOCK_STREAM", "203.0.113.7") == "from 203.0.113.1\n").then_some(())
    });
    assert_eq!(tries("SOCK_DGRAM", "203.0.113.1"), "ECONNREFUSED\n");
    station.close();
}

#[test]
fn a_service_that_may_take_only_so_long_is_ended_and_its_place_is_free() {
    let mut scene = Scene::new("hurried");
    let mut first = scene.log(1, "log");
    first["leave_within_ms"] = json!(300);
    scene.station.apply(&[first]).unwrap();
    assert_eq!(scene.ask("open"), "ok");
    assert_eq!(scene.client.ask("ping"), "pong");
    let next = scene.log(2, "log");
    scene.station.apply(&[next]).unwrap();
    patiently("nobody leaves any more", || names(&mut scene.station, "leaving").is_empty().then_some(()));
    assert_ne!(scene.client.ask("ping"), "pong");
    assert_eq!(scene.ask("dial"), "ok");
    assert_eq!(names(&mut scene.station, "serving"), ["log"]);
    scene.station.close();
}
