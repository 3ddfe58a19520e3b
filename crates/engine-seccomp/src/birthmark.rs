//! What tells that a thread still runs the program that it ran before: the sixteen random bytes that the kernel gives to each program when it is executed, at a
//! place that it chooses (`AT_RANDOM`, getauxval(3)). They are read together with what a call has in its caller's memory, which costs less than to ask which
//! file it is. Whoever shares that memory (vfork(2)) runs the same program until it executes another.
//!
//! A program that wants to be taken for the one before it may see to that, as it may by changing what /proc shows of it (`PR_SET_MM_EXE_FILE`).

use std::{fs, io};

use crate::sys;

/// `AT_RANDOM` (linux/auxvec.h).
const RANDOM: u64 = 25;

/// The bytes, and where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birthmark {
    at: u64,
    bytes: [u8; Self::LEN],
}

impl Birthmark {
    const LEN: usize = 16;

    /// That of a thread. It takes long, and several looks: if the thread has not waited for an answer all the while, it is none.
    pub(crate) fn of(tid: u32) -> io::Result<Self> {
        let entries = fs::read(format!("/proc/{tid}/auxv"))?;
        let at = place(&entries).ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = [0; Self::LEN];
        sys::read_memory(tid, at, &mut bytes)?;
        Ok(Self { at, bytes })
    }

    /// Reads memory, and whether the thread has it still. `EFAULT` if that memory is not there.
    pub(crate) fn read_beside(self, tid: u32, address: u64, into: &mut [u8]) -> io::Result<bool> {
        let mut found = [0; Self::LEN];
        Ok(sys::read_memory_and(tid, (address, into), (self.at, &mut found))? && found == self.bytes)
    }
}

fn place(entries: &[u8]) -> Option<u64> {
    let (entries, _) = entries.as_chunks::<16>();
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    entries.iter().find(|entry| number(&entry[..]) == Some(RANDOM)).and_then(|entry| number(&entry[8..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_its_own_for_as_long_as_it_runs() {
        let own = std::process::id();
        let mark = Birthmark::of(own).unwrap();
        assert_eq!(Birthmark::of(own).unwrap(), mark);
        let (there, mut here) = (*b"there", [0; 5]);
        let address = there.as_ptr().addr() as u64;
        assert!(mark.read_beside(own, address, &mut here).unwrap());
        assert_eq!(here, there);
        let others = [Birthmark { bytes: [7; 16], ..mark }, Birthmark { at: 1, ..mark }];
        for other in others {
            here = [0; 5];
            assert!(!other.read_beside(own, address, &mut here).unwrap(), "{other:?}");
            assert_eq!(here, there, "what was asked for is read all the same");
        }
        let missing = mark.read_beside(own, 1, &mut here).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::EFAULT));
    }
}
