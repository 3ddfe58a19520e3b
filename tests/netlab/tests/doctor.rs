//! `waylay doctor` in real situations: with and without privileges, with
//! somebody else's programs above, with runs alive and killed.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use waylay_netlab::{Fence, Finished, Foreign, Ground, TcpServer, Waylay, patiently};

fn doctor(arguments: &[&str]) -> Finished {
    let mut command = Command::new(Waylay::binary());
    command.arg("doctor").args(arguments);
    Waylay::within(command).finish()
}

/// In a cgroup of the test's own.
fn doctor_in(fence: &Fence) -> Finished {
    let enter = format!("echo 0 > {}/cgroup.procs && exec \"$0\" doctor -o json", fence.path().display());
    let mut command = Command::new("sh");
    command.args(["-c", &enter]).arg(Waylay::binary());
    Waylay::within(command).finish()
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The entry of a list that is called so.
fn entry<'v>(list: &'v Value, name: &str) -> &'v Value {
    let found = list.as_array().unwrap().iter().find(|entry| entry["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list:#}"))
}

fn needs_in_state<'v>(findings: &'v Value, state: &str) -> BTreeSet<&'v str> {
    let needs = findings["needs"].as_array().unwrap().iter();
    needs.filter(|need| need["state"] == state).map(|need| need["name"].as_str().unwrap()).collect()
}

/// The binary where everybody can run it.
fn binary_for_everybody() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.path().join("waylay");
    fs::copy(Waylay::binary(), &binary).unwrap();
    (directory, binary)
}

#[test]
fn to_root_everything_that_a_run_needs_is_there() {
    let finished = doctor(&["-o", "json"]).well();
    let findings = json(&finished);
    assert_eq!(findings["ready"], true);
    assert_eq!(needs_in_state(&findings, "fine").len(), findings["needs"].as_array().unwrap().len());
    assert_eq!(entry(&findings["capabilities"], "redirect-tcp4")["available"], true);
    assert_eq!(entry(&findings["capabilities"], "redirect-udp4")["available"], true);
    assert_eq!(entry(&findings["capabilities"], "host-scope")["available"], true);
}

#[test]
fn the_keys_are_those_that_scripts_know() {
    let fence = Fence::new();
    Foreign::EGRESS.attach(fence.path(), "other");
    let mut run = Ground::loopback().waylay().spawn_dialler();
    run.instance();
    let findings = json(&doctor_in(&fence));
    run.finish().well();
    let wanted = [
        (
            &findings,
            "bound capabilities cgroup facts kernel needs open_ends programs ready runs without_root",
        ),
        (&findings["needs"][0], "found name needs remedy state"),
        (&findings["capabilities"][0], "available name needs remedy"),
        (&findings["without_root"], "capabilities needs ready"),
        (&findings["programs"][0], "attach_type cgroup holds_for_runs id meaning name sandbox waylay"),
        (&findings["runs"][0], "cgroup id inside owner processes residents services state"),
        (&findings["open_ends"][0], "name text"),
        (
            &findings["facts"],
            "command_runs_as_root container hidepid in_packets ipv6 jit link_local lockdown mptcp",
        ),
        (&findings["bound"], "most_hops whatever_services_do with_records"),
    ];
    for (object, names) in wanted {
        assert_eq!(keys(object), names.split(' ').collect(), "{object:#}");
    }
}

#[test]
fn it_changes_nothing() {
    let fence = Fence::new();
    // A BPF file system and a `/run` of its own, in which nobody leaves anything but the kernel.
    let script = format!(
        "echo 0 > {}/cgroup.procs && mount -t bpf none /sys/fs/bpf && mount -t tmpfs none /run && \
         \"$0\" doctor >/dev/null && find /sys/fs/bpf /run -mindepth 1 ! -name '*.debug'",
        fence.path().display()
    );
    let finished = in_a_private_place(&script).well();
    assert_eq!(finished.stdout, "", "left behind");
    assert!(fence.is_empty());
    let findings = json(&doctor_in(&fence).well());
    let programs = findings["programs"].as_array().unwrap().iter();
    assert_eq!(programs.filter(|program| program["cgroup"] == fence.path().to_str().unwrap()).count(), 0);
}

