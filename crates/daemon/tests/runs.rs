//! What the texts of runs come to in the policy of a daemon.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;

use waylay_config::{declaration::CgroupName, names::Nobody};
use waylay_daemon::{
    draft::Draft,
    ledger::{Ledger, ROOT, RunOf, SessionId},
    protocol::Terms,
};

const ALICE: u32 = 1000;
const FILES: &str = "[service.log]\nrun = \"log\"\n[service.guard]\ncommand = \"guard\"\nafter = \"log\"\n";
const RUN: &str = "\
[service.log]
run = \"log\"
[service.second]
run = \"log\"
[sublayer.mine]
[[filter]]
name = \"all\"
action = \"redirect\"
service = \"log\"
[[filter]]
action = \"block\"
sublayer = \"mine\"
if.port = 25
";

/// The files, and a run of each of these users, the first of number 1.
fn ledger(runs: &[(u32, &str)]) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.set_files(vec![("policy.toml".into(), FILES.into())]);
    for (number, (uid, text)) in (1..).zip(runs) {
        let run = RunOf {
            number,
            uid: *uid,
            user: "alice".into(),
            cgroup: format!("/user/{number}"),
            terms: Terms::default(),
        };
        ledger.add_to_run(&Arc::new(run), SessionId(number), format!("run {number}"), (*text).to_owned());
    }
    ledger
}

fn refused(runs: &[(u32, &str)]) -> String {
    Draft::of(&ledger(runs), &Nobody).err().unwrap().words
}

#[test]
fn each_run_has_names_of_its_own_and_its_services_come_before_those_of_the_daemon() {
    let draft = Draft::of(&ledger(&[(ALICE, RUN), (ROOT, RUN), (ALICE, RUN)]), &Nobody).unwrap();
    let services = draft.lowered.policy.services().iter();
    let mut order: Vec<&str> = services.map(|service| service.name.as_str()).collect();
    assert_eq!(order.split_off(6), ["log", "guard"]);
    order.sort_unstable();
    let runs = ["u0.2", "u1000.1", "u1000.3"];
    let all = runs.iter().flat_map(|run| [format!("{run}.log"), format!("{run}.second")]);
    assert_eq!(order, all.collect::<Vec<_>>());
}

#[test]
fn the_filters_of_a_run_are_about_what_is_in_its_cgroup_and_of_its_user() {
    let draft = Draft::of(&ledger(&[(ALICE, RUN), (ROOT, RUN)]), &Nobody).unwrap();
    let asked = draft.declarations.filters.iter().map(|filter| {
        let application = &filter.wanted.application;
        let [cgroup] = &application.cgroup.as_ref().unwrap().value[..] else { panic!("{filter:?}") };
        let users = application.user.as_ref().map(|users| users.value.len());
        (cgroup.value.clone(), users)
    });
    let of = |number| CgroupName::Path(format!("/user/{number}"));
    assert_eq!(asked.collect::<Vec<_>>(), [(of(1), Some(1)), (of(1), Some(1)), (of(2), None), (of(2), None)]);
}

#[test]
fn what_a_run_cannot_say_is_named() {
    let long = format!("[service.{}]\nrun = \"log\"\n", "x".repeat(24));
    for (text, words) in [
        ("unredirectable = \"permit\"", "with a daemon its own policy says this"),
        ("override_sandbox = true", "with a daemon its own policy says this"),
        ("[service.x]\nadopt = \"127.0.0.1:5000\"\nunit = \"x.service\"", "what runs already is adopted"),
        (&long, "names of this run's services have at most 23 bytes"),
        ("[[filter]]\naction = \"redirect\"\nservice = \"guard\"", "u1000.1.guard"),
        ("[service.x]\nrun = \"log\"\nafter = \"guard\"", "u1000.1.guard"),
        ("order = [\"guard\", \"log\"]", "u1000.1.guard"),
        (
            "[service.log]\nrun = \"log\"\n[[filter]]\naction = \"redirect\"\nservice = \"log\"\nif.unit = \"x.service\"",
            "is that of the run",
        ),
    ] {
        let refused = refused(&[(ALICE, text)]);
        assert!(refused.contains(words), "{text}: {refused}");
    }
}
