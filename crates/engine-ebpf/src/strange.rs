//! Frames of the ring buffer of any content and length: for fuzzing, and for the tests that go on from it.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "it is reached by the targets in `fuzz` only"))]

use waylay_core::Event;

use crate::event::decode;

/// What is taken for an event has a frame's length, and can be shown.
///
/// # Panics
/// If not.
pub fn frames(bytes: &[u8]) {
    let Some(event) = decode(bytes) else { return };
    let length = match event {
        Event::Refused { .. } | Event::LeftAlone { .. } => size_of::<waylay_abi::Event>(),
        Event::SocketRefused { .. } => size_of::<waylay_abi::SocketEvent>(),
        Event::Redirected { .. } | Event::Ended { .. } | Event::Dropped { .. } | Event::Lost { .. } => {
            panic!("{event:?}")
        }
    };
    assert_eq!(bytes.len(), length);
    let shown = event.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_frame_is_too_strange() {
        waylay_corpus::replay("frames", super::frames);
    }
}
