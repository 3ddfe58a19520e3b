//! What is asked of a socket, at once or once its connection is there.

use std::os::fd::BorrowedFd;

use waylay::{QueryError, control::Query};

use crate::{code::Code, sys::caller::Region};

/// What is asked of a socket, and where the answer goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) query: Query,
    pub(crate) output: Region,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// Bytes that the answer needs, where there were fewer.
    pub(crate) needed: Option<u32>,
    /// The connection is still being established.
    pub(crate) connecting: bool,
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self { code, needed: None, connecting: false }
    }
}

impl Question {
    pub(crate) fn ask(self, socket: BorrowedFd<'_>) -> Result<u32, Failure> {
        self.output.query(socket, self.query).map(bytes).map_err(|error| {
            let needed =
                if let QueryError::ShortBuffer { needed } = error { Some(bytes(needed)) } else { None };
            let connecting = matches!(error, QueryError::Connecting);
            Failure { code: (&error).into(), needed, connecting }
        })
    }
}

pub(crate) fn bytes(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
