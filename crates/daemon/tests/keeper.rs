//! All or nothing, and who stays: with something in the place of an engine that remembers what it was given.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    cell::Cell,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tempfile::TempDir;
use waylay_config::{
    Names,
    declaration::{ExePattern, UnitName},
};
use waylay_core::{Change, FileId, FilterId, Namespace, Policy, ServiceId};
use waylay_daemon::{
    declared::Itself,
    files::Store,
    force::Force,
    history::History,
    keeper::{Keeper, Peer, Settings},
    ledger::{ROOT, SessionId},
    pace::BURST,
    protocol::{Answer, Code, Failure, Lasting, Target},
};
use waylay_host::{Assignment, Enclosure, EnclosureError, LiveFlow, RunError, ServiceState};

const POLICY: &str = "\
[service.log]
run = \"log\"

[[filter]]
name = \"all\"
action = \"redirect\"
service = \"log\"
";
const FILTER: &str = "[[filter]]\naction = \"redirect\"\nservice = \"log\"\nif.port = 80\n";
/// Somebody there is on every host.
const NOBODY: u32 = 65534;

/// What has been put into force, the last of it last.
#[derive(Clone, Default)]
struct Recorder {
    applied: Arc<Mutex<Vec<Assignment>>>,
    refuses: Arc<AtomicBool>,
}

impl Recorder {
    fn remember(&self, assignment: &Assignment) {
        self.applied.lock().unwrap().push(assignment.clone());
    }
}

impl Force for Recorder {
    fn apply(&mut self, assignment: &Assignment) -> Result<(), RunError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(RunError::NotRoot);
        }
        self.remember(assignment);
        Ok(())
    }

    fn amend(&mut self, change: Change, policy: &Policy) -> Result<(), RunError> {
        let last = self.applied.lock().ok().and_then(|applied| applied.last().cloned());
        let Some(mut assignment) = last else { panic!("nothing is in force that could be amended") };
        assert!(assignment.policy.change(&change).is_ok());
        assert_eq!(assignment.policy, *policy);
        self.apply(&assignment)
    }

    fn services(&self) -> Vec<ServiceState> {
        Vec::new()
    }

    fn flows(&self) -> Result<Vec<LiveFlow>, RunError> {
        Ok(Vec::new())
    }

    fn enclose(&mut self, _pid: u32, _uid: u32) -> Result<Enclosure, RunError> {
        Err(EnclosureError::NoClients.into())
    }

    fn admit(&self, _enclosure: &Enclosure, _pid: u32) -> Result<(), RunError> {
        Err(EnclosureError::NoClients.into())
    }

    fn dissolve(&mut self, _enclosure: &Enclosure) {}
}

/// A host on which one unit comes and goes.
struct Host(Arc<AtomicU64>);

impl Names for Host {
    fn user(&self, _name: &str) -> Option<u32> {
        None
    }

    fn group(&self, _name: &str) -> Option<u32> {
        None
    }

    fn executables(&self, _pattern: &ExePattern) -> Vec<FileId> {
        Vec::new()
    }

    fn cgroup(&self, _path: &str) -> Option<u64> {
        None
    }

