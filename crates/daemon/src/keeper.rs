//! Whoever keeps the ledger: the one place where what is declared changes, and with it what is in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use waylay_config::{Names, declaration::ServiceDeclaration};
use waylay_core::{Change, ServiceId};
use waylay_host::{RunError, ServiceSpec, give_back_free_memory, user::Identity};

use crate::{
    authority,
    declared::{DeclaredError, Itself, Making},
    draft::{self, Draft, Finding, Wrong, findings},
    files::{self, FileError, Store, Written},
    force::Force,
    history::History,
    ledger::{Ledger, Lifetime, Number, Origin, Piece, ROOT, SessionId},
    names::Remembered,
    numbers::Numbers,
    pace::Pace,
    protocol::{Changed, Code, Failure, Lasting, Target},
    runs::{self, Guest},
    standing::{Amendment, Standing},
};

/// How long a service of a user other than root may take to finish what it has accepted: meanwhile it counts among those there
/// can be.
const PATIENCE_WITH_USERS: Duration = Duration::from_secs(30);

/// What stays the same while a daemon runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file of the policy.
    pub policy: PathBuf,
    /// Where what is added for good is kept.
    pub store: Store,
    /// What `scan` finds on its standard input.
    pub patterns: Vec<u8>,
    /// What the daemon is known by.
    pub itself: Itself,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process that has connected, if it can be told.
    pub pid: u32,
    /// The user.
    pub uid: u32,
    /// What the user is called.
    pub name: String,
    /// The connection.
    pub session: SessionId,
}

/// Keeps the ledger, and what follows from it in force. `N` makes what knows this host's names at the moment.
pub struct Keeper<F, N> {
    settings: Settings,
    names: Box<dyn Fn() -> N + Send>,
    force: F,
    history: History,
    state: State<N>,
    changes: u64,
    overdue: Option<String>,
    /// Services that run by themselves and are not where they were.
    moved: BTreeSet<ServiceId>,
    /// Connections that have ended, and what was to end with them has not.
    ended: BTreeSet<SessionId>,
    pub(crate) runs: BTreeMap<SessionId, Guest>,
    pub(crate) last_run: u64,
    pub(crate) pace: Pace,
}

/// What is in force.
pub(crate) struct State<N> {
    pub(crate) ledger: Ledger,
    pub(crate) standing: Option<Standing>,
    pub(crate) numbers: Numbers,
    pub(crate) names: Option<Remembered<N>>,
}

impl<F: Force, N: Names> Keeper<F, N> {
    /// Nothing is in force yet; [`Keeper::reload`] puts the policy's files into force.
    pub fn new(
        settings: Settings,
        force: F,
        history: History,
        names: impl Fn() -> N + Send + 'static,
    ) -> Self {
        let state =
            State { ledger: Ledger::default(), standing: None, numbers: Numbers::default(), names: None };
        Self {
            settings,
            names: Box::new(names),
            force,
            history,
            state,
            changes: 0,
            overdue: None,
            moved: BTreeSet::new(),
            ended: BTreeSet::new(),
            runs: BTreeMap::new(),
            last_run: 0,
            pace: Pace::default(),
        }
    }

    /// Puts into force what the policy's files say now, with what is kept for good and what was added. What is not in force yet
    /// is read from where it is kept.
    ///
    /// # Errors
    /// [`Failure`]; what was in force still is.
    pub fn reload(&mut self) -> Result<Changed, Failure> {
        let ledger = match self.state.standing {
            None => files::ledger(&self.settings.policy, &self.settings.store)?,
            Some(_) => {
                let mut ledger = self.state.ledger.clone();
                ledger.set_files(files::texts(&self.settings.policy)?);
                ledger
            }
        };
        let warnings = self.put_in_force(ledger, |_| true)?;
        Ok(Changed { warnings, ..Changed::default() })
    }

