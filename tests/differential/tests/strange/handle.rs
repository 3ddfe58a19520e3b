//! A key of 32 bytes, a byte that says how much of the handle to make genuine, and the handle.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};
use waylay_abi::{ABI_VERSION, Handle, HandleKey};
use waylay_differential::judge_handle;
use zerocopy::{FromZeros, IntoBytes};

const GENUINE: i32 = 0;
const MALFORMED: i32 = 1;
const OF_ANOTHER_INSTANCE: i32 = 2;
const ALTERED: i32 = 3;

/// The header's verdict is that of its definition, made here of another SipHash.
pub(crate) fn check(bytes: &[u8]) {
    let mut key = HandleKey::new_zeroed();
    let bytes = fill(key.as_mut_bytes(), bytes);
    let (&genuine, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let mut handle = Handle::new_zeroed();
    fill(handle.as_mut_bytes(), bytes);
    forge(&mut handle, &key, genuine);
    let verdict = judge_handle(&key, &handle);
    assert_eq!(verdict, by_definition(&key, &handle), "{handle:?}");
    if verdict == GENUINE {
        one_bit_more(&key, handle, bytes);
    }
}

fn fill<'b>(target: &mut [u8], bytes: &'b [u8]) -> &'b [u8] {
    let length = target.len().min(bytes.len());
    target[..length].copy_from_slice(&bytes[..length]);
    &bytes[length..]
}

/// Fuzzing would not find a tag of its own: a bit for each part that is made right.
fn forge(handle: &mut Handle, key: &HandleKey, genuine: u8) {
    if genuine & 1 != 0 {
        (handle.version, handle.size) = (ABI_VERSION, size_of::<Handle>() as u32);
    }
    if genuine & 2 != 0 {
        (handle.boot, handle.instance) = (key.boot, key.instance);
    }
    if genuine & 4 != 0 {
        handle.tag = tag(key, handle);
    }
}

fn by_definition(key: &HandleKey, handle: &Handle) -> i32 {
    if handle.version != ABI_VERSION || handle.size as usize != size_of::<Handle>() {
        MALFORMED
    } else if (handle.boot, handle.instance) != (key.boot, key.instance) {
        OF_ANOTHER_INSTANCE
    } else if handle.tag == tag(key, handle) {
        GENUINE
    } else {
        ALTERED
    }
}

fn tag(key: &HandleKey, handle: &Handle) -> [u64; 2] {
    let mut hasher = SipHasher24::new_with_keys(key.k0, key.k1);
    let bytes = handle.as_bytes();
    hasher.write(&bytes[..bytes.len() - size_of_val(&handle.tag)]);
    let tag = hasher.finish128();
    [tag.h1, tag.h2]
}

/// A genuine handle with any one bit turned is none.
fn one_bit_more(key: &HandleKey, mut handle: Handle, bytes: &[u8]) {
    let bit = bytes.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)))
        % (8 * size_of::<Handle>());
    handle.as_mut_bytes()[bit / 8] ^= 1 << (bit % 8);
    assert_ne!(judge_handle(key, &handle), GENUINE, "bit {bit} of {handle:?}");
}
