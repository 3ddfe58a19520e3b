//! A change of few filters among many is taken in without the others, and comes to what all of it comes to.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tempfile::TempDir;
use waylay_config::{
    Names,
    declaration::{ExePattern, UnitName},
};
use waylay_core::{Change, FileId, FilterId, Namespace, Policy};
use waylay_daemon::{
    declared::Itself,
    files::Store,
    force::Force,
    history::History,
    keeper::{Keeper, Peer, Settings},
    ledger::{ROOT, SessionId},
    protocol::{Answer, Code, Failure, Lasting, Target},
};
use waylay_host::{Assignment, Enclosure, EnclosureError, LiveFlow, RunError, ServiceState};

/// More than are gone through each time.
const MANY: u16 = 2_500;
/// Somebody there is on every host.
const NOBODY: u32 = 65534;

/// What has been put into force.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>, Arc<AtomicBool>);

#[derive(Default)]
struct Recorded {
    policy: Policy,
    applied: usize,
    changes: Vec<Change>,
}

impl Force for Recorder {
    fn apply(&mut self, assignment: &Assignment) -> Result<(), RunError> {
        let Self(recorded, refuses) = self;
        if refuses.load(Ordering::Relaxed) {
            return Err(RunError::NotRoot);
        }
        let mut recorded = locked(recorded);
        recorded.policy = assignment.policy.clone();
        recorded.applied += 1;
        Ok(())
    }

    fn amend(&mut self, change: Change, policy: &Policy) -> Result<(), RunError> {
        let Self(recorded, refuses) = self;
        if refuses.load(Ordering::Relaxed) {
            return Err(RunError::NotRoot);
        }
        let mut recorded = locked(recorded);
        assert!(recorded.policy.change(&change).is_ok());
        assert!(recorded.policy == *policy, "a change leads to something else");
        recorded.changes.push(change);
        Ok(())
    }

    fn services(&self) -> Vec<ServiceState> {
        Vec::new()
    }

    fn enclose(&mut self, _pid: u32, _uid: u32) -> Result<Enclosure, RunError> {
        Err(EnclosureError::NoClients.into())
    }

    fn admit(&self, _enclosure: &Enclosure, _pid: u32) -> Result<(), RunError> {
        Err(EnclosureError::NoClients.into())
    }

    fn dissolve(&mut self, _enclosure: &Enclosure) {}

    fn flows(&self) -> Result<Vec<LiveFlow>, RunError> {
        Ok(Vec::new())
    }
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
        vec![SocketAddr::from(([127, 0, 0, 53], 53))]
    }
}

struct Office {
    keeper: Keeper<Recorder, Host>,
    recorder: Recorder,
    history: History,
    unit: Arc<AtomicU64>,
    _folder: TempDir,
}

