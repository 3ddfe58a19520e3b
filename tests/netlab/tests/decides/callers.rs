//! Processes that dial, each in the cgroup, under the user and by the program of its party.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use tempfile::TempDir;
use waylay::RedirectRecords;
use waylay_core::{CommandName, FileId, HostName, Process as Caller, ServiceId};
use waylay_netlab::{Namespace, Process};

use crate::{
    case::{Party, Place, Program},
    ground::Ground,
};

const CALLER: &str = env!("CARGO_BIN_EXE_netlab-caller");

/// The same program twice, where every user can reach it.
#[derive(Debug)]
pub(crate) struct Programs(TempDir);

impl Programs {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let programs = Self(directory);
        for program in [Program::First, Program::Second] {
            fs::copy(CALLER, programs.path(program)).unwrap();
        }
        programs
    }

    pub(crate) fn path(&self, program: Program) -> PathBuf {
        self.0.path().join(program.name())
    }

    /// As the kernel numbers it.
    pub(crate) fn file(&self, program: Program) -> FileId {
        let file = fs::metadata(self.path(program)).unwrap();
        let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        FileId { device: u64::from(major) << 20 | u64::from(minor), inode: file.ino() }
    }
}

/// One of them. It ends when dropped.
pub(crate) struct Dialler {
    party: Party,
    program: PathBuf,
    identity: Caller,
    process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    calls: Option<i32>,
}

/// What a connect() came to for who called it.
#[derive(Debug)]
pub(crate) enum Answer {
    Connected { peer: SocketAddr },
    Errno(i32),
    Unset(String),
}

impl Dialler {
    pub(crate) fn start(party: Party, ground: &Ground, programs: &Programs, visitors: &Namespace) -> Self {
        let program = programs.path(party.program());
        let enter =
            "echo $$ > \"$0\"; exec setpriv --reuid \"$1\" --regid \"$2\" --clear-groups \"$3\" \"$4\"";
        let (uid, gid) = (ground.subject().uid_of(party), ground.subject().gid_of(party));
        let mut command = match party {
            Party::VISITOR => visitors.command("sh"),
            Party::Application(_) | Party::Service(_) => Command::new("sh"),
        };
        command.args(["-c", enter]).arg(ground.procs(party)).args([uid, gid].map(|id| id.to_string()));
        let part = match (ground.subject().is_ebpf(), party) {
            (true, _) => "alone",
            (false, Party::Application(_)) => "command",
            (false, Party::Service(_)) => "service",
        };
        command.arg(&program).arg(part).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command);
        let child = process.child();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let identity = Caller {
            pid: child.id(),
            start_time_ns: 0,
            uid,
            gid,
            command: CommandName::new(program.file_name().unwrap().as_encoded_bytes()),
            exe: programs.file(party.program()),
            cgroup: ground.cgroup_id(Place::Of(party)),
            service: match party {
                Party::Application(_) => None,
                Party::Service(number) => Some(ServiceId(number)),
            },
        };
        let mut dialler =
            Self { party, program, identity, process, orders, answers: BufReader::new(answers), calls: None };
        if part != "alone" {
            dialler.calls = Some(dialler.answer().parse().unwrap());
        }
        dialler
    }

    /// The descriptor by which it is supervised, if it is.
    pub(crate) fn supervision(&mut self) -> (Party, &Child, Option<i32>) {
        (self.party, self.process.child(), self.calls)
    }

    pub(crate) fn party(&self) -> Party {
        self.party
    }

    pub(crate) fn identity(&self) -> Caller {
        self.identity
    }

    pub(crate) fn program(&self) -> &PathBuf {
        &self.program
    }

    pub(crate) fn dial(
        &mut self,
        from: Option<SocketAddr>,
        to: SocketAddr,
        records: Option<&RedirectRecords>,
    ) -> Answer {
        let records = records.map_or_else(|| "-".to_owned(), |records| hexadecimal(records.as_bytes()));
        let from = from.map_or_else(|| "-".to_owned(), |from| from.to_string());
        let answer = self.order(&format!("dial {to} {records} {from}"));
        match answer.split(' ').collect::<Vec<_>>()[..] {
            ["connected", peer] => Answer::Connected { peer: peer.parse().unwrap() },
            ["errno", number] => Answer::Errno(number.parse().unwrap()),
            _ => Answer::Unset(answer),
        }
    }

    /// Asks a resolver for a name: the errno of connect(), or nothing once it has answered.
    pub(crate) fn ask(&mut self, resolver: SocketAddr, name: &HostName) -> Option<i32> {
        let answer = self.order(&format!("ask {resolver} {name}"));
        match answer.split(' ').collect::<Vec<_>>()[..] {
            ["answered"] => None,
            ["errno", number] => Some(number.parse().unwrap()),
            _ => panic!("{answer}"),
        }
    }

    pub(crate) fn close_all(&mut self) {
        assert_eq!(self.order("close"), "closed");
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut answer = String::new();
        let read = self.answers.read_line(&mut answer).unwrap();
        assert!(read > 0, "{:?} has ended: {:?}", self.party, self.process.child().wait());
        answer.trim_end().to_owned()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