    fn unit(&self, _unit: &UnitName) -> Vec<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|id| *id != 0).into_iter().collect()
    }

    fn container(&self, _id: &str) -> Vec<u64> {
        Vec::new()
    }

    fn namespace(&self, _path: &str) -> Option<Namespace> {
        None
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

struct Office {
    keeper: Keeper<Recorder, Host>,
    recorder: Recorder,
    history: History,
    unit: Arc<AtomicU64>,
    folder: TempDir,
    sessions: Cell<u64>,
}

impl Office {
    /// With this policy in force.
    fn open(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("policy.toml"), policy).unwrap();
        let mut office = Self::on(folder);
        office.keeper.reload().unwrap();
        office
    }

    fn on(folder: TempDir) -> Self {
        let (recorder, history, unit) =
            (Recorder::default(), History::default(), Arc::new(AtomicU64::new(0)));
        let settings = Settings {
            policy: folder.path().join("policy.toml"),
            store: Store::new(folder.path().join("state")),
            patterns: Vec::new(),
            itself: Itself { cgroup: PathBuf::from("/system.slice/waylayd.service"), exe: None, uid: 0 },
        };
        let asked = Arc::clone(&unit);
        let names = move || Host(Arc::clone(&asked));
        let keeper = Keeper::new(settings, recorder.clone(), history.clone(), names);
        Self { keeper, recorder, history, unit, folder, sessions: Cell::new(0) }
    }

    /// Somebody who has just connected.
    fn peer(&self, uid: u32) -> Peer {
        self.sessions.set(self.sessions.get() + 1);
        Peer { pid: 1, uid, name: uid.to_string(), session: SessionId(self.sessions.get()) }
    }

    fn add(&mut self, peer: &Peer, text: &str, lasting: Lasting) -> Result<u64, Failure> {
        let changed = self.keeper.change(peer, vec![text.to_owned()], &[], lasting)?;
        Ok(changed.added[0])
    }

    fn remove(&mut self, peer: &Peer, target: Target) -> Result<Vec<u64>, Failure> {
        Ok(self.keeper.change(peer, Vec::new(), &[target], Lasting::Session)?.removed)
    }

    fn times(&self) -> usize {
        self.recorder.applied.lock().unwrap().len()
    }

    /// The ids of the filters and the services that are in force.
    fn in_force(&self) -> (Vec<u32>, Vec<ServiceId>) {
        let applied = self.recorder.applied.lock().unwrap();
        let last = applied.last().unwrap();
        let filters = last.policy.filters().iter().map(|filter| filter.id.0).collect();
        (filters, last.services.keys().copied().collect())
    }
}

#[test]
fn what_is_added_is_in_force_beside_the_files_and_keeps_their_ids() {
    let mut office = Office::open(POLICY);
    let root = office.peer(ROOT);
    assert_eq!(office.in_force(), (vec![1], vec![ServiceId(1)]));
    let number = office.add(&root, FILTER, Lasting::Daemon).unwrap();
    assert_eq!(office.in_force(), (vec![1, 2], vec![ServiceId(1)]));
    assert_eq!(office.history.describe(FilterId(2)), "the filter at added by 0 (1):1");
    assert_eq!(office.remove(&root, Target::Number(number)).unwrap(), [number]);
    assert_eq!(office.in_force(), (vec![1], vec![ServiceId(1)]));
}

#[test]
fn of_a_change_of_which_one_part_is_wrong_nothing_is_done() {
    let mut office = Office::open(POLICY);
    let root = office.peer(ROOT);
    let number = office.add(&root, FILTER, Lasting::Persistent).unwrap();
    let before = (office.in_force(), office.times());
    let wrong = "[[filter]]\naction = \"redirect\"\nservice = \"lgo\"\n".to_owned();
    let failure = office
        .keeper
        .change(&root, vec![FILTER.into(), wrong], &[Target::Number(number)], Lasting::Persistent)
        .unwrap_err();
    assert_eq!(failure.code, Code::Wrong);
    assert!(failure.rendered.contains("there is no service \"lgo\""), "{failure:?}");
    assert!(failure.rendered.contains("added by 0 (3):3"), "{failure:?}");
    assert_eq!(failure.diagnostics[0].help.as_deref(), Some("did you mean \"log\"?"));
    let failure = office
        .keeper
        .change(&root, vec![FILTER.into()], &[Target::Filter("none".into())], Lasting::Daemon)
        .unwrap_err();
    assert_eq!(failure.code, Code::Unknown);
    assert_eq!((office.in_force(), office.times()), before);
    let kept = Store::new(office.folder.path().join("state")).read().unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
}

#[test]
fn what_the_engine_refuses_leaves_what_was_and_uses_no_number_twice() {
    let mut office = Office::open(POLICY);
    let root = office.peer(ROOT);
    office.recorder.refuses.store(true, Ordering::Relaxed);
    let service = "[service.other]\nrun = \"log\"\n";
    let failure = office.add(&root, &format!("{service}{FILTER}"), Lasting::Persistent).unwrap_err();
    assert_eq!(failure.code, Code::Failed);
    assert!(Store::new(office.folder.path().join("state")).read().unwrap().is_empty());
    assert_eq!(office.history.describe(FilterId(2)), "filter 2");
    office.recorder.refuses.store(false, Ordering::Relaxed);
    assert_eq!(office.add(&root, &format!("{service}{FILTER}"), Lasting::Daemon).unwrap(), 2);
    assert_eq!(office.in_force(), (vec![1, 3], vec![ServiceId(1), ServiceId(3)]));
}