impl Office {
    /// With many filters in a file.
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut policy = "[service.log]\nrun = \"log\"\n\n[sublayer.own]\nweight = 3\n".to_owned();
        for port in 1..=MANY {
            let name = if port % 2 == 0 { format!("name = \"n{port}\"\n") } else { String::new() };
            write!(policy, "[[filter]]\n{name}action = \"redirect\"\nservice = \"log\"\nif.port = {port}\n")
                .unwrap();
        }
        fs::write(folder.path().join("policy.toml"), policy).unwrap();
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
        let mut keeper = Keeper::new(settings, recorder.clone(), history.clone(), names);
        keeper.reload().unwrap();
        Self { keeper, recorder, history, unit, _folder: folder }
    }

    fn add(&mut self, peer: &Peer, text: &str) -> Result<u64, Failure> {
        let lasting = if peer.uid == ROOT { Lasting::Daemon } else { Lasting::Session };
        Ok(self.keeper.change(peer, vec![text.to_owned()], &[], lasting)?.added[0])
    }

    fn remove(&mut self, peer: &Peer, target: Target) -> Result<Vec<u64>, Failure> {
        Ok(self.keeper.change(peer, Vec::new(), &[target], Lasting::Session)?.removed)
    }

    /// How often all of it has been put into force, and how many filters the last change has removed and added.
    fn last(&self) -> (usize, Option<(usize, usize)>) {
        let recorded = locked(&self.recorder.0);
        let last = recorded.changes.last().map(|change| (change.removed.len(), change.added.len()));
        (recorded.applied, last)
    }

    fn listed(&self) -> Vec<String> {
        let answer = self.keeper.filters(&peer(ROOT));
        let Answer::Filters { filters } = answer else { panic!("{answer:?}") };
        filters.into_iter().map(|filter| format!("{filter:?}")).collect()
    }

    /// What filters are called, those that are asked last first.
    fn called(&self) -> Vec<String> {
        let recorded = locked(&self.recorder.0);
        let ids = recorded.policy.filters().iter().rev().map(|filter| filter.id);
        ids.take(20).map(|id| self.history.describe(id)).collect()
    }

    /// All texts read anew say the same, number for number.
    fn is_what_all_texts_say(&mut self) {
        let before = (self.listed(), self.called());
        self.keeper.reload().unwrap();
        let recorded = locked(&self.recorder.0);
        assert!(recorded.changes.last() == Some(&Change::default()), "something is not what it was");
        drop(recorded);
        assert_eq!((self.listed(), self.called()), before);
    }
}

fn locked(recorded: &Mutex<Recorded>) -> MutexGuard<'_, Recorded> {
    recorded.lock().unwrap_or_else(PoisonError::into_inner)
}

fn peer(uid: u32) -> Peer {
    Peer { pid: 1, uid, name: uid.to_string(), session: SessionId(u64::from(uid) + 1) }
}

fn redirect(more: &str) -> String {
    format!("[[filter]]\naction = \"redirect\"\nservice = \"log\"\n{more}\n")
}

#[test]
fn few_filters_come_and_go_without_the_others() {
    let mut office = Office::open();
    let root = peer(ROOT);
    assert_eq!(office.last(), (1, None));
    let first = office.add(&root, &redirect("if.port = 7000")).unwrap();
    assert_eq!(office.last(), (1, Some((0, 1))));
    let both = redirect("weight = 9\nif.port = 7001") + &redirect("name = \"two\"");
    office.add(&root, &both).unwrap();
    assert_eq!(office.last(), (1, Some((0, 2))));
    office.is_what_all_texts_say();
    let block = "[[filter]]\nname = \"shut\"\naction = \"block\"\nsublayer = \"own\"\nif.port = 25\n";
    office.add(&root, block).unwrap();
    office.is_what_all_texts_say();
    // Those after it are read again, and are what they were.
    office.remove(&root, Target::Number(first)).unwrap();
    assert_eq!(office.last(), (1, Some((1, 0))));
    office.is_what_all_texts_say();
    office.remove(&root, Target::Filter("shut".into())).unwrap();
    assert_eq!(office.last(), (1, Some((1, 0))));
    office.is_what_all_texts_say();
    assert_eq!(office.called()[0], "filter \"two\" (added by 0 (2):6)");
}

#[test]
fn what_says_more_than_filters_is_put_into_force_as_a_whole() {
    let mut office = Office::open();
    let root = peer(ROOT);
    let service = "[service.other]\nrun = \"log\"\n[[filter]]\naction = \"redirect\"\nservice = \"other\"\n";
    let number = office.add(&root, service).unwrap();
    assert_eq!(office.last(), (2, None));
    office.add(&root, "[[filter]]\naction = \"redirect\"\nservice = \"other\"\nif.port = 7000\n").unwrap();
    assert_eq!(office.last(), (2, Some((0, 1))));
    office.is_what_all_texts_say();
    let failure = office.remove(&root, Target::Number(number)).unwrap_err();
    assert!(failure.rendered.contains("there is no service \"other\""), "{failure:?}");
    office.is_what_all_texts_say();
}

