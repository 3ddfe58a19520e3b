//! What is declared, by whom, and for how long. Pure: a change makes another ledger, and the one before is still there.

use std::{collections::BTreeSet, fmt, sync::Arc};

use waylay_config::{Sources, Span};

use crate::{authority::prefix, protocol::Terms};

/// The user who may all.
pub const ROOT: u32 = 0;

/// A connection to the daemon; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What was added at once; numbers are never used again while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(pub u64);

/// How long something is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lifetime {
    /// Until the connection ends by which it was added.
    Session(SessionId),
    /// Until the daemon stops.
    Daemon,
    /// Until somebody removes it.
    Persistent,
    /// The same, of filters that are in force before there is a daemon and not while there is one.
    Boot,
}

/// Where a text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is a file of the policy, which is root's.
    File,
    /// It was added while the daemon ran.
    Added {
        /// As what.
        number: Number,
        /// By which user.
        owner: u32,
        /// For how long.
        lifetime: Lifetime,
    },
}

/// A text in the form of policy files, which is part of the whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// Another one for each text, never used again.
    pub id: u64,
    /// For people: a file's path, or who added it.
    pub name: String,
    /// What it says.
    pub text: Arc<str>,
    /// Where it comes from.
    pub origin: Origin,
    /// Of whose run it is a part, if it is.
    pub run: Option<Arc<RunOf>>,
}

/// A run at the daemon: what its texts say is for the processes in one cgroup.
#[derive(Debug, PartialEq, Eq)]
pub struct RunOf {
    /// Never used again while the daemon runs.
    pub number: u64,
    /// Whose it is.
    pub uid: u32,
    /// What that user is called.
    pub user: String,
    /// Its cgroup, as a path below the root of the hierarchy.
    pub cgroup: String,
    /// What its texts do not say.
    pub terms: Terms,
}

impl RunOf {
    /// What its names begin with; nobody else's do.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}{}.", prefix(self.uid), self.number)
    }

    /// Whose it is, for people.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!("{}'s run {}", self.user, self.number)
    }
}

/// All texts: the files first, then what was added, in the order in which it was.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pieces: Vec<Arc<Piece>>,
    next_id: u64,
    next_number: u64,
}

impl Lifetime {
    /// Whether whatever has this lifetime may rely on what has another one: it must not be left without it.
    #[must_use]
    pub fn may_rely_on(self, other: Self) -> bool {
        match (self, other) {
            (_, Self::Persistent) | (Self::Session(_) | Self::Daemon, Self::Daemon) => true,
            (Self::Session(own), Self::Session(other)) => own == other,
            (Self::Daemon | Self::Persistent | Self::Boot, Self::Session(_))
            | (Self::Persistent | Self::Boot, Self::Daemon)
            | (_, Self::Boot) => false,
        }
    }

    /// Whether it is kept when the daemon ends.
    #[must_use]
    pub const fn is_kept(self) -> bool {
        match self {
            Self::Session(_) | Self::Daemon => false,
            Self::Persistent | Self::Boot => true,
        }
    }
}

impl Origin {
    /// Whose it is.
    #[must_use]
    pub const fn owner(&self) -> u32 {
        match self {
            Self::File => ROOT,
            Self::Added { owner, .. } => *owner,
        }
    }

    /// For how long it is; files stay.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        match self {
            Self::File => Lifetime::Persistent,
            Self::Added { lifetime, .. } => *lifetime,
        }
    }

    /// The number of what was added.
    #[must_use]
    pub const fn number(&self) -> Option<Number> {
        match self {
            Self::File => None,
            Self::Added { number, .. } => Some(*number),
        }
    }
}

impl Ledger {
    /// Every text, in the order in which they are read.
    #[must_use]
    pub fn pieces(&self) -> &[Arc<Piece>] {
        &self.pieces
    }