#[test]
fn to_an_unprivileged_user_it_says_what_would_help() {
    let (_directory, binary) = binary_for_everybody();
    let run = |format: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
        command.args(["doctor", "-o", format]);
        Waylay::within(command).finish()
    };
    let finished = run("json");
    assert_eq!(finished.code(), 1, "{finished:?}");
    let findings = json(&finished);
    assert_eq!(findings["ready"], false);
    let missing = ["root", "cap-bpf", "cap-net-admin", "cap-perfmon"];
    assert_eq!(needs_in_state(&findings, "missing"), missing.into());
    assert_eq!(needs_in_state(&findings, "unknown"), ["hooks", "programs"].into());
    assert_eq!(entry(&findings["needs"], "root")["remedy"], "sudo waylay …");
    assert!(findings["programs"].is_null());
    assert_eq!(entry(&findings["capabilities"], "redirect-tcp4")["available"], false);

    let finished = run("human");
    assert_eq!(finished.code(), 1);
    let wanted = ["can start here without root only: 4 missing", "✗ CAP_BPF", "sudo waylay …", "not tried"];
    assert!(wanted.iter().all(|part| finished.stdout.contains(part)), "{}", finished.stdout);
}

#[test]
fn a_privilege_that_is_missing_is_named() {
    for (dropped, missing) in [
        ("-bpf,-sys_admin", "cap-bpf"),
        ("-net_admin", "cap-net-admin"),
        ("-perfmon,-sys_admin", "cap-perfmon"),
    ] {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", dropped]).arg(Waylay::binary()).args(["doctor", "-o", "json"]);
        let finished = Waylay::within(command).finish();
        assert_eq!(finished.code(), 1, "{finished:?}");
        assert_eq!(needs_in_state(&json(&finished), "missing"), [missing].into(), "without {dropped}");
        assert!(needs_in_state(&json(&finished), "unknown").contains("programs"));
    }
}

#[test]
fn a_user_namespace_is_told_from_the_initial_one() {
    // In there root cannot pass through a directory of somebody else that is closed to others.
    let (_directory, binary) = binary_for_everybody();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(binary).args(["doctor", "-o", "json"]);
    let finished = Waylay::within(command).finish();
    assert_eq!(finished.code(), 1, "{finished:?}");
    let findings = json(&finished);
    let need = entry(&findings["needs"], "initial-user-namespace");
    assert_eq!(need["state"], "missing");
    assert!(need["remedy"].as_str().unwrap().contains("outside of the container"));
}

