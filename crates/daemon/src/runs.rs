//! Runs at the daemon: commands of clients, each in a cgroup of its own, with services and filters for what is in it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use waylay_config::Names;
use waylay_host::{Enclosure, EnclosureError, ServiceSpec};

use crate::{
    draft::Finding,
    force::Force,
    keeper::{Keeper, Peer, with_causes},
    ledger::{Piece, ROOT, RunOf, SessionId},
    protocol::{Code, Failure, Terms, Text},
};

/// What the services of a run may take to finish when it ends, as in a run without a daemon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Texts of one run: a policy's file and those beside it.
const MOST_TEXTS: usize = 64;
/// Characters of a text's name that are shown.
const LONGEST_NAME: usize = 200;

/// A run that somebody has.
#[derive(Debug)]
pub(crate) struct Guest {
    run: Arc<RunOf>,
    enclosure: Enclosure,
}

impl Guest {
    /// What its names begin with.
    pub(crate) fn prefix(&self) -> String {
        self.run.prefix()
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.run.number
    }

    /// The directory of its cgroup.
    pub(crate) fn directory(&self) -> PathBuf {
        self.enclosure.cgroup().path().to_owned()
    }

    /// The same, as the kernel shows it of a process.
    pub(crate) fn cgroup(&self) -> &str {
        &self.run.cgroup
    }
}

impl<F: Force, N: Names> Keeper<F, N> {
    /// Makes the cgroup of a run.
    ///
    /// # Errors
    /// [`Failure`]; there is none then.
    pub(crate) fn enclose(&mut self, peer: &Peer, terms: Terms) -> Result<&Guest, Failure> {
        if self.runs.contains_key(&peer.session) {
            return Err(Failure::new(Code::Busy, "this connection has a run already"));
        }
        self.count_change(peer)?;
        let enclosure = self.force_mut().enclose(peer.pid, peer.uid)?;
        let cgroup = below_root(enclosure.cgroup().path());
        self.last_run += 1;
        let run =
            Arc::new(RunOf { number: self.last_run, uid: peer.uid, user: peer.name.clone(), cgroup, terms });
        Ok(self.runs.entry(peer.session).or_insert(Guest { run, enclosure }))
    }

    /// Puts into force what a run says.
    ///
    /// # Errors
    /// [`Failure`]; its cgroup is gone then.
    pub(crate) fn begin_run(&mut self, peer: &Peer, texts: Vec<Text>) -> Result<Vec<Finding>, Failure> {
        let Some(guest) = self.runs.get(&peer.session) else { return Ok(Vec::new()) };
        let run = Arc::clone(&guest.run);
        let mut ledger = self.state().ledger.clone();
        if texts.len() > MOST_TEXTS {
            self.dissolve(peer.session);
            return Err(Failure::new(Code::NotAllowed, format!("a run has at most {MOST_TEXTS} texts")));
        }
        for Text { name, text } in texts {
            let name = format!("{}: {}", run.in_words(), shown(&name));
            ledger.add_to_run(&run, peer.session, name, text);
        }
        let is_of_it = |piece: &Piece| piece.run.as_ref().is_some_and(|of| of.number == run.number);
        let begun = self.put_in_force(ledger, is_of_it);
        if begun.is_err() {
            self.dissolve(peer.session);
        }
        // Whoever asks knows what they have called it.
        let prefix = run.prefix();
        begun
            .map(|warnings| warnings.into_iter().map(|warning| warning.without(&prefix)).collect())
            .map_err(|failure| failure.without(&prefix))
    }

    /// Moves whoever asks into the cgroup of a run of theirs.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn enter_run(&self, peer: &Peer, number: u64) -> Result<(), Failure> {
        let mut runs = self.runs.values();
        // Whether there is one of somebody else nobody has to know.
        let guest = runs.find(|guest| guest.run.number == number && guest.run.uid == peer.uid);
        let guest =
            guest.ok_or_else(|| Failure::new(Code::Unknown, format!("there is no run {number} of yours")))?;
        Ok(self.force().admit(&guest.enclosure, peer.pid)?)
    }

    /// Ends all who are in the cgroup of a session's run, which then is gone.
    pub(crate) fn dissolve(&mut self, session: SessionId) {
        if let Some(guest) = self.runs.remove(&session) {
            self.force_mut().dissolve(&guest.enclosure);
        }
    }

    /// What the names of a session's run begin with.
    pub(crate) fn prefix_of_run(&self, session: SessionId) -> Option<String> {
        self.runs.get(&session).map(Guest::prefix)
    }

    /// Whether services are there whose names begin so.
    pub(crate) fn has_services(&self, prefix: &str) -> bool {
        self.force().services().iter().any(|service| service.name.starts_with(prefix))
    }

    /// Counts a change of somebody who is not root.
    pub(crate) fn count_change(&mut self, peer: &Peer) -> Result<(), Failure> {
        if peer.uid == ROOT {
            return Ok(());
        }
        self.pace.count(peer.uid, Instant::now()).map_err(|pause| {
            let milliseconds = pause.as_millis() + 1;
            Failure::new(Code::Busy, format!("too many changes by one user; try again in {milliseconds} ms"))
        })
    }
}

/// What somebody calls a text, in one line.
fn shown(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(LONGEST_NAME).collect()
}

/// A path as `/proc/PID/cgroup` has it.
fn below_root(directory: &Path) -> String {
    let root = waylay_host::cgroup::Cgroup::root();
    let below = root.ok().and_then(|root| Some(directory.strip_prefix(root.path()).ok()?.to_owned()));
    Path::new("/").join(below.unwrap_or_else(|| directory.to_owned())).to_string_lossy().into_owned()
}

impl RunOf {
    /// Has a service of the run as its terms say.
    pub(crate) fn fit(&self, service: &mut ServiceSpec) {
        let Terms { patterns, forget, idle, directory } = &self.terms;
        let prefix = self.prefix();
        let name = service.name.strip_prefix(&prefix).unwrap_or(&service.name);
        if service.builtin {
            if forget.iter().any(|forgets| forgets == name) {
                service.command.push("--forget".into());
            }
            service.command.extend(["--idle".into(), idle.clamp(&1, &60).to_string().into()]);
            if !service.input.is_empty() {
                service.input.clone_from(patterns);
            }
        } else if let Some(command) = service.command.get_mut(2) {
            // After it has given up what it may not, so that it goes nowhere where its user may not.
            let there = [r#"cd -- "$0" 2>/dev/null; "#.into(), std::mem::take(command)];
            *command = there.into_iter().collect();
            service.command.push(directory.into());
        }
    }
}

impl From<EnclosureError> for Failure {
    fn from(error: EnclosureError) -> Self {
        let code = match &error {
            EnclosureError::OutsideOfScope { .. } | EnclosureError::TooDeep { .. } => Code::OutOfScope,
            EnclosureError::NoClients
            | EnclosureError::OfAService
            | EnclosureError::OfAnotherUser { .. }
            | EnclosureError::FromElsewhere { .. } => Code::NotAllowed,
            EnclosureError::Cgroup(_) | EnclosureError::Move { .. } => Code::Failed,
        };
        Self::new(code, with_causes(&error))
    }
}
