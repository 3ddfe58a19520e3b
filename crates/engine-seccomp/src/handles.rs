//! Handles on flows, which only this engine can make: the same bytes, checked in the same order, as the kernel's.

use std::{hash::Hasher, io};

use rustix::rand::{GetRandomFlags, getrandom};
use siphasher::sip128::{Hasher128, SipHasher24};
use waylay_abi::{ABI_VERSION, Handle};
use zerocopy::{FromBytes, IntoBytes};

/// The key of one engine, and its names.
#[derive(Debug)]
pub(crate) struct Handles {
    key: [u64; 2],
    boot: u64,
    instance: u64,
}

impl Handles {
    pub(crate) fn new() -> io::Result<Self> {
        let mut random = [0_u64; 4];
        getrandom(random.as_mut_bytes(), GetRandomFlags::empty())?;
        let [k0, k1, boot, instance] = random;
        Ok(Self { key: [k0, k1], boot, instance })
    }

    pub(crate) fn make(&self, flow: u64) -> Handle {
        let mut handle = Handle {
            version: ABI_VERSION,
            size: size_of::<Handle>() as u32,
            boot: self.boot,
            instance: self.instance,
            flow,
            tag: [0; 2],
        };
        handle.tag = self.tag(&handle);
        handle
    }

    /// The flow that a handle names, or the errno that refuses it.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<u64, i32> {
        let handle = Handle::read_from_bytes(bytes).map_err(|_size| libc::EINVAL)?;
        if handle.version != ABI_VERSION || handle.size as usize != size_of::<Handle>() {
            return Err(libc::EINVAL);
        }
        if (handle.boot, handle.instance) != (self.boot, self.instance) {
            return Err(libc::EKEYEXPIRED);
        }
        if handle.tag != self.tag(&handle) {
            return Err(libc::EKEYREJECTED);
        }
        Ok(handle.flow)
    }

    fn tag(&self, handle: &Handle) -> [u64; 2] {
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        hasher.write(&handle.as_bytes()[..size_of::<Handle>() - size_of_val(&handle.tag)]);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_here_is_accepted() {
        let handles = Handles::new().unwrap();
        let handle = handles.make(7);
        assert_eq!(handles.check(handle.as_bytes()), Ok(7));
        assert_eq!(Handles::new().unwrap().check(handle.as_bytes()), Err(libc::EKEYEXPIRED));
        assert_eq!(handles.check(&handle.as_bytes()[1..]), Err(libc::EINVAL));
        assert_eq!(handles.check(Handle { flow: 8, ..handle }.as_bytes()), Err(libc::EKEYREJECTED));
        assert_eq!(handles.check(Handle { version: 1, ..handle }.as_bytes()), Err(libc::EINVAL));
    }

    #[test]
    fn no_bit_of_a_handle_can_be_changed() {
        let handles = Handles::new().unwrap();
        let genuine = handles.make(1);
        for bit in 0..8 * size_of::<Handle>() {
            let mut bytes = genuine.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(handles.check(&bytes).is_err(), "bit {bit}");
        }
    }
}
