//! The control codes over memory that somebody else vouches for: what an
//! interface for C is made of. Rust programs have
//! [`query_redirect_records`](crate::query_redirect_records) and its neighbours.

mod sys;

pub use super::query::Query;
pub use sys::{query, set_records};

use std::os::fd::BorrowedFd;

use waylay_abi as abi;

use super::{datagrams::select_flow, sys as options};
use crate::{datagrams::FlowPath, error::QueryError};

/// Asks about the flow of a datagram that came in at a service's socket.
///
/// # Errors
/// [`QueryError::NotRedirected`] if there is none; see [`QueryError`].
pub fn query_datagram(socket: BorrowedFd<'_>, path: FlowPath, query: Query) -> Result<Vec<u8>, QueryError> {
    select_flow(&socket, path)?;
    let mut answer = vec![0; query.size()];
    let got = options::get_option(socket, abi::SOL_WAYLAY, query.option(), &mut answer);
    let got = query.checked(got.map_err(QueryError::from))?;
    answer.truncate(got);
    Ok(answer)
}
