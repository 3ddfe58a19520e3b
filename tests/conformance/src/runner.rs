use std::{collections::BTreeMap, fmt};

use crate::vector::{Action, Answer, Need, Step, Vector};

/// An implementation that vectors are put to.
pub trait Subject {
    /// Who redirects here.
    fn system(&self) -> System;

    /// Why it cannot do something; nothing if it can.
    fn lacks(&self, need: Need) -> Option<&'static str>;

    /// Begins anew with these redirectors, in this order. Each redirects all that it may.
    ///
    /// # Panics
    /// Where that fails, there is nothing to compare.
    fn set_scene(&mut self, redirectors: &[String]);

    /// Does it, and says what came of it.
    ///
    /// # Panics
    /// As for [`set_scene`](Self::set_scene); also if the action belongs to something it said it lacks.
    fn perform(&mut self, action: &Action) -> Answer;
}

/// Who redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// An engine of this project.
    Waylay,
    /// Windows' Filtering Platform, with somebody's driver.
    Windows,
}

/// What became of a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything came as it had to.
    Passed,
    /// The same, except for the states, which the subject cannot be asked for.
    PassedButForStates {
        /// Why.
        reason: &'static str,
    },
    /// The subject cannot be put to it.
    NotApplicable {
        /// What it lacks.
        need: Need,
        /// Why.
        reason: &'static str,
    },
    /// Something came otherwise.
    Failed(Failure),
}

/// The first step that came otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which, from 1 on.
    pub number: usize,
    /// What was done.
    pub action: Action,
    /// What had to come of it.
    pub expected: Answer,
    /// What came.
    pub got: Answer,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, action, expected, got } = self;
        write!(f, "step {number}, {action:?}: {expected:?} was expected, and {got:?} came")
    }
}

/// Puts a subject to a vector.
pub fn run(vector: &Vector, subject: &mut dyn Subject) -> Outcome {
    let lacking = vector.needs.iter().find_map(|&need| Some((need, subject.lacks(need)?)));
    if let Some((need, reason)) = lacking {
        return Outcome::NotApplicable { need, reason };
    }
    let stateless = subject.lacks(Need::States);
    let is_left_out = |step: &Step| stateless.is_some() && matches!(step.action, Action::State { .. });
    subject.set_scene(&vector.redirectors);
    for (number, step) in (1..).zip(&vector.steps).filter(|(_, step)| !is_left_out(step)) {
        let expected = expected(step, subject.system());
        let got = subject.perform(&step.action);
        if got != *expected {
            let (action, expected) = (step.action.clone(), expected.clone());
            return Outcome::Failed(Failure { number, action, expected, got });
        }
    }
    match stateless {
        Some(reason) if vector.steps.iter().any(is_left_out) => Outcome::PassedButForStates { reason },
        Some(_) | None => Outcome::Passed,
    }
}

fn expected(step: &Step, system: System) -> &Answer {
    match (system, &step.on_waylay) {
        (System::Waylay, Some(deviation)) => &deviation.expect,
        (System::Waylay, None) | (System::Windows, _) => &step.expect,
    }
}

/// Puts a subject to every vector, and returns what of them is not applicable to it, with the reasons:
/// `T7` is a whole vector, `T4, states` a part of one.
///
/// # Panics
/// If a vector fails: with each failure, after all have run.
pub fn run_all(vectors: &[Vector], subject: &mut dyn Subject) -> BTreeMap<String, &'static str> {
    let mut failures = Vec::new();
    let mut not_applicable = BTreeMap::new();
    for vector in vectors {
        match run(vector, subject) {
            Outcome::Passed => eprintln!("{}: passed: {}", vector.id, vector.says),
            Outcome::PassedButForStates { reason } => {
                eprintln!("{}: passed, without the states: {reason}", vector.id);
                not_applicable.insert(format!("{}, states", vector.id), reason);
            }
            Outcome::NotApplicable { need, reason } => {
                eprintln!("{}: not applicable here ({need:?}): {reason}", vector.id);
                not_applicable.insert(vector.id.clone(), reason);
            }
            Outcome::Failed(failure) => failures.push(format!("{}: {failure}", vector.id)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    not_applicable
}
