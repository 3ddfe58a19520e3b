//! The control codes over memory that somebody else vouches for: what an
//! interface for C is made of. Rust programs have
//! [`query_redirect_records`](crate::query_redirect_records) and its neighbours.

use waylay_abi as abi;

pub use super::sys::{query, set_records};

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
}
