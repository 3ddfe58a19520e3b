//! Answers of the kernel and an environment of any content: for fuzzing, and for the tests that go on from it.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "it is reached by the targets in `fuzz` only"))]

use std::net::SocketAddr;

use waylay_abi as abi;
use waylay_core::{Chain, MAX_HOPS, ServiceId, ServiceSet, state};
use zerocopy::{FromZeros, IntoBytes};

use super::{handover::Handover, options::read_sockaddr};
use crate::context::{ChainHop, RedirectContext};

/// An answer to each question, made of the same bytes. What is understood can be shown.
pub fn answers(bytes: &[u8]) {
    context(bytes);
    chain(bytes);
    match read_sockaddr(bytes) {
        Some(SocketAddr::V4(address)) => assert_eq!(address.ip().octets(), bytes[4..8]),
        Some(SocketAddr::V6(address)) => assert_eq!(address.ip().octets(), bytes[8..24]),
        None => {}
    }
}

/// As much of an answer as there is; the rest is zero.
fn filled<T: FromZeros + IntoBytes + zerocopy::FromBytes>(bytes: &[u8]) -> T {
    let mut answer = T::new_zeroed();
    let length = bytes.len().min(size_of::<T>());
    answer.as_mut_bytes()[..length].copy_from_slice(&bytes[..length]);
    answer
}

fn context(bytes: &[u8]) {
    let answer: abi::Context = filled(bytes);
    let context = RedirectContext::from(answer);
    let shown = context.application().to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    assert!(!context.application().path.contains('\0') && !context.application().command.contains('\0'));
    let destination = context.original_destination();
    assert!(!matches!(destination, SocketAddr::V6(address) if address.ip().to_ipv4_mapped().is_some()));
    assert!(context.source().is_none_or(|source| !source.is_unspecified() || source.is_ipv4()));
}

fn chain(bytes: &[u8]) {
    let answer: abi::NamedChain = filled(bytes);
    let hops: Vec<ChainHop> = answer.hops().iter().map(ChainHop::from).collect();
    assert!(hops.len() <= MAX_HOPS);
    assert!(hops.iter().all(|hop| !hop.service.contains('\0')));
    let ids = hops.iter().map(ChainHop::id).collect();
    let chain = Chain::new(ids, ServiceSet::default(), None).unwrap_or_else(|error| panic!("{error}"));
    for hop in &hops {
        let _it_is_some_state = state(ServiceId(hop.service_id), &chain);
    }
}

/// `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID`, with a line feed between them; the variable is not there if
/// its line is not.
pub fn environment(bytes: &[u8]) {
    const OWN_PID: u32 = 7;
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n').map(str::to_owned);
    let handover = Handover::new(lines.next(), lines.next(), lines.next());
    let count = handover.all().len();
    if let Ok(descriptors) = handover.tcp_listeners(OWN_PID) {
        assert!(!descriptors.is_empty() && descriptors.len() <= count, "{handover:?}");
        assert!(descriptors.iter().all(|descriptor| handover.all().contains(descriptor)), "{handover:?}");
    }
}

#[cfg(test)]
mod tests {
    use waylay_corpus::replay;

    #[test]
    fn no_answer_is_too_strange() {
        replay("answers", super::answers);
    }

    #[test]
    fn no_environment_is_too_strange() {
        replay("environment", super::environment);
    }
}