#[test]
fn without_cgroup2_it_says_how_to_mount_it() {
    let mut command = Command::new("unshare");
    let script =
        format!("umount {} && exec \"$0\" doctor -o json", waylay_netlab::cgroup_file_system().display());
    command.args(["--mount", "sh", "-c", &script]).arg(Waylay::binary());
    let finished = Waylay::within(command).finish();
    assert_eq!(finished.code(), 1, "{finished:?}");
    let findings = json(&finished);
    assert_eq!(needs_in_state(&findings, "missing"), ["cgroup2"].into());
    let remedy = entry(&findings["needs"], "cgroup2")["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("mount -t cgroup2"), "{remedy}");
}

/// Runs a shell script, `$0` being the waylay binary, in a mount namespace of its own.
fn in_a_private_place(script: &str) -> Finished {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(Waylay::binary());
    Waylay::within(command).finish()
}

#[test]
fn an_older_kernel_is_not_enough() {
    let mut command = Command::new("setarch");
    command.arg("--uname-2.6").arg(Waylay::binary()).args(["doctor", "-o", "json"]);
    let finished = Waylay::within(command).finish();
    assert_eq!(finished.code(), 1, "{finished:?}");
    let findings = json(&finished);
    assert_eq!(needs_in_state(&findings, "missing"), ["kernel"].into());
    assert!(entry(&findings["needs"], "kernel")["found"].as_str().unwrap().starts_with("2.6."));
    assert!(entry(&findings["needs"], "kernel")["remedy"].as_str().unwrap().contains("newer kernel"));
}

#[test]
fn without_type_information_no_program_loads_and_each_says_so() {
    let finished = in_a_private_place("mount -t tmpfs none /sys/kernel/btf && exec \"$0\" doctor -o json");
    assert_eq!(finished.code(), 1, "{finished:?}");
    let findings = json(&finished);
    assert_eq!(needs_in_state(&findings, "missing"), ["btf", "programs"].into());
    let found = entry(&findings["needs"], "programs")["found"].as_str().unwrap();
    assert!(found.contains("wl_connect4: the kernel has no BTF"), "{found}");
}

#[test]
fn a_bpf_file_system_that_is_not_mounted_is_left_so() {
    // It is mounted where nobody has yet.
    Ground::loopback().waylay().watch(["true"]).well();
    let script = "umount /sys/fs/bpf && \"$0\" doctor -o json && ! mountpoint -q /sys/fs/bpf";
    let findings = json(&in_a_private_place(script).well());
    let found = &entry(&findings["needs"], "bpf-file-system")["found"];
    assert_eq!(found, "not mounted; waylay run mounts it");

    let script = "umount /sys/fs/bpf && exec setpriv --bounding-set -sys_admin \"$0\" doctor -o json";
    let finished = in_a_private_place(script);
    assert_eq!(finished.code(), 1, "{finished:?}");
    let findings = json(&finished);
    assert_eq!(needs_in_state(&findings, "missing"), ["bpf-file-system"].into());
}

#[test]
fn what_is_worth_knowing_is_said_and_changes_no_status() {
    let finished = in_a_private_place(
        "mount -t proc -o hidepid=invisible proc /proc && \
         exec unshare --net sh -c 'echo 0 > /proc/sys/net/mptcp/enabled; exec \"$0\" doctor -o json' \"$0\"",
    );
    let findings = json(&finished.well());
    let facts = &findings["facts"];
    assert_eq!((&facts["ipv6"], &facts["mptcp"]), (&false.into(), &false.into()));
    assert!(facts["hidepid"] == "invisible" || facts["hidepid"] == "2", "{facts:#}");
    let ends = findings["open_ends"].as_array().unwrap();
    let has = |name: &str| ends.iter().any(|end| end["name"] == name);
    assert!(has("ipv6") && has("udp") && !has("mptcp"), "{ends:#?}");
}

#[test]
fn a_command_of_root_is_an_open_end() {
    let of = |variables: &[(&str, &str)]| {
        let mut command = Command::new("env");
        command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(Waylay::binary()).args(["doctor", "-o", "json"]);
        let findings = json(&Waylay::within(command).finish().well());
        let ends = findings["open_ends"].as_array().unwrap();
        ends.iter().any(|end| end["name"] == "root-command")
    };
    assert!(of(&[]));
    assert!(!of(&[("SUDO_UID", "65534")]));
}

mod others {
    use super::*;

    #[test]
    fn are_listed_with_what_they_mean() {
        let fence = Fence::new();
        let egress = Foreign::EGRESS.attach(fence.path(), "sd_fw_egress");
        let connect = Foreign::CONNECT4.attach(fence.path(), "steer");
        let finished = doctor_in(&fence).well();
        let findings = json(&finished);
        let place = fence.path().display().to_string();
        assert_eq!(findings["cgroup"], place.as_str());

        let program = entry(&findings["programs"], "sd_fw_egress");
        assert_eq!((&program["id"], &program["attach_type"]), (&egress.into(), &"cgroup_inet_egress".into()));
        assert_eq!((&program["cgroup"], &program["sandbox"]), (&place.as_str().into(), &true.into()));
        assert!(program["meaning"].as_str().unwrap().contains("has to let loopback pass"));
        assert_eq!((&program["waylay"], &program["holds_for_runs"]), (&false.into(), &true.into()));

        let program = entry(&findings["programs"], "steer");
        assert_eq!(
            (&program["id"], &program["attach_type"]),
            (&connect.into(), &"cgroup_inet4_connect".into())
        );
        assert_eq!(program["sandbox"], false);
        assert!(program["meaning"].as_str().unwrap().contains("sees a service's address"));
    }

    /// A run under them works all the same.
    #[test]
    fn that_let_others_attach_keep_nothing_from_running() {
        let fence = Fence::new();
        Foreign::CONNECT4.attach(fence.path(), "steer");
        run_in(&fence, "true").well();
    }

    /// What doctor says of a sandbox: it holds for the services, too.
    #[test]
    fn that_drop_packets_drop_those_of_the_services() {
        let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| stream.write_all(b"hello"));
        let other = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| stream.write_all(b"hello"));
        let fence = Fence::new();
        let port = server.address().port().to_string();
        Foreign::EGRESS.attach_with(fence.path(), "sandbox", &[&port]);
        let dial = |server: &TcpServer| {
            let port = server.address().port();
            format!("timeout 3 bash -c 'read -n 5 word < /dev/tcp/127.0.0.1/{port}; echo $word'")
        };
        // The command's own packets go to the service, which the sandbox lets pass.
        let finished = run_in(&fence, &dial(&other)).well();
        assert_eq!((finished.stdout.as_str(), other.accepted()), ("hello\n", 1), "{finished:?}");
        let finished = run_in(&fence, &dial(&server));
        assert_eq!((finished.stdout.as_str(), server.accepted()), ("", 0), "{finished:?}");
    }

    #[test]
    fn that_reserve_a_hook_keep_a_run_from_starting() {
        let fence = Fence::new();
        Foreign::CONNECT4.alone().attach(fence.path(), "steer");
        let finished = doctor_in(&fence);
        assert_eq!(finished.code(), 1, "{finished:?}");
        let findings = json(&finished);
        let need = entry(&findings["needs"], "hooks");
        assert_eq!(need["state"], "missing");
        let found = format!("cgroup_inet4_connect at {}", fence.path().display());
        assert_eq!(need["found"], found.as_str());
        // And so it is.
        let run = run_in(&fence, "true");
        assert!(run.refused_in_a_line().contains("cannot attach wl_connect_answer4"), "{run:?}");
    }

    #[test]
    fn where_a_user_has_a_say_do_not_hold_for_a_run() {
        let fence = Fence::new();
        Foreign::EGRESS.attach(fence.path(), "mine");
        std::os::unix::fs::chown(fence.path(), Some(65_534), None).unwrap();
        let findings = json(&doctor_in(&fence).well());
        assert_eq!(Path::new(findings["cgroup"].as_str().unwrap()), fence.path().parent().unwrap());
        let program = entry(&findings["programs"], "mine");
        assert_eq!((&program["holds_for_runs"], &program["sandbox"]), (&false.into(), &false.into()));
    }

    #[test]
    fn are_waylays_own_inside_of_a_run() {
        let binary = Waylay::binary();
        let inner = [binary.to_str().unwrap(), "doctor", "-o", "json"];
        let finished = Ground::loopback().waylay().reporting().watch(inner).well();
        let findings = json(&finished);
        let connect = entry(&findings["programs"], "wl_connect4");
        assert_eq!((&connect["waylay"], &connect["sandbox"]), (&true.into(), &false.into()));
        for program in findings["programs"].as_array().unwrap() {
            let is_ours = program["name"].as_str().unwrap().starts_with("wl_");
            assert_eq!(program["waylay"], is_ours, "{program:#}");
        }
    }

    fn run_in(fence: &Fence, command: &str) -> Finished {
        let enter =
            format!("echo 0 > {}/cgroup.procs && exec \"$0\" run -- {command}", fence.path().display());
        let mut command = Command::new("sh");
        command.args(["-c", &enter]).arg(Waylay::binary());
        Waylay::within(command).finish()
    }
}