    /// The same texts as [`Sources`], number for number.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        self.pieces.iter().for_each(|piece| sources.add(&piece.name, Arc::clone(&piece.text)));
        sources
    }

    /// The text in which a place is.
    #[must_use]
    pub fn piece_at(&self, span: &Span) -> Option<&Arc<Piece>> {
        self.pieces.get(span.source())
    }

    /// What was added as this number.
    #[must_use]
    pub fn added(&self, number: Number) -> Option<&Arc<Piece>> {
        self.pieces.iter().find(|piece| piece.origin.number() == Some(number))
    }

    /// Takes these files, by name and text, in the place of those there are; one that is the same stays the same piece.
    pub fn set_files(&mut self, files: Vec<(String, String)>) {
        let (mut former, added): (Vec<_>, Vec<_>) =
            self.pieces.drain(..).partition(|piece| piece.origin == Origin::File);
        for (name, text) in files {
            let same = former.iter().position(|piece| piece.name == name && *piece.text == *text);
            let piece = match same {
                Some(index) => former.swap_remove(index),
                None => {
                    self.next_id += 1;
                    let text = text.into();
                    Arc::new(Piece { id: self.next_id, name, text, origin: Origin::File, run: None })
                }
            };
            self.pieces.push(piece);
        }
        self.pieces.extend(added);
    }

    /// Adds a text; `who` is what its owner is called.
    pub fn add(&mut self, owner: u32, who: &str, lifetime: Lifetime, text: String) -> Number {
        let number = Number(self.next_number.max(1));
        let name = format!("added by {who} ({number})");
        self.put(number, owner, name, lifetime, text, None);
        number
    }

    /// Adds a text of a run, under its own name.
    pub fn add_to_run(&mut self, run: &Arc<RunOf>, session: SessionId, name: String, text: String) {
        let number = Number(self.next_number.max(1));
        self.put(number, run.uid, name, Lifetime::Session(session), text, Some(Arc::clone(run)));
    }

    /// Adds a text of an earlier time again, as the number that it had. Texts of greater numbers come later.
    pub fn add_again(&mut self, number: Number, lifetime: Lifetime, text: String) {
        let name = format!("added by root ({number})");
        self.put(number, ROOT, name, lifetime, text, None);
    }

    fn put(
        &mut self,
        number: Number,
        owner: u32,
        name: String,
        lifetime: Lifetime,
        text: String,
        run: Option<Arc<RunOf>>,
    ) {
        self.next_number = self.next_number.max(number.0 + 1);
        self.next_id += 1;
        let origin = Origin::Added { number, owner, lifetime };
        let text = text.into();
        self.pieces.push(Arc::new(Piece { id: self.next_id, name, text, origin, run }));
    }

    /// Removes what was added as this number; whether there was something.
    pub fn remove(&mut self, number: Number) -> bool {
        let before = self.pieces.len();
        self.pieces.retain(|piece| piece.origin.number() != Some(number));
        self.pieces.len() < before
    }

    /// Removes what was to end with a session; whether there was something.
    pub fn end_session(&mut self, session: SessionId) -> bool {
        let before = self.pieces.len();
        self.pieces.retain(|piece| piece.origin.lifetime() != Lifetime::Session(session));
        self.pieces.len() < before
    }

    /// Gives numbers and ids to nothing that another ledger has given them to, kept or not.
    pub fn skip_those_of(&mut self, other: &Self) {
        self.next_id = self.next_id.max(other.next_id);
        self.next_number = self.next_number.max(other.next_number);
    }

    /// The users who are not root and have added something.
    #[must_use]
    pub fn guests(&self) -> BTreeSet<u32> {
        self.pieces.iter().map(|piece| piece.origin.owner()).filter(|owner| *owner != ROOT).collect()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId(1);
    const OTHER: SessionId = SessionId(2);

    fn names(ledger: &Ledger) -> Vec<&str> {
        ledger.pieces().iter().map(|piece| piece.name.as_str()).collect()
    }

    fn files(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn files_come_first_and_what_was_added_in_its_order() {
        let mut ledger = Ledger::default();
        let first = ledger.add(1000, "alice", Lifetime::Session(ONE), "a".into());
        ledger.set_files(files(&[("policy.toml", "p")]));
        let second = ledger.add(ROOT, "root", Lifetime::Daemon, "b".into());
        assert_eq!(names(&ledger), ["policy.toml", "added by alice (1)", "added by root (2)"]);
        assert!(ledger.remove(first) && !ledger.remove(first));
        assert_eq!(ledger.add(ROOT, "root", Lifetime::Daemon, "c".into()), Number(second.0 + 1));
    }

    #[test]
    fn a_file_that_is_the_same_stays_the_same_piece() {
        let mut ledger = Ledger::default();
        ledger.set_files(files(&[("policy.toml", "p"), ("conf.d/a.toml", "a")]));
        let ids = |ledger: &Ledger| ledger.pieces().iter().map(|piece| piece.id).collect::<Vec<_>>();
        let before = ids(&ledger);
        ledger.set_files(files(&[("policy.toml", "q"), ("conf.d/a.toml", "a")]));
        let after = ids(&ledger);
        assert_eq!(before[1], after[1]);
        assert!(!before.contains(&after[0]));
    }

    #[test]
    fn a_session_takes_with_it_what_is_its_own() {
        let mut ledger = Ledger::default();
        ledger.add(1000, "alice", Lifetime::Session(ONE), "a".into());
        ledger.add(ROOT, "root", Lifetime::Session(OTHER), "b".into());
        ledger.add(ROOT, "root", Lifetime::Daemon, "c".into());
        assert!(ledger.end_session(ONE));
        assert_eq!(names(&ledger), ["added by root (2)", "added by root (3)"]);
        assert!(!ledger.end_session(ONE));
    }

    #[test]
    fn numbers_go_on_after_those_of_an_earlier_time_and_of_changes_that_failed() {
        let mut ledger = Ledger::default();
        ledger.add_again(Number(7), Lifetime::Persistent, "a".into());
        let mut failed = ledger.clone();
        assert_eq!(failed.add(ROOT, "root", Lifetime::Daemon, "b".into()), Number(8));
        ledger.skip_those_of(&failed);
        assert_eq!(ledger.add(ROOT, "root", Lifetime::Daemon, "c".into()), Number(9));
    }

    #[test]
    fn nothing_relies_on_what_may_go_before_it() {
        let all = [Lifetime::Persistent, Lifetime::Daemon, Lifetime::Session(ONE), Lifetime::Session(OTHER)];
        let table = all.map(|own| all.map(|other| own.may_rely_on(other)));
        assert_eq!(
            table,
            [
                [true, false, false, false],
                [true, true, false, false],
                [true, true, true, false],
                [true, true, false, true],
            ]
        );
    }
}
