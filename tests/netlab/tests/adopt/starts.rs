//! Programs that do not listen where they should, and addresses where nobody can.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use rustix::process::Signal;
use waylay_netlab::{Finished, Ground, Proxies, Proxy, Waylay, free_port};

fn waylay(spec: &str) -> Waylay {
    Ground::loopback().waylay().args(["--through", "log", "--through", spec])
}

/// Nothing runs, and the last line says why.
fn fails(spec: &str, words: &[&str]) -> Finished {
    let finished = waylay(spec).args(["--start-patience", "1"]).watch(["touch", "ran"]);
    assert_eq!(finished.code(), 2, "{finished:?}");
    let line = finished.stderr.lines().last().unwrap();
    assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {finished:?}");
    assert!(!finished.directory().join("ran").exists());
    finished
}

#[test]
fn a_program_that_ends_is_named_with_its_output() {
    let port = free_port();
    let spec = format!("adopt:127.0.0.1:{port}=sh -c 'echo out of order; echo on fire >&2; exit 3'");
    let ended =
        format!("the service \"sh\" ended with exit status: 3 before it listened on 127.0.0.1:{port}");
    let finished = fails(&spec, &[&ended, "without privileges", "be able to read"]);
    assert!(
        finished.stderr.contains("sh: out of order\n") && finished.stderr.contains("on fire\n"),
        "{finished:?}"
    );
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    fails("adopt:127.0.0.1:5999=/no/such/proxy -x", &["\"proxy\" ended with exit status: 127"]);
}

#[test]
fn a_configuration_that_only_root_may_read_is_hinted_at() {
    let proxies = Proxies::new(None);
    let (configuration, port) = proxies.documented(Proxy::Haproxy);
    let file = proxies.write("closed.cfg", "");
    let spec = proxies.with(Proxy::Haproxy, port, &configuration);
    let spec = format!("{}{file}", spec.split_once("-f ").unwrap().0.to_owned() + "-f ");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let finished = fails(&spec, &["\"haproxy\" ended", "has to be able to read its program and its files"]);
    assert!(finished.stderr.contains("Permission denied"), "the proxy's own words: {finished:?}");
}

#[test]
fn a_program_that_never_listens_is_given_up() {
    let port = free_port();
    let spec = format!("adopt:127.0.0.1:{port}=sleep 1000");
    let wanted = format!("\"sleep\" does not listen on 127.0.0.1:{port} after 1 s; --start-patience");
    fails(&spec, &[&wanted]);
}

#[test]
fn a_program_that_listens_elsewhere_is_told_so() {
    let proxies = Proxies::new(None);
    let (configuration, port) = proxies.documented(Proxy::Redsocks);
    let (elsewhere, command) = (free_port(), proxies.command(Proxy::Redsocks, port, &configuration));
    let spec = format!("adopt:127.0.0.1:{elsewhere}={command}");
    fails(&spec, &[&format!("does not listen on 127.0.0.1:{elsewhere} after 1 s, but on 127.0.0.1:{port};")]);
}

#[test]
fn both_addresses_of_two_are_waited_for() {
    let proxies = Proxies::new(None);
    let (configuration, port) = proxies.documented(Proxy::Redsocks);
    let command = proxies.command(Proxy::Redsocks, port, &configuration);
    let spec = format!("adopt:127.0.0.1:{port},[::1]:{port}={command}");
    fails(&spec, &[&format!("does not listen on [::1]:{port} after 1 s, but on 127.0.0.1:{port}")]);
}

#[test]
fn an_address_that_is_taken_is_said_to_be_with_the_one_who_has_it() {
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = somebody.local_addr().unwrap();
    let who = format!("[{}] listens already", std::process::id());
    for taken in [address.to_string(), format!("0.0.0.0:{}", address.port())] {
        fails(&format!("adopt:{taken}=sleep 1000"), &[&format!("cannot listen on {taken}"), &who]);
    }
}

#[test]
fn an_address_of_another_host_is_refused() {
    for elsewhere in ["192.0.2.1:5000", "[2001:db8::1]:5000"] {
        let words = format!("cannot listen on {elsewhere}, which is not an address of this host");
        fails(&format!("adopt:{elsewhere}=sleep 1000"), &[&words]);
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    for (specs, words) in [
        (&["adopt:127.0.0.1:0=true"][..], "nobody listens on 0"),
        (&["adopt:localhost:5000=true"], "not an address with a port"),
        (&["adopt:127.0.0.1:5000="], "needs an address and a command"),
        (&["adopt:127.0.0.1:5000=true", "adopt:127.0.0.1:5000=true"], "cannot both listen on port 5000"),
    ] {
        let arguments = specs.iter().flat_map(|spec| ["--through", spec]);
        let finished = Ground::loopback().waylay().args(arguments).watch(["touch", "ran"]);
        assert_eq!(finished.code(), 2, "{finished:?}");
        assert!(finished.stderr.contains(words), "{words}: {finished:?}");
        assert!(!finished.directory().join("ran").exists());
    }
}

#[test]
fn an_interruption_while_it_is_waited_for_leaves_nothing() {
    let mut run = waylay("adopt:127.0.0.1:5998=sh -c 'echo here; exec sleep 1000'").spawn(["touch", "ran"]);
    let instance = run.instance();
    run.stderr().wait_for("sh: here");
    run.signal(Signal::INT);
    let finished = run.finish();
    assert_eq!(finished.code(), 130, "{finished:?}");
    assert!(instance.is_gone());
    assert!(!finished.directory().join("ran").exists());
}