#[test]
fn only_the_owner_and_root_remove() {
    let mut office = Office::open(POLICY);
    let [root, nobody, other] = [ROOT, NOBODY, 4_000_000_000].map(|uid| office.peer(uid));
    let block = "[sublayer.\"u65534.own\"]\n[[filter]]\nname = \"u65534.shut\"\naction = \"block\"\nsublayer = \"u65534.own\"\n";
    let number = office.add(&nobody, block, Lasting::Session).unwrap();
    assert_eq!(office.remove(&other, Target::Number(number)).unwrap_err().code, Code::NotAllowed);
    assert_eq!(office.remove(&nobody, Target::Number(number)).unwrap(), [number]);
    let number = office.add(&nobody, block, Lasting::Session).unwrap();
    assert_eq!(office.remove(&root, Target::Number(number)).unwrap(), [number]);
    let number = office.add(&root, FILTER, Lasting::Daemon).unwrap();
    assert_eq!(office.remove(&nobody, Target::Number(number)).unwrap_err().code, Code::NotAllowed);
    let file = office.remove(&root, Target::Filter("all".into())).unwrap_err();
    assert!(file.message.contains("policy.toml; change that and reload"), "{file}");
}

#[test]
fn a_name_stands_for_what_was_added_if_nothing_else_was_with_it() {
    let mut office = Office::open(POLICY);
    let root = office.peer(ROOT);
    let named = |name: &str| format!("{FILTER}name = \"{name}\"\n");
    office.add(&root, &named("alone"), Lasting::Daemon).unwrap();
    let both = office.add(&root, &(named("one") + &named("two")), Lasting::Daemon).unwrap();
    office.remove(&root, Target::Filter("alone".into())).unwrap();
    let failure = office.remove(&root, Target::Filter("one".into())).unwrap_err();
    assert!(failure.message.contains(&format!("remove {both}")), "{failure}");
}

#[test]
fn a_session_ends_what_is_its_own_and_nothing_else() {
    let mut office = Office::open(POLICY);
    let [one, other] = [ROOT, ROOT].map(|uid| office.peer(uid));
    office.add(&one, FILTER, Lasting::Session).unwrap();
    office.add(&one, FILTER, Lasting::Daemon).unwrap();
    office.add(&other, FILTER, Lasting::Session).unwrap();
    assert!(office.keeper.end_session(one.session).unwrap());
    assert_eq!(office.in_force().0, [1, 3, 4]);
    assert!(!office.keeper.end_session(one.session).unwrap());
}

#[test]
fn the_end_of_a_session_that_could_not_be_carried_out_is_carried_out_later() {
    let mut office = Office::open(POLICY);
    let nobody = office.peer(NOBODY);
    let block = "[sublayer.\"u65534.own\"]\n[[filter]]\naction = \"block\"\nsublayer = \"u65534.own\"\n";
    office.add(&nobody, block, Lasting::Session).unwrap();
    office.recorder.refuses.store(true, Ordering::Relaxed);
    office.keeper.end_session(nobody.session).unwrap_err();
    assert!(office.keeper.overdue().is_some());
    assert_eq!(office.in_force().0, [1, 2]);
    office.recorder.refuses.store(false, Ordering::Relaxed);
    assert!(office.keeper.look_again().unwrap());
    assert_eq!((office.in_force().0, office.keeper.overdue()), (vec![1], None));
    assert!(!office.keeper.look_again().unwrap());
}

#[test]
fn users_add_for_their_session_alone_and_their_services_run_as_themselves() {
    let mut office = Office::open(POLICY);
    let nobody = office.peer(NOBODY);
    let text = "[service.\"u65534.mine\"]\ncommand = \"guard\"\n[[filter]]\naction = \"redirect\"\nservice = \"u65534.mine\"\n";
    for lasting in [Lasting::Daemon, Lasting::Persistent] {
        assert_eq!(office.add(&nobody, text, lasting).unwrap_err().code, Code::NotAllowed);
    }
    office.add(&nobody, text, Lasting::Session).unwrap();
    let applied = office.recorder.applied.lock().unwrap();
    let services = applied.last().unwrap().services.values();
    let identities: Vec<_> =
        services.map(|service| service.identity.as_ref().map(|identity| identity.uid)).collect();
    assert_eq!(identities, [None, Some(NOBODY)]);
}