mod runs {
    use super::*;

    /// The run of that id, as doctor sees it.
    fn find(findings: &Value, id: &str) -> Value {
        let mut runs = findings["runs"].as_array().unwrap().iter();
        runs.find(|run| run["id"] == id).unwrap_or_else(|| panic!("no {id} in {findings:#}")).clone()
    }

    #[test]
    fn that_live_are_listed_with_their_owner_services_and_processes() {
        let mut run =
            Ground::loopback().waylay().args(["--through", "log", "--through", "scan"]).spawn_dialler();
        let instance = run.instance();
        let [command] = patiently("the command", || <[u32; 1]>::try_from(instance.pids("app")).ok());
        let findings = json(&doctor(&["-o", "json"]).well());
        let found = find(&findings, instance.id());
        assert_eq!((&found["state"], &found["owner"]), (&"alive".into(), &run.pid().into()));
        assert_eq!(found["services"], serde_json::json!(["log", "scan"]));
        assert_eq!(found["processes"], serde_json::json!([command]));
        assert_eq!(found["cgroup"], instance.cgroup().to_str().unwrap());

        // From where the owner has no number, its lock still tells that it lives.
        let mut elsewhere = Command::new("unshare");
        elsewhere.args(["--pid", "--fork", "--mount-proc"]).arg(Waylay::binary());
        elsewhere.args(["doctor", "-o", "json"]);
        let found = find(&json(&Waylay::within(elsewhere).finish().well()), instance.id());
        assert_eq!((&found["state"], &found["owner"]), (&"alive".into(), &Value::Null));

        let (_directory, binary) = binary_for_everybody();
        let mut unprivileged = Command::new("setpriv");
        unprivileged.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(binary);
        unprivileged.args(["doctor", "-o", "json"]);
        let findings = json(&Waylay::within(unprivileged).finish());
        let found = find(&findings, instance.id());
        assert_eq!((&found["state"], &found["owner"]), (&"alive".into(), &run.pid().into()));
        run.finish().well();
    }

    #[test]
    fn inside_of_another_say_which() {
        let doctor = "\"$0\" run -o json --log log -- \"$0\" doctor -o json";
        let run = Ground::loopback().waylay().args(["--", "sh", "-c", &format!("{doctor}; read end; true")]);
        let mut run = run.args([Waylay::binary()]).spawn_as_is();
        let outer = run.instance();
        let findings = json(&run.finish().well());
        let runs = findings["runs"].as_array().unwrap();
        let inside = |run: &&Value| run["inside"] == outer.id();
        let inner: Vec<&Value> = runs.iter().filter(inside).collect();
        assert_eq!(inner.len(), 1, "{findings:#}");
        assert_eq!((&inner[0]["state"], &inner[0]["services"][0]), (&"alive".into(), &"log".into()));
        assert_eq!(find(&findings, outer.id())["inside"], Value::Null);
    }

