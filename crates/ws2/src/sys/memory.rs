//! Copies to and from addresses that may lead nowhere: the kernel makes them,
//! and says `EFAULT` where this process would crash.
#![expect(
    unsafe_code,
    reason = "process_vm_readv(2), process_vm_writev(2), and read(2) and write(2) on a pipe"
)]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::pipe::{PipeFlags, pipe_with};

use super::stack;

/// An address that does not lead to memory of the kind needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault;

/// Copies what is at the address.
pub(crate) fn read(address: usize, into: &mut [u8]) -> Result<(), Fault> {
    if stack::holds(address, into.len()) {
        // SAFETY: these bytes are in this thread's own stack, above this frame, and `into` is elsewhere.
        unsafe { (address as *const u8).copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
        return Ok(());
    }
    // SAFETY: the kernel writes to `into` alone.
    let copied = unsafe { transfer(libc::process_vm_readv, into.as_mut_ptr(), address, into.len()) };
    match copied {
        Ok(copied) => whole(copied, into.len()),
        Err(Transfer::Fault) => Err(Fault),
        Err(Transfer::Forbidden) => read_by_pipe(address, into),
    }
}

/// Copies to the address.
///
/// # Safety
/// If it leads to memory of this process, that memory may be written.
pub(crate) unsafe fn write(address: usize, from: &[u8]) -> Result<(), Fault> {
    if stack::holds(address, from.len()) {
        // SAFETY: these bytes are in this thread's own stack, above this frame, and may be written.
        unsafe { (address as *mut u8).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        return Ok(());
    }
    if let Some(value) = from.try_into().ok().map(u32::from_ne_bytes).filter(|_| address.is_multiple_of(4))
        && value <= MOST_IN_OPERATION
    {
        // SAFETY: as asked of the caller.
        return unsafe { operate(address, libc::FUTEX_OP_SET, value) };
    }
    // SAFETY: the kernel only reads `from`, and the caller lets it write to the address.
    let copied = unsafe { transfer(libc::process_vm_writev, from.as_ptr().cast_mut(), address, from.len()) };
    match copied {
        Ok(copied) => whole(copied, from.len()),
        Err(Transfer::Fault) => Err(Fault),
        // SAFETY: as asked of the caller.
        Err(Transfer::Forbidden) => unsafe { write_by_pipe(address, from) },
    }
}

/// Whether these bytes can be written, found out without a change to them.
///
/// # Safety
/// As [`write`]; others may use the memory meanwhile.
pub(crate) unsafe fn check(address: usize, len: usize) -> Result<(), Fault> {
    if stack::holds(address, len) {
        return Ok(());
    }
    let last = address.checked_add(len.max(1) - 1).ok_or(Fault)?;
    // What holds for a byte holds for its page, and so for the word that it is in.
    for byte in [address, last] {
        // SAFETY: nothing is added to the word.
        unsafe { operate(byte & !3, libc::FUTEX_OP_ADD, 0) }?;
    }
    Ok(())
}

/// The largest value that fits an operation of futex(2), which has twelve bits for it and a sign.
const MOST_IN_OPERATION: u32 = 0x7ff;

/// Lets the kernel do something to a word, in one step: of all system calls that write what they are told to,
/// the quickest. Nobody waits for the word, so nobody is woken.
///
/// # Safety
/// If the address leads to memory of this process, that may be done there.
unsafe fn operate(address: usize, operation: i32, value: u32) -> Result<(), Fault> {
    let nobody_waits_here = 0_u32;
    let operation = operation << 28 | value.cast_signed() << 12;
    // SAFETY: the kernel uses the address as the caller lets it, and reads nothing of the other word.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            &raw const nobody_waits_here,
            libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG,
            0,
            0,
            address,
            operation,
        )
    };
    if result < 0 { Err(Fault) } else { Ok(()) }
}

fn whole(copied: usize, wanted: usize) -> Result<(), Fault> {
    if copied == wanted { Ok(()) } else { Err(Fault) }
}

enum Transfer {
    Fault,
    /// A sandbox does not let this process call it.
    Forbidden,
}

type ProcessVm = unsafe extern "C" fn(
    libc::pid_t,
    *const libc::iovec,
    libc::c_ulong,
    *const libc::iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> isize;

/// # Safety
/// The call may use the `len` bytes at `own` and at the address as it does.
unsafe fn transfer(call: ProcessVm, own: *mut u8, address: usize, len: usize) -> Result<usize, Transfer> {
    let [local, remote] =
        [own.cast(), address as *mut libc::c_void].map(|iov_base| libc::iovec { iov_base, iov_len: len });
    // SAFETY: both vectors live through the call; what they point to is the caller's promise.
    let copied = unsafe { call(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied).map_err(|_negative| match io::Error::last_os_error().raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS) => Transfer::Forbidden,
        Some(_) | None => Transfer::Fault,
    })
}

