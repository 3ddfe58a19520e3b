//! Who may declare what.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use waylay_config::{Declarations, Style, lower, names::Nobody, read, render};
use waylay_core::{OneOf, Policy};
use waylay_daemon::{
    authority::{
        FILTERS_OF_A_USER, SEARCHES_OF_A_USER, SERVICES_OF_A_USER, USERS, hold_to_account, may_last,
        may_remove,
    },
    ledger::{Ledger, Lifetime, ROOT, SessionId},
};

const ALICE: u32 = 1000;
const BOB: u32 = 1001;

const FILES: &str = "
[service.guard]
command = \"guard\"
[service.log]
run = \"log\"
[sublayer.firewall]
weight = 10
";

const OWN_SERVICE: &str = "[service.\"u1000.mine\"]\nrun = \"log\"\n";

fn session(uid: u32) -> Lifetime {
    Lifetime::Session(SessionId(uid.into()))
}

/// The files, and what users have added in their sessions.
fn ledger(added: &[(u32, &str)]) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.set_files(vec![("policy.toml".into(), FILES.into())]);
    for (uid, text) in added {
        ledger.add(*uid, &uid.to_string(), session(*uid), (*text).to_owned());
    }
    ledger
}

/// What becomes of it: the policy, or what is said against it.
fn judge(ledger: &Ledger) -> Result<(Declarations, Policy), String> {
    let sources = ledger.sources();
    let (mut declarations, mut diagnostics) = read(&sources);
    diagnostics.extend(hold_to_account(&mut declarations, ledger));
    match lower(&declarations, &Nobody, &mut diagnostics) {
        Some(lowered) => Ok((declarations, lowered.policy)),
        None => Err(render(&diagnostics, &sources, Style::Plain)),
    }
}

fn refused(added: &[(u32, &str)]) -> String {
    judge(&ledger(added)).unwrap_err()
}

#[test]
fn what_a_user_redirects_is_restricted_to_that_user() {
    let filter =
        format!("{OWN_SERVICE}[[filter]]\naction = \"redirect\"\nservice = \"u1000.mine\"\nif.port = 80\n");
    let (_, policy) = judge(&ledger(&[(ALICE, &filter)])).unwrap();
    assert_eq!(policy.filters()[0].conditions.application.uid, Some(OneOf::these([ALICE])));
}

#[test]
fn another_user_is_refused_however_it_is_said() {
    let sublayer = "[sublayer.\"u1000.own\"]\n[[filter]]\naction = \"block\"\nsublayer = \"u1000.own\"\n";
    for condition in ["if.user = 1001", "if.user = [1000, 1001]", "if.user = \"root\"", "if.user = 0"] {
        let said = refused(&[(ALICE, &format!("{sublayer}{condition}\n"))]);
        assert!(said.contains("only root may steer what programs of other users do"), "{condition}: {said}");
        assert!(said.contains("added by 1000 (1):5"), "{said}");
    }
    for condition in ["if.user = 1000", "unless.user = 1001", "if.via.user = 0", ""] {
        let (_, policy) = judge(&ledger(&[(ALICE, &format!("{sublayer}{condition}\n"))])).unwrap();
        let uid = &policy.filters()[0].conditions.application.uid;
        assert_eq!(*uid, Some(OneOf::these([ALICE])), "{condition}");
    }
}