    #[test]
    fn that_were_killed_are_listed_with_the_processes_they_still_bind() {
        let mut run = Ground::loopback().waylay().spawn_dialler();
        let instance = run.instance();
        let [command] = patiently("the command", || <[u32; 1]>::try_from(instance.pids("app")).ok());
        run.kill();
        let finished = doctor(&["-o", "json"]).well();
        let found = find(&json(&finished), instance.id());
        assert_eq!((&found["state"], &found["owner"]), (&"left-behind".into(), &Value::Null));
        assert_eq!(found["processes"], serde_json::json!([command]));
        let text = doctor(&[]).well().stdout;
        assert!(text.contains(&format!("! {}: left behind", instance.id())), "{text}");
        assert!(text.contains(&format!("kill {command} ends them")), "{text}");
    }

    #[test]
    fn of_another_mount_namespace_are_told_from_forgotten_ones() {
        let fence = Fence::new();
        let script = format!(
            "echo 0 > {}/cgroup.procs && mount -t tmpfs none /run && exec \"$0\" run -- sh -c 'read end'",
            fence.path().display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(Waylay::binary());
        let run = Waylay::within(command).spawn_as_is();
        let app = patiently("the command", || {
            let app = fence.children().first()?.join("app/cgroup.procs");
            fs::read_to_string(app).ok().filter(|text| !text.is_empty())
        });
        let cgroup = fence.children().remove(0);
        let id = cgroup.file_name().unwrap().to_str().unwrap().trim_start_matches("waylay-");

        let found = find(&json(&doctor(&["-o", "json"]).well()), id);
        assert_eq!((&found["state"], &found["owner"]), (&"unrecorded".into(), &Value::Null));
        assert_eq!(found["cgroup"], cgroup.to_str().unwrap());
        assert_eq!(found["services"], serde_json::json!(["log"]));
        assert_eq!(found["processes"], serde_json::json!([app.trim().parse::<u32>().unwrap()]));
        let text = doctor(&[]).well().stdout;
        assert!(text.contains(&format!("{id}: of another container or mount namespace")), "{text}");
        run.finish();
    }

    /// In a mount namespace with a `/run` of its own, where no other test's run cleans up.
    #[test]
    fn that_are_over_wait_for_the_next_run_to_remove_them() {
        const SCRIPT: &str = "\
\"$0\" run -- sleep 1000 &
until read command < \"$FENCE\"/waylay-*/app/cgroup.procs 2>/dev/null; do sleep 0.05; done
kill -KILL $! $command
while grep -q . \"$FENCE\"/waylay-*/*/cgroup.procs; do sleep 0.05; done
\"$0\" doctor -o json | tr -d '\\n'; echo
\"$0\" run -- true
\"$0\" doctor -o json | tr -d '\\n'; echo
";
        let fence = Fence::new();
        let enter = format!(
            "FENCE={0}; echo 0 > $FENCE/cgroup.procs && mount -t tmpfs none /run || exit\n{SCRIPT}",
            fence.path().display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-c", &enter]).arg(Waylay::binary());
        let finished = Waylay::within(command).finish().well();
        let states: Vec<Vec<String>> =
            finished.stdout.lines().map(|line| recorded(&serde_json::from_str(line).unwrap())).collect();
        assert_eq!(states, [vec!["removable".to_owned()], vec![]], "{finished:?}");
        assert!(finished.stderr.contains("cleaned up after 1 run(s)"), "{finished:?}");
        assert!(fence.is_empty());
    }

    /// Runs of other tests have their records elsewhere, but their pins here.
    fn recorded(findings: &Value) -> Vec<String> {
        let states = findings["runs"].as_array().unwrap().iter();
        let states = states.map(|run| run["state"].as_str().unwrap().to_owned());
        states.filter(|state| state != "unrecorded").collect()
    }
}

#[test]
fn what_doctor_cannot_do_itself_has_a_status_of_its_own() {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" doctor > /dev/full"]).arg(Waylay::binary());
    let finished = Waylay::within(command).finish();
    assert!(finished.refused_in_a_line().contains("No space left on device"), "{finished:?}");
    assert_eq!(doctor(&["--nonsense"]).code(), 2);
}