#[test]
fn what_is_wrong_or_refused_leaves_what_was() {
    let mut office = Office::open();
    let root = peer(ROOT);
    office.add(&root, &redirect("name = \"mine\"")).unwrap();
    for (wrong, why) in [
        (redirect("name = \"n2\""), "there is a filter \"n2\" already"),
        (redirect("name = \"mine\""), "there is a filter \"mine\" already"),
        (redirect("if.port = 70000"), "70000"),
        (redirect("").replace("log", "lgo"), "there is no service \"lgo\""),
    ] {
        let failure = office.add(&root, &wrong).unwrap_err();
        assert!(failure.code == Code::Wrong && failure.rendered.contains(why), "{why}: {failure:?}");
    }
    office.is_what_all_texts_say();
    office.recorder.1.store(true, Ordering::Relaxed);
    assert_eq!(office.add(&root, &redirect("name = \"late\"")).unwrap_err().code, Code::Failed);
    assert_eq!(office.remove(&root, Target::Filter("mine".into())).unwrap_err().code, Code::Failed);
    office.recorder.1.store(false, Ordering::Relaxed);
    office.is_what_all_texts_say();
    let last = FilterId(u32::from(MANY) + 2);
    office.add(&root, &redirect("name = \"late\"")).unwrap();
    assert_eq!(office.history.describe(last), format!("{last}"), "a number that was refused is used again");
    office.is_what_all_texts_say();
}

#[test]
fn users_are_held_to_account_and_have_no_more_than_their_share() {
    let mut office = Office::open();
    let nobody = peer(NOBODY);
    office.add(&nobody, "[sublayer.\"u65534.own\"]\n").unwrap();
    let block = "[[filter]]\naction = \"block\"\nsublayer = \"u65534.own\"\n";
    office.add(&nobody, &block.repeat(200)).unwrap();
    assert_eq!(office.last(), (2, Some((0, 200))));
    office.is_what_all_texts_say();
    let failure = office.add(&nobody, &block.repeat(100)).unwrap_err();
    assert!(failure.rendered.contains("at most 256 filters"), "{failure:?}");
    let failure = office.add(&nobody, &redirect("")).unwrap_err();
    assert!(failure.rendered.contains("only root may redirect"), "{failure:?}");
    office.add(&peer(ROOT), &redirect("")).unwrap();
    assert!(office.keeper.end_session(nobody.session).unwrap());
    office.is_what_all_texts_say();
}

#[test]
fn a_name_that_has_come_to_somebody_else_is_looked_up_for_all() {
    let mut office = Office::open();
    let root = peer(ROOT);
    let named = redirect("if.unit = \"cron.service\"");
    office.add(&root, &named).unwrap();
    office.add(&root, &named).unwrap();
    office.unit.store(7, Ordering::Relaxed);
    office.add(&root, &named).unwrap();
    assert_eq!(office.last(), (1, Some((2, 3))), "those before it are others now as well");
    assert!(!office.keeper.look_again().unwrap());
    office.unit.store(8, Ordering::Relaxed);
    assert!(office.keeper.look_again().unwrap());
    assert_eq!(office.last(), (1, Some((3, 3))));
}

#[test]
fn who_is_asked_for_names_of_hosts_is_a_change_of_the_whole() {
    let mut office = Office::open();
    let root = peer(ROOT);
    let host = "[[filter]]\naction = \"block\"\nsublayer = \"own\"\nif.host = \"example.org\"\n";
    let first = office.add(&root, host).unwrap();
    assert_eq!(office.last(), (2, None));
    office.add(&root, host).unwrap();
    assert_eq!(office.last(), (2, Some((0, 1))));
    office.is_what_all_texts_say();
    office.remove(&root, Target::Number(first)).unwrap();
    office.is_what_all_texts_say();
    office.remove(&root, Target::Number(first + 1)).unwrap();
    assert_eq!(office.last().0, 3);
}