    /// Adds and removes, all or nothing.
    ///
    /// # Errors
    /// [`Failure`]; what was in force still is.
    pub fn change(
        &mut self,
        peer: &Peer,
        add: Vec<String>,
        remove: &[Target],
        lasting: Lasting,
    ) -> Result<Changed, Failure> {
        let lifetime = match lasting {
            Lasting::Session => Lifetime::Session(peer.session),
            Lasting::Daemon => Lifetime::Daemon,
            Lasting::Persistent => Lifetime::Persistent,
            Lasting::Boot => Lifetime::Boot,
        };
        if !authority::may_last(peer.uid, lifetime) {
            let why = "only root may add what outlasts the connection; say the lifetime \"session\"";
            return Err(Failure::new(Code::NotAllowed, why));
        }
        self.count_change(peer)?;
        let mut ledger = self.state.ledger.clone();
        let (mut removed, mut forgotten) = (Vec::new(), Vec::new());
        for target in remove {
            let (number, origin) = self.find(target, peer)?;
            ledger.remove(number);
            removed.push(number.0);
            forgotten.extend(origin.lifetime().is_kept().then_some((number, origin.lifetime())));
        }
        let mut written = Vec::new();
        let mut added = Vec::new();
        for text in add {
            let number = ledger.add(peer.uid, &peer.name, lifetime, text);
            added.push(number.0);
            if lifetime.is_kept() {
                let text = ledger.added(number).map_or("", |piece| &*piece.text);
                written.push(self.settings.store.write(number, lifetime, text)?);
            }
        }
        let is_new = |piece: &Piece| piece.origin.number().is_some_and(|number| added.contains(&number.0));
        let warnings = self.put_in_force(ledger, is_new)?;
        self.keep(written, &forgotten)?;
        Ok(Changed { added, removed, warnings })
    }

    /// Ends what was to end with a connection.
    ///
    /// # Errors
    /// [`Failure`]: then it stays in force, which [`Keeper::look_again`] tries to change.
    pub fn end_session(&mut self, session: SessionId) -> Result<bool, Failure> {
        // A command does not go on without the services it was started with.
        self.dissolve(session);
        let mut ledger = self.state.ledger.clone();
        if !ledger.end_session(session) {
            return Ok(false);
        }
        self.ended.insert(session);
        let ended = self.put_in_force(ledger, |_| false);
        if let Err(failure) = &ended {
            self.overdue = Some(failure.to_string());
        }
        ended.map(|_warnings| true)
    }

    /// Looks whether a name stands for something else than when the policy was put into force, or a service that runs by itself is
    /// somewhere else; whether the policy was put into force anew.
    ///
    /// # Errors
    /// [`Failure`]; what was in force still is.
    pub fn look_again(&mut self) -> Result<bool, Failure> {
        let has_changed = self.state.names.as_ref().is_some_and(Remembered::has_changed);
        self.moved.append(&mut self.force.moved());
        if !has_changed && self.moved.is_empty() && self.overdue.is_none() {
            return Ok(false);
        }
        let ledger = self.state.ledger.clone();
        let outcome = self.put_all_in_force(ledger, |_| false);
        if let Err(failure) = &outcome {
            self.overdue = Some(failure.to_string());
        }
        outcome.map(|_warnings| true)
    }

    fn keep(&self, written: Vec<Written>, forgotten: &[(Number, Lifetime)]) -> Result<(), Failure> {
        let store = &self.settings.store;
        written.into_iter().try_for_each(Written::keep)?;
        forgotten.iter().try_for_each(|&(number, lifetime)| store.remove(number, lifetime))?;
        Ok(())
    }

    /// The number of what is meant, if whoever asks may remove it.
    fn find(&self, target: &Target, peer: &Peer) -> Result<(Number, Origin), Failure> {
        let unknown = |what: String| Failure::new(Code::Unknown, format!("there is no {what}"));
        let piece = match target {
            Target::Number(number) => self.state.ledger.added(Number(*number)),
            Target::Filter(name) | Target::Service(name) | Target::Sublayer(name) => {
                self.state.declaring(target, name)
            }
        };
        let piece = piece.ok_or_else(|| unknown(words(target)))?;
        let number = piece.origin.number().ok_or_else(|| {
            let why = format!("the {} is declared in {}; change that and reload", words(target), piece.name);
            Failure::new(Code::NotAllowed, why)
        })?;
        if piece.run.is_some() {
            let why = format!("the {} is of a run, and goes with it", words(target));
            return Err(Failure::new(Code::NotAllowed, why));
        }
        if !authority::may_remove(peer.uid, piece.origin.owner()) {
            let why = format!("the {} is somebody else's", words(target));
            return Err(Failure::new(Code::NotAllowed, why));
        }
        match target {
            Target::Number(_) => {}
            Target::Filter(_) | Target::Service(_) | Target::Sublayer(_) => {
                if self.state.declared_in(piece) > 1 {
                    let why =
                        format!("the {} was added together with others: remove {number}", words(target));
                    return Err(Failure::new(Code::NotAllowed, why));
                }
            }
        }
        Ok((number, piece.origin))
    }