#[test]
fn services_and_sublayers_of_others_are_out_of_reach() {
    let redirect = |service: &str| format!("[[filter]]\naction = \"redirect\"\nservice = \"{service}\"\n");
    let block = |sublayer: &str| format!("[[filter]]\naction = \"block\"\nsublayer = \"{sublayer}\"\n");
    let bobs = "[service.\"u1001.his\"]\nrun = \"log\"\n[sublayer.\"u1001.own\"]\n";
    for (text, why) in [
        (redirect("log"), "only root may redirect to a service of somebody else"),
        (redirect("u1001.his"), "only root may redirect to a service of somebody else"),
        (block("firewall"), "only root may put filters into a sublayer of somebody else"),
        (block("u1001.own"), "only root may put filters into a sublayer of somebody else"),
    ] {
        let said = refused(&[(BOB, bobs), (ALICE, &text)]);
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn a_user_overrides_nothing_that_root_has_said() {
    let permit = "[sublayer.\"u1000.own\"]\nweight = 65535\n[[filter]]\naction = \"permit\"\nright = \"hard\"\nsublayer = \"u1000.own\"\n";
    assert!(refused(&[(ALICE, permit)]).contains("only root may permit"));
    for switch in
        ["unredirectable = \"permit\"", "other_namespaces = \"block\"", "order = [\"log\", \"guard\"]"]
    {
        assert!(refused(&[(ALICE, switch)]).contains("only root may say this"), "{switch}");
    }
}

#[test]
fn services_of_users_see_connections_before_those_of_root_do() {
    let (_, policy) = judge(&ledger(&[(ALICE, OWN_SERVICE)])).unwrap();
    let order: Vec<&str> = policy.services().iter().map(|service| service.name.as_str()).collect();
    assert_eq!(order, ["u1000.mine", "guard", "log"]);
    for said in ["before = \"log\"", "after = \"guard\""] {
        let said = refused(&[(ALICE, &format!("{OWN_SERVICE}{said}\n"))]);
        assert!(
            said.contains("only root may place a service before or after those of somebody else"),
            "{said}"
        );
    }
}

#[test]
fn what_runs_already_is_adopted_by_root_alone() {
    let adopted = "[service.\"u1000.mine\"]\nadopt = \"127.0.0.1:5000\"\n";
    for identity in ["unit = \"cron.service\"", "cgroup = \"/a\"", "exe = \"/bin/x\"", "user = 1001"] {
        let said = refused(&[(ALICE, &format!("{adopted}{identity}\n"))]);
        assert!(said.contains("only root may adopt what runs already"), "{identity}: {said}");
    }
    judge(&ledger(&[(ALICE, &format!("{adopted}command = \"haproxy\"\n"))])).unwrap();
}

#[test]
fn nobody_takes_names_that_somebody_else_will_want() {
    let said = refused(&[(ALICE, "[service.mine]\nrun = \"log\"\n")]);
    assert!(said.contains("names of this user begin with \"u1000.\""), "{said}");
    assert!(said.contains("call it \"u1000.mine\""), "{said}");
    let said = refused(&[(ALICE, "[service.\"u1001.mine\"]\nrun = \"log\"\n")]);
    assert!(said.contains("names of this user begin with"), "{said}");
    let said = refused(&[(ROOT, "[service.\"u1001.mine\"]\nrun = \"log\"\n")]);
    assert!(said.contains("set aside for users other than root"), "{said}");
}

#[test]
fn nothing_relies_on_what_may_go_before_it() {
    let service = "[service.short]\nrun = \"log\"\n";
    let filter = "[[filter]]\naction = \"redirect\"\nservice = \"short\"\n";
    let mut ledger = ledger(&[(ROOT, service)]);
    let long = ledger.add(ROOT, "root", Lifetime::Daemon, filter.into());
    assert!(judge(&ledger).unwrap_err().contains("\"short\" may be gone before this is"));
    ledger.remove(long);
    ledger.add(ROOT, "root", session(ROOT), filter.into());
    judge(&ledger).unwrap();
    ledger.add(ROOT, "root", Lifetime::Session(SessionId(77)), "order = [\"log\", \"short\"]\n".into());
    assert!(judge(&ledger).unwrap_err().contains("\"short\" may be gone before this is"));
}

#[test]
fn users_have_a_share_and_leave_the_rest() {
    let service = |n| format!("[service.\"u1000.s{n}\"]\nrun = \"log\"\n");
    let services: String = (0..=SERVICES_OF_A_USER).map(service).collect();
    assert!(refused(&[(ALICE, &services)]).contains("at most 4 services at a time"));
    let filters = format!(
        "{OWN_SERVICE}{}",
        "[[filter]]\naction = \"redirect\"\nservice = \"u1000.mine\"\n".repeat(FILTERS_OF_A_USER + 1)
    );
    assert!(refused(&[(ALICE, &filters)]).contains("at most 256 filters at a time"));
    let texts: Vec<(u32, String)> = (0..=USERS)
        .map(|n| (2000 + n as u32, format!("[service.\"u{}.s\"]\nrun = \"log\"\n", 2000 + n)))
        .collect();
    let added: Vec<(u32, &str)> = texts.iter().map(|(uid, text)| (*uid, text.as_str())).collect();
    assert!(refused(&added).contains("at most 4 users other than root"));
    judge(&ledger(&added[..USERS])).unwrap();
}

#[test]
fn users_have_root_search_neither_the_file_system_nor_all_cgroups_for_them() {
    let sublayer = "[sublayer.\"u1000.own\"]\n[[filter]]\naction = \"block\"\nsublayer = \"u1000.own\"\n";
    for condition in ["if.exe = \"/**\"", "unless.exe = [\"/bin/a\", \"/*\"]", "if.via.exe = \"/bin/?\""] {
        let said = refused(&[(ALICE, &format!("{sublayer}{condition}\n"))]);
        assert!(said.contains("only root may name executables by a pattern"), "{condition}: {said}");
    }
    let units = |count| (0..count).map(|n| format!("\"app{n}.service\"")).collect::<Vec<_>>().join(", ");
    let ask = |count| format!("{sublayer}if.unit = [{}]\n", units(count));
    judge(&ledger(&[(ALICE, &ask(SEARCHES_OF_A_USER))])).unwrap();
    let said = refused(&[(ALICE, &ask(SEARCHES_OF_A_USER + 1))]);
    assert!(said.contains("at most 16 units and containers in conditions at a time"), "{said}");
    let exe = format!("{sublayer}if.exe = \"/bin/a\"\nif.cgroup = \"/user.slice\"\n");
    judge(&ledger(&[
        (ALICE, &exe),
        (ROOT, "[sublayer.s]\n[[filter]]\naction = \"block\"\nsublayer = \"s\"\nif.exe = \"/b*\"\n"),
    ]))
    .unwrap();
}

#[test]
fn lifetimes_and_removal_are_as_the_table_says() {
    for (uid, lifetime, may) in [
        (ROOT, Lifetime::Persistent, true),
        (ROOT, Lifetime::Daemon, true),
        (ALICE, Lifetime::Persistent, false),
        (ALICE, Lifetime::Daemon, false),
        (ALICE, session(ALICE), true),
    ] {
        assert_eq!(may_last(uid, lifetime), may);
    }
    let table = [ROOT, ALICE, BOB].map(|uid| [ROOT, ALICE].map(|owner| may_remove(uid, owner)));
    assert_eq!(table, [[true, true], [false, true], [false, false]]);
}
