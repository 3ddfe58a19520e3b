//! The keys of a client's Initial packets (RFC 9001, section 5.2; RFC 9369, section 3.3).

use std::fmt;

use aes::{
    Aes128,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use aes_gcm::{Aes128Gcm, aead::AeadInOut};
use hkdf::Hkdf;
use sha2::Sha256;

use super::packet::{Initial, Version};

const TAG_BYTES: usize = 16;
const SAMPLE_BYTES: usize = 16;
/// The sample of the header's protection is taken as if the packet number had all of its four bytes.
const LONGEST_NUMBER: usize = 4;

const SALT_1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
    0xbb, 0x7f, 0x0a,
];
const SALT_2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9,
    0xbd, 0x2e, 0xd9,
];

/// What opens the packets that a client has protected. Nothing of it is secret.
pub(super) struct Keys {
    packet: Aes128Gcm,
    nonce: [u8; 12],
    header: Aes128,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// Those that follow from the first destination id a client has chosen.
    pub(super) fn of_client(version: Version, destination_id: &[u8]) -> Self {
        let (salt, labels) = match version {
            Version::One => (SALT_1, ["quic key", "quic iv", "quic hp"]),
            Version::Two => (SALT_2, ["quicv2 key", "quicv2 iv", "quicv2 hp"]),
        };
        let initial = Hkdf::<Sha256>::new(Some(&salt), destination_id);
        let secret: [u8; 32] = expand(&initial, "client in");
        // As long as SHA-256's own output, it cannot be too short.
        let client = Hkdf::<Sha256>::from_prk(&secret).unwrap_or(initial);
        Self {
            packet: Aes128Gcm::new(&expand::<16>(&client, labels[0]).into()),
            nonce: expand(&client, labels[1]),
            header: Aes128::new(&expand::<16>(&client, labels[2]).into()),
        }
    }

    /// The frames of a packet, if it was protected with these keys.
    pub(super) fn open(&self, initial: &Initial<'_>) -> Option<Vec<u8>> {
        let sample_at = initial.number_at + LONGEST_NUMBER;
        let sample: [u8; SAMPLE_BYTES] = *initial.bytes.get(sample_at..)?.first_chunk()?;
        let mask = self.mask(sample);
        let mut header = initial.bytes[..sample_at].to_vec();
        header[0] ^= mask[0] & 0x0f;
        let payload_at = initial.number_at + 1 + usize::from(header[0] & 3);
        header.truncate(payload_at);
        let mut number = 0;
        for (byte, mask) in header[initial.number_at..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
            number = number << 8 | u64::from(*byte);
        }
        let sealed = &initial.bytes[payload_at..];
        let (payload, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG_BYTES)?)?;
        let mut payload = payload.to_vec();
        let tag = <[u8; TAG_BYTES]>::try_from(tag).ok()?.into();
        let nonce = self.nonce(number).into();
        self.packet.decrypt_inout_detached(&nonce, &header, payload.as_mut_slice().into(), &tag).ok()?;
        Some(payload)
    }

    /// A client's packet with these frames and a number of one byte: the other way round.
    #[cfg(any(test, fuzzing))]
    pub(super) fn seal(&self, version: [u8; 4], destination_id: &[u8], number: u8, frames: &[u8]) -> Vec<u8> {
        let first = if version == [0, 0, 0, 1] { 0xc0 } else { 0xd0 };
        let id_length = destination_id.len() as u8;
        let length = (0x4000 | (1 + frames.len() + TAG_BYTES) as u16).to_be_bytes();
        let number = [number];
        let parts: [&[u8]; 7] = [&[first], &version, &[id_length], destination_id, &[0, 0], &length, &number];
        let mut packet = parts.concat();
        let number_at = packet.len() - 1;
        let mut payload = frames.to_vec();
        let nonce = self.nonce(number[0].into()).into();
        let tag = self.packet.encrypt_inout_detached(&nonce, &packet, payload.as_mut_slice().into());
        packet.extend(payload);
        packet.extend(tag.unwrap_or_default());
        let sample = packet[number_at + LONGEST_NUMBER..].first_chunk().copied().unwrap_or_default();
        let mask = self.mask(sample);
        packet[0] ^= mask[0] & 0x0f;
        packet[number_at] ^= mask[1];
        packet
    }

    fn mask(&self, sample: [u8; SAMPLE_BYTES]) -> [u8; SAMPLE_BYTES] {
        let mut block = sample.into();
        self.header.encrypt_block(&mut block);
        block.into()
    }

    /// The number of a packet of the first flight is not longer than what is sent of it.
    fn nonce(&self, number: u64) -> [u8; 12] {
        let mut nonce = self.nonce;
        for (byte, number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }
}

/// HKDF-Expand-Label of TLS 1.3 (RFC 8446, section 7.1), without a context.
fn expand<const N: usize>(secret: &Hkdf<Sha256>, label: &str) -> [u8; N] {
    let mut output = [0; N];
    let lengths = ([0, N as u8], [6 + label.len() as u8]);
    let info: [&[u8]; 5] = [&lengths.0, &lengths.1, b"tls13 ", label.as_bytes(), &[0]];
    // It fails only beyond 255 hashes of output.
    let _long_enough = secret.expand_multi_info(&info, &mut output);
    output
}