/// Both ends of a pipe that nobody waits for.
fn pipe() -> Result<(OwnedFd, OwnedFd), Fault> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|_no_descriptor_left| Fault)
}

fn read_by_pipe(address: usize, into: &mut [u8]) -> Result<(), Fault> {
    let (out, inn) = pipe()?;
    // SAFETY: write(2) only reads at the address, and the kernel checks that it can.
    let written = unsafe { libc::write(inn.as_raw_fd(), address as *const libc::c_void, into.len()) };
    whole(usize::try_from(written).unwrap_or(0), into.len())?;
    whole(rustix::io::read(&out, &mut *into).unwrap_or(0), into.len())
}

/// # Safety
/// As [`write`].
unsafe fn write_by_pipe(address: usize, from: &[u8]) -> Result<(), Fault> {
    let (out, inn) = pipe()?;
    whole(rustix::io::write(&inn, from).unwrap_or(0), from.len())?;
    // SAFETY: the caller lets the memory there be written, and the kernel checks that it can be.
    let read = unsafe { libc::read(out.as_raw_fd(), address as *mut libc::c_void, from.len()) };
    whole(usize::try_from(read).unwrap_or(0), from.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: [usize; 4] = [0, 1, 0xdead_0000_0000, usize::MAX - 3];

    #[test]
    fn every_way_copies_what_is_there() {
        let heap = Box::new([1_u8, 2, 3, 4]);
        let stack = [5_u8, 6, 7, 8];
        for (way, read) in [("direct", read as fn(usize, &mut [u8]) -> _), ("pipe", read_by_pipe)] {
            for source in [&heap[..], &stack] {
                let mut copy = [0; 4];
                read(source.as_ptr().addr(), &mut copy).unwrap();
                assert_eq!(copy, source, "{way}");
            }
        }
        for (way, write) in [("direct", write as unsafe fn(usize, &[u8]) -> _), ("pipe", write_by_pipe)] {
            let (mut heap, mut stack) = (vec![0_u8; 4], [0_u8; 4]);
            for target in [&mut heap[..], &mut stack] {
                // SAFETY: the target is this test's.
                unsafe { write(target.as_mut_ptr().expose_provenance(), &[9, 8, 7, 6]) }.unwrap();
                assert_eq!(target, [9, 8, 7, 6], "{way}");
            }
        }
    }

    #[test]
    fn no_way_crashes_where_there_is_no_memory() {
        for address in NOWHERE {
            assert_eq!(read(address, &mut [0; 4]), Err(Fault), "{address:#x}");
            assert_eq!(read_by_pipe(address, &mut [0; 4]), Err(Fault), "{address:#x}");
            // SAFETY: there is no memory at these addresses.
            unsafe {
                assert_eq!(write(address, &[0; 4]), Err(Fault), "{address:#x}");
                assert_eq!(write_by_pipe(address, &[0; 4]), Err(Fault), "{address:#x}");
            }
        }
    }

    #[test]
    fn small_words_and_large_ones_arrive() {
        for value in [0, 1, 48, MOST_IN_OPERATION, MOST_IN_OPERATION + 1, u32::MAX] {
            let mut words = Box::new([7_u32; 3]);
            let address = words.as_mut_ptr().expose_provenance();
            // SAFETY: the words are this test's.
            unsafe { write(address + 4, &value.to_ne_bytes()) }.unwrap();
            assert_eq!(*words, [7, value, 7]);
        }
    }

    #[test]
    fn a_check_changes_nothing_and_knows_the_end_of_memory() {
        let bytes = Box::new([1_u8, 2, 3, 4, 5, 6, 7, 8]);
        let address = bytes.as_ptr().expose_provenance();
        // SAFETY: a check changes nothing.
        unsafe {
            for offset in 0..8 {
                assert_eq!(check(address + offset, 8 - offset), Ok(()));
            }
            for nowhere in NOWHERE {
                assert_eq!(check(nowhere, 4), Err(Fault), "{nowhere:#x}");
            }
            assert_eq!(check(address, 1 << 46), Err(Fault));
        }
        assert_eq!(*bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn constants_are_not_written_to() {
        static CONSTANT: [u8; 4] = *b"same";
        let address = CONSTANT.as_ptr().addr();
        // SAFETY: the kernel lets nobody write there, which is what is tested.
        unsafe {
            assert_eq!(write(address, b"othe"), Err(Fault));
            assert_eq!(write_by_pipe(address, b"othe"), Err(Fault));
            assert_eq!(check(address, 4), Err(Fault));
        }
        assert_eq!(&CONSTANT, b"same");
    }
}
