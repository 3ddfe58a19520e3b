//! The pure headers of the kernel programs, callable from tests. Nothing here
//! has a meaning of its own: the tests compare it with `waylay-core`.

mod sys;

pub use sys::{
    Answer, Leg, MAX_RECORDS, People, Who, Words, classify_auth, classify_redirect, is_group, judge_handle,
    judge_socket, leg_size, read_answer, recognises, siphash128,
};
