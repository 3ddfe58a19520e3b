//! What an accepted socket can be asked for as bytes.

use waylay_abi as abi;

use crate::error::QueryError;

/// What an accepted socket can be asked for as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// `SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS`.
    Records,
    /// `SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT`.
    Context,
}

impl Query {
    pub(crate) fn option(self) -> i32 {
        match self {
            Self::Records => abi::QUERY_RECORDS,
            Self::Context => abi::QUERY_CONTEXT,
        }
    }

    /// Bytes of an answer of the version that this library knows.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Records => size_of::<abi::Handle>(),
            Self::Context => size_of::<abi::Context>(),
        }
    }

    /// Takes an answer, or a want, of another size for one of another version.
    pub(crate) fn checked(self, result: Result<usize, QueryError>) -> Result<usize, QueryError> {
        match result {
            Ok(got) | Err(QueryError::ShortBuffer { needed: got }) if got != self.size() => {
                Err(QueryError::OtherVersion { expected: self.size(), got })
            }
            Ok(_) | Err(_) => result,
        }
    }
}
