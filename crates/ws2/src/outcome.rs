//! What became of an operation.

use crate::code::Code;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `None` if it succeeded.
    pub(crate) code: Option<Code>,
    /// Bytes of the answer, or those that it needs.
    pub(crate) bytes: u32,
}
