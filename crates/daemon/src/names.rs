//! What names came to, so that it is noticed when they come to something else.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr};

use waylay_config::{
    Names,
    declaration::{ExePattern, UnitName},
};
use waylay_core::{FileId, Namespace};

/// Asks each name once, and remembers.
pub struct Remembered<N> {
    names: N,
    answers: RefCell<HashMap<Question, Answer>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    User(String),
    Group(String),
    Executables(ExePattern),
    Cgroup(String),
    Unit(UnitName),
    Container(String),
    Namespace(String),
    Resolvers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Account(Option<u32>),
    Files(Vec<FileId>),
    Cgroups(Vec<u64>),
    Namespace(Option<Namespace>),
    Resolvers(Vec<SocketAddr>),
}

impl<N: Names> Remembered<N> {
    /// Nothing yet.
    pub fn new(names: N) -> Self {
        Self { names, answers: RefCell::default() }
    }

    /// Whether something that was asked would be answered otherwise now.
    pub fn has_changed(&self) -> bool {
        self.answers.borrow().iter().any(|(question, answer)| self.answer(question) != *answer)
    }

    fn ask(&self, question: Question) -> Answer {
        if let Some(answer) = self.answers.borrow().get(&question) {
            return answer.clone();
        }
        let answer = self.answer(&question);
        self.answers.borrow_mut().insert(question, answer.clone());
        answer
    }

    fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::User(name) => Answer::Account(self.names.user(name)),
            Question::Group(name) => Answer::Account(self.names.group(name)),
            Question::Executables(pattern) => Answer::Files(self.names.executables(pattern)),
            Question::Cgroup(path) => Answer::Cgroups(self.names.cgroup(path).into_iter().collect()),
            Question::Unit(unit) => Answer::Cgroups(self.names.unit(unit)),
            Question::Container(id) => Answer::Cgroups(self.names.container(id)),
            Question::Namespace(path) => Answer::Namespace(self.names.namespace(path)),
            Question::Resolvers => Answer::Resolvers(self.names.resolvers()),
        }
    }
}

impl Answer {
    fn account(self) -> Option<u32> {
        match self {
            Self::Account(account) => account,
            Self::Files(_) | Self::Cgroups(_) | Self::Namespace(_) | Self::Resolvers(_) => None,
        }
    }

    fn cgroups(self) -> Vec<u64> {
        match self {
            Self::Cgroups(cgroups) => cgroups,
            Self::Account(_) | Self::Files(_) | Self::Namespace(_) | Self::Resolvers(_) => Vec::new(),
        }
    }
}

impl<N: Names> Names for Remembered<N> {
    fn user(&self, name: &str) -> Option<u32> {
        self.ask(Question::User(name.to_owned())).account()
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.ask(Question::Group(name.to_owned())).account()
    }

    fn executables(&self, pattern: &ExePattern) -> Vec<FileId> {
        match self.ask(Question::Executables(pattern.clone())) {
            Answer::Files(files) => files,
            Answer::Account(_) | Answer::Cgroups(_) | Answer::Namespace(_) | Answer::Resolvers(_) => {
                Vec::new()
            }
        }
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        self.ask(Question::Cgroup(path.to_owned())).cgroups().first().copied()
    }

    fn unit(&self, unit: &UnitName) -> Vec<u64> {
        self.ask(Question::Unit(unit.clone())).cgroups()
    }

    fn container(&self, id: &str) -> Vec<u64> {
        self.ask(Question::Container(id.to_owned())).cgroups()
    }

    fn namespace(&self, path: &str) -> Option<Namespace> {
        match self.ask(Question::Namespace(path.to_owned())) {
            Answer::Namespace(namespace) => namespace,
            Answer::Account(_) | Answer::Files(_) | Answer::Cgroups(_) | Answer::Resolvers(_) => None,
        }
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        match self.ask(Question::Resolvers) {
            Answer::Resolvers(resolvers) => resolvers,
            Answer::Account(_) | Answer::Files(_) | Answer::Cgroups(_) | Answer::Namespace(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Knows one user, and counts who asks.
    #[derive(Default)]
    struct Host {
        alice: Cell<Option<u32>>,
        asked: Cell<u32>,
    }

    impl Names for &Host {
        fn user(&self, name: &str) -> Option<u32> {
            self.asked.set(self.asked.get() + 1);
            self.alice.get().filter(|_| name == "alice")
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
            Vec::new()
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

    #[test]
    fn a_name_is_looked_up_once_and_noticed_when_it_comes_to_something_else() {
        let host = Host::default();
        let names = Remembered::new(&host);
        assert_eq!((names.user("alice"), names.user("alice"), host.asked.get()), (None, None, 1));
        assert_eq!(names.cgroup("/a"), None);
        assert!(!names.has_changed());
        host.alice.set(Some(1000));
        assert!(names.has_changed());
        assert_eq!(names.user("alice"), None, "who asks again has to begin anew");
        assert_eq!(Remembered::new(&host).user("alice"), Some(1000));
    }
}
