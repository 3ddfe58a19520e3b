//! The control codes over memory that somebody else vouches for: what an
//! interface for C is made of. Rust programs have
//! [`query_redirect_records`](crate::query_redirect_records) and its neighbours.

mod sys;

pub use super::query::Query;
pub use sys::{query, set_records};