    /// All or nothing. The warnings are about those pieces that are asked for.
    pub(crate) fn put_in_force(
        &mut self,
        mut ledger: Ledger,
        asked_for: impl Fn(&Piece) -> bool,
    ) -> Result<Vec<Finding>, Failure> {
        self.forget_ended(&mut ledger);
        let names = Remembered::new((self.names)());
        let Some(amendment) = Amendment::of(&self.state, &ledger, names) else {
            return self.put_all_in_force(ledger, asked_for);
        };
        self.state.ledger.skip_those_of(&ledger);
        self.state.numbers.skip_those_of(amendment.numbers());
        let warnings = draft::warnings(amendment.warnings(), is_of(&ledger, asked_for));
        let warnings = findings(&warnings, amendment.sources());
        self.amend(&amendment)?;
        amendment.settle(&mut self.state, ledger);
        self.count();
        Ok(warnings)
    }

    /// The same, with all texts read and all names looked up.
    fn put_all_in_force(
        &mut self,
        mut ledger: Ledger,
        asked_for: impl Fn(&Piece) -> bool,
    ) -> Result<Vec<Finding>, Failure> {
        self.forget_ended(&mut ledger);
        let outcome = self.try_to_put_in_force(&ledger, asked_for);
        self.state.ledger.skip_those_of(&ledger);
        let (state, warnings) = outcome?;
        self.state = State { ledger, ..state };
        self.moved.clear();
        give_back_free_memory();
        self.count();
        Ok(warnings)
    }

    fn forget_ended(&self, ledger: &mut Ledger) {
        self.ended.iter().for_each(|session| {
            ledger.end_session(*session);
        });
    }

    fn count(&mut self) {
        self.changes += 1;
        self.overdue = None;
        self.ended.clear();
    }

    fn try_to_put_in_force(
        &mut self,
        ledger: &Ledger,
        asked_for: impl Fn(&Piece) -> bool,
    ) -> Result<(State<N>, Vec<Finding>), Failure> {
        let names = Remembered::new((self.names)());
        let draft = Draft::of(ledger, &names)?;
        let specs = self.specs(&draft, ledger)?;
        let warnings = findings(&draft.warnings(&names, is_of(ledger, asked_for)), &draft.sources);
        let Draft { sources, declarations, lowered } = draft;
        let mut counts = vec![0; ledger.pieces().len()];
        declarations.filters.iter().for_each(|filter| counts[filter.span.source()] += 1);
        let mut numbers = self.state.numbers.clone();
        numbers.forget_services(&self.moved);
        let assigned = numbers.assign(lowered.policy, specs, ledger, &counts);
        self.state.numbers.skip_those_of(&numbers);
        let (assignment, numbered) = assigned.map_err(RunError::from)?;
        let former = self.state.standing.as_ref().map(|standing| &standing.policy);
        let change = former.and_then(|former| Change::between(former, &assignment.policy));
        // Before it is in force: what it refuses is to be named from the first moment.
        self.history.add(numbered, &declarations);
        let carried_out = match change {
            Some(change) => self.force.amend(change, &assignment.policy),
            None => self.force.apply(&assignment),
        };
        carried_out.inspect_err(|_| self.history.take_back())?;
        let standing = Some(Standing { sources, declarations, policy: assignment.policy });
        let state = State { ledger: Ledger::default(), standing, numbers, names: Some(names) };
        Ok((state, warnings))
    }

    fn amend(&mut self, amendment: &Amendment<N>) -> Result<(), Failure> {
        let Some(standing) = &mut self.state.standing else { return Ok(()) };
        standing.policy.change(amendment.change()).map_err(RunError::from)?;
        let (numbered, declarations) = amendment.numbered();
        self.history.add(numbered, declarations);
        let Err(error) = self.force.amend(amendment.change().clone(), &standing.policy) else {
            return Ok(());
        };
        self.history.take_back();
        // It leads to what was there, of which nothing can be wrong.
        let _undone = standing.policy.change(amendment.undo());
        Err(error.into())
    }

