//! Frames of any content, in a packet that is protected as it should be: what a fuzzer would never come to by
//! changing a packet.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "it is reached by the target in `fuzz` only"))]

use super::{Finding, FirstFlight, Protocol, keys::Keys, packet::Version};

const ID: [u8; 8] = [7; 8];
/// Frames that a packet holds.
const MOST_BYTES: usize = 1150;

/// Gives the bytes as the frames of as many packets as they take: it is QUIC, and what is found may be shown.
pub fn frames(bytes: &[u8]) {
    let keys = Keys::of_client(Version::One, &ID);
    let mut flight = FirstFlight::default();
    for (number, frames) in bytes.chunks(MOST_BYTES).enumerate() {
        // Padded, or there is no sample to take.
        let frames = [frames, &[0; 4]].concat();
        let packet = keys.seal([0, 0, 0, 1], &ID, number as u8, &frames);
        match flight.read(&packet) {
            Finding::Open(protocol) => assert_eq!(protocol, Protocol::Quic),
            Finding::Final(protocol, host) => {
                assert_eq!(protocol, Protocol::Quic);
                assert!(host.is_none_or(|host| host.bytes().all(|byte| byte.is_ascii_graphic())));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use waylay_corpus::replay;

    #[test]
    fn no_frames_are_too_strange() {
        replay("quic", super::frames);
    }
}