#[test]
fn what_is_persistent_is_there_again_and_the_rest_is_not() {
    let mut office = Office::open(POLICY);
    let root = office.peer(ROOT);
    office.add(&root, FILTER, Lasting::Daemon).unwrap();
    let removed = office.add(&root, FILTER, Lasting::Persistent).unwrap();
    let kept = office.add(&root, FILTER, Lasting::Persistent).unwrap();
    office.remove(&root, Target::Number(removed)).unwrap();
    let mut next = Office::on(office.folder);
    next.keeper.reload().unwrap();
    assert_eq!(next.in_force().0, [1, 2]);
    let root = next.peer(ROOT);
    assert_eq!(next.add(&root, FILTER, Lasting::Daemon).unwrap(), kept + 1);
}

#[test]
fn files_are_read_again_and_those_that_are_wrong_change_nothing() {
    let mut office = Office::open(POLICY);
    let root = office.peer(ROOT);
    office.add(&root, FILTER, Lasting::Daemon).unwrap();
    let file = office.folder.path().join("policy.toml");
    let before = (office.in_force(), office.times());
    fs::write(&file, "[service.other]\nrun = \"log\"\n").unwrap();
    let failure = office.keeper.reload().unwrap_err();
    assert!(failure.rendered.contains("added by 0 (1)"), "what was added needs the service: {failure:?}");
    assert_eq!((office.in_force(), office.times()), before);
    fs::write(&file, format!("{POLICY}{FILTER}")).unwrap();
    office.keeper.reload().unwrap();
    assert_eq!(office.in_force(), (vec![3, 4, 5], vec![ServiceId(1)]));
}

#[test]
fn a_name_that_comes_to_somebody_else_is_noticed() {
    let mut office = Office::open(&format!("{POLICY}if.unit = \"cron.service\"\n"));
    assert!(!office.keeper.look_again().unwrap());
    office.unit.store(7, Ordering::Relaxed);
    assert!(office.keeper.look_again().unwrap());
    assert_eq!((office.times(), office.in_force().0), (2, vec![1]));
    assert!(!office.keeper.look_again().unwrap());
}

#[test]
fn a_policy_that_makes_the_daemon_its_service_is_refused() {
    let mut office = Office::open(POLICY);
    let root = office.peer(ROOT);
    let service = "[service.proxy]\nadopt = \"127.0.0.1:5000\"\nunit = \"waylayd.service\"\n";
    let failure = office.add(&root, service, Lasting::Daemon).unwrap_err();
    assert!(failure.message.contains("would be waylayd itself"), "{failure}");
}

#[test]
fn users_see_their_own_filters_and_root_sees_all() {
    let mut office = Office::open(POLICY);
    let [root, nobody] = [ROOT, NOBODY].map(|uid| office.peer(uid));
    let block = "[sublayer.\"u65534.own\"]\n[[filter]]\naction = \"block\"\nsublayer = \"u65534.own\"\n";
    office.add(&nobody, block, Lasting::Session).unwrap();
    let seen = |peer: &Peer| {
        let answer = office.keeper.filters(peer);
        let Answer::Filters { filters } = answer else { panic!("{answer:?}") };
        filters.into_iter().map(|filter| (filter.source.owner, filter.target)).collect::<Vec<_>>()
    };
    assert_eq!(seen(&nobody), [(NOBODY, "u65534.own".to_owned())]);
    assert_eq!(seen(&root), [(ROOT, "log".to_owned()), (NOBODY, "u65534.own".to_owned())]);
}

#[test]
fn users_change_something_only_so_often_and_are_told_when_again() {
    let mut office = Office::open(POLICY);
    let [root, nobody] = [ROOT, NOBODY].map(|uid| office.peer(uid));
    let changes = (0..BURST + 5).map(|_| office.remove(&nobody, Target::Number(99)).unwrap_err());
    let codes: Vec<Failure> = changes.collect();
    assert_eq!(codes.first().unwrap().code, Code::Unknown);
    let last = codes.last().unwrap();
    assert_eq!(last.code, Code::Busy);
    assert!(last.message.contains("try again in "), "{last}");
    assert_eq!(office.remove(&root, Target::Number(99)).unwrap_err().code, Code::Unknown);
}