    /// How each service is had.
    fn specs(&self, draft: &Draft, ledger: &Ledger) -> Result<BTreeMap<String, ServiceSpec>, Failure> {
        let spec = |declared: &ServiceDeclaration| {
            self.settings.itself.refuse(declared)?;
            let piece = ledger.piece_at(&declared.name.span);
            let owner = piece.map_or(ROOT, |piece| piece.origin.owner());
            let run = piece.and_then(|piece| piece.run.as_deref());
            let leave_within = match run {
                Some(_) => Some(runs::PATIENCE),
                None => Some(PATIENCE_WITH_USERS).filter(|_| owner != ROOT),
            };
            let patterns = self.settings.patterns.clone();
            let making = Making { patterns, identity: identity(owner)?, leave_within };
            let mut spec = making.service(declared)?;
            if let Some(run) = run {
                run.fit(&mut spec);
            }
            Ok((declared.name.value.clone(), spec))
        };
        draft.declarations.services.iter().map(spec).collect()
    }

    /// What is in force.
    pub(crate) const fn state(&self) -> &State<N> {
        &self.state
    }

    /// What carries it out.
    pub const fn force(&self) -> &F {
        &self.force
    }

    pub(crate) const fn force_mut(&mut self) -> &mut F {
        &mut self.force
    }

    /// What does not change.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What filters are called.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// How many policies have been in force.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Why a change did not come into force that nobody had asked for.
    pub fn overdue(&self) -> Option<&str> {
        self.overdue.as_deref()
    }

    /// The end: what carries it out is handed back.
    pub fn into_force(self) -> F {
        self.force
    }
}

/// Whether the piece of a number is asked for.
fn is_of(ledger: &Ledger, asked_for: impl Fn(&Piece) -> bool) -> impl Fn(usize) -> bool {
    move |index| ledger.pieces().get(index).is_some_and(|piece| asked_for(piece))
}

/// Services of users run as these; those of root as users of their own.
fn identity(owner: u32) -> Result<Option<Identity>, Failure> {
    match owner {
        ROOT => Ok(None),
        uid => Identity::with_uid(uid)
            .map(Some)
            .map_err(|error| Failure::new(Code::NotAllowed, error.to_string())),
    }
}

fn words(target: &Target) -> String {
    match target {
        Target::Number(number) => format!("number {number} among what was added"),
        Target::Filter(name) => format!("filter {name:?}"),
        Target::Service(name) => format!("service {name:?}"),
        Target::Sublayer(name) => format!("sublayer {name:?}"),
    }
}

impl<N> State<N> {
    fn declaring(&self, target: &Target, name: &str) -> Option<&Arc<Piece>> {
        let declarations = &self.standing.as_ref()?.declarations;
        let mut services = declarations.services.iter().map(|service| &service.name);
        let mut sublayers = declarations.sublayers.iter().map(|sublayer| &sublayer.name);
        let mut filters = declarations.filters.iter().filter_map(|filter| filter.name.as_ref());
        let is_it = |declared: &&waylay_config::Located<String>| declared.value == name;
        let found = match target {
            Target::Number(_) => None,
            Target::Service(_) => services.find(is_it),
            Target::Sublayer(_) => sublayers.find(is_it),
            Target::Filter(_) => filters.find(is_it),
        };
        self.ledger.piece_at(&found?.span)
    }

    /// How much a text declares.
    fn declared_in(&self, piece: &Arc<Piece>) -> usize {
        let Some(standing) = &self.standing else { return 0 };
        let services = standing.declarations.services.iter().map(|service| &service.name.span);
        let sublayers = standing.declarations.sublayers.iter().map(|sublayer| &sublayer.name.span);
        let filters = standing.declarations.filters.iter().map(|filter| &filter.span);
        let is_there =
            |span: &&waylay_config::Span| self.ledger.piece_at(span).is_some_and(|at| Arc::ptr_eq(at, piece));
        services.chain(sublayers).chain(filters).filter(is_there).count()
    }
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        let message = format!("the policy would not hold together: {wrong}");
        Self { code: Code::Wrong, message, diagnostics: wrong.findings, rendered: wrong.words }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        if let RunError::Enclosure(error) = error {
            return error.into();
        }
        Self::new(Code::Failed, with_causes(&error))
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(Code::Failed, with_causes(&error))
    }
}

impl From<DeclaredError> for Failure {
    fn from(error: DeclaredError) -> Self {
        Self::new(Code::Wrong, error.to_string())
    }
}

/// An error and what it comes from, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
