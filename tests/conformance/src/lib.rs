//! Connection redirection as Windows has it, told in vectors: short scripts of
//! steps and what has to come of each, in `vectors/*.json`.
//!
//! A [`Subject`] carries the steps out, [`run`] compares. What a subject cannot do
//! it names, with the reason, and the vectors that need it are reported as not
//! applicable to it: each subject's test asserts that list, so that none is left
//! out by accident. Nothing here knows an operating system, except that
//! `windows` is for one; the subjects for Linux are in `tests/linux`.

pub mod memory;
mod runner;
mod vector;
#[cfg(windows)]
pub mod windows;

pub use runner::{Failure, Outcome, Subject, System, run, run_all};
pub use vector::{
    Action, Ancillary, Answer, Code, Deviation, Family, Need, Overlapped, Place, Step, Target, Vector,
    VectorError, vectors,
};
