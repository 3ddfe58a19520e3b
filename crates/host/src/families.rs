//! A seccomp filter that keeps a command from making sockets that no engine is asked about: the answer where the kernel
//! does not ask programs about sockets of every family.
//!
//! IPv4 and IPv6 it leaves to the engine. It refuses without a report, and more than it would have to: `io_uring` makes
//! sockets that no filter sees, and 32-bit programs of old C libraries hide the family behind a pointer (socketcall(2)).

use std::io;

use libc::sock_filter;
use waylay_core::SocketKind;

use crate::sys;

/// `SOCK_PACKET`: with it the kernel takes `AF_INET` for `AF_PACKET`.
const SOCK_PACKET: u32 = 10;
const SOCKET_TYPE: u32 = 0xf;

/// Puts the filter on this process, and on all that it starts. That takes `CAP_SYS_ADMIN`.
///
/// # Errors
/// What the kernel says; [`io::ErrorKind::Unsupported`] on a machine whose system calls are not known here.
pub(crate) fn refuse_other_families() -> io::Result<()> {
    let native = arch::NATIVE.ok_or(io::ErrorKind::Unsupported)?;
    sys::filter_system_calls(&filter(&native, arch::COMPAT.as_ref()))
}

/// What the system calls in question are called on one architecture.
struct Calls {
    /// `AUDIT_ARCH_…`, linux/audit.h.
    arch: u32,
    /// Bits that tell another ABI of the same architecture.
    ignored: u32,
    socket: u32,
    socketpair: u32,
    /// With a number in the first argument: 1 is socket(), 8 socketpair().
    socketcall: Option<u32>,
}

/// The same on every architecture.
const IO_URING_SETUP: u32 = 425;

#[cfg(target_arch = "x86_64")]
mod arch {
    use super::Calls;

    /// x32 is this with one bit more.
    pub(super) const NATIVE: Option<Calls> =
        Some(Calls { arch: 0xc000_003e, ignored: 0x4000_0000, socket: 41, socketpair: 53, socketcall: None });
    /// i386.
    pub(super) const COMPAT: Option<Calls> =
        Some(Calls { arch: 0x4000_0003, ignored: 0, socket: 359, socketpair: 360, socketcall: Some(102) });
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use super::Calls;

    pub(super) const NATIVE: Option<Calls> =
        Some(Calls { arch: 0xc000_00b7, ignored: 0, socket: 198, socketpair: 199, socketcall: None });
    /// arm.
    pub(super) const COMPAT: Option<Calls> =
        Some(Calls { arch: 0x4000_0028, ignored: 0, socket: 281, socketpair: 288, socketcall: Some(102) });
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    use super::Calls;

    pub(super) const NATIVE: Option<Calls> = None;
    pub(super) const COMPAT: Option<Calls> = None;
}

/// Offsets in `struct seccomp_data`; of an argument, its lower half.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16 + LOWER_HALF;
const SECOND_ARGUMENT: u32 = 24 + LOWER_HALF;
const LOWER_HALF: u32 = if cfg!(target_endian = "big") { 4 } else { 0 };

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EACCES as u32;
/// As a kernel without it answers, so that programs do without.
const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

fn filter(native: &Calls, compat: Option<&Calls>) -> Vec<sock_filter> {
    let mut program = Vec::new();
    for calls in [Some(native), compat].into_iter().flatten() {
        let judged = judge(calls);
        program.push(load(ARCH));
        program.push(skip_unless(calls.arch, judged.len()));
        program.extend(judged);
    }
    // An architecture that this machine should not have.
    program.push(answer(ABSENT));
    program
}

fn judge(calls: &Calls) -> Vec<sock_filter> {
    let mut program = vec![load(NUMBER), and(!calls.ignored)];
    program.extend(answer_if(IO_URING_SETUP, ABSENT));
    if let Some(socketcall) = calls.socketcall {
        let mut judged = vec![load(FIRST_ARGUMENT)];
        judged.extend(answer_if(1, REFUSE));
        judged.extend(answer_if(8, REFUSE));
        judged.push(answer(ALLOW));
        program.push(skip_unless(socketcall, judged.len()));
        program.extend(judged);
    }
    for call in [calls.socket, calls.socketpair] {
        let judged = judge_family();
        program.push(skip_unless(call, judged.len()));
        program.extend(judged);
    }
    program.push(answer(ALLOW));
    program
}

fn judge_family() -> Vec<sock_filter> {
    let mut program = vec![load(SECOND_ARGUMENT), and(SOCKET_TYPE)];
    program.extend(answer_if(SOCK_PACKET, REFUSE));
    program.push(load(FIRST_ARGUMENT));
    for family in SocketKind::IP_FAMILIES.into_iter().chain(SocketKind::LOCAL_FAMILIES) {
        program.extend(answer_if(family.into(), ALLOW));
    }
    program.push(answer(REFUSE));
    program
}

fn answer_if(value: u32, what: u32) -> [sock_filter; 2] {
    [skip_unless(value, 1), answer(what)]
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn and(mask: u32) -> sock_filter {
    statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask)
}

fn answer(what: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, what)
}

/// Goes on if what was loaded is `value`, and otherwise passes over so many.
fn skip_unless(value: u32, count: usize) -> sock_filter {
    let jf = u8::try_from(count).unwrap_or(u8::MAX);
    sock_filter { jf, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value) }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers to a system call, as the kernel would find out.
    fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u32; 2]) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    loaded = match step.k {
                        NUMBER => number,
                        ARCH => arch,
                        FIRST_ARGUMENT => arguments[0],
                        SECOND_ARGUMENT => arguments[1],
                        other => panic!("{other}"),
                    };
                }
                code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => loaded &= step.k,
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if loaded == step.k { step.jt } else { step.jf });
                }
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                other => panic!("{other}"),
            }
        }
    }

    const SIXTY_FOUR: Calls =
        Calls { arch: 0xc000_003e, ignored: 0x4000_0000, socket: 41, socketpair: 53, socketcall: None };
    const THIRTY_TWO: Calls =
        Calls { arch: 0x4000_0003, ignored: 0, socket: 359, socketpair: 360, socketcall: Some(102) };

    #[test]
    fn every_family_is_judged_on_every_way_to_socket() {
        let program = filter(&SIXTY_FOUR, Some(&THIRTY_TWO));
        assert!(program.len() < 256, "jumps have eight bits");
        let ways =
            [(&SIXTY_FOUR, 41), (&SIXTY_FOUR, 0x4000_0000 | 41), (&SIXTY_FOUR, 53), (&THIRTY_TWO, 359)];
        for (calls, number) in ways {
            for family in 0..60 {
                let passes = [0, 1, 2, 10, 15, 16, 38].contains(&family);
                let expected = if passes { ALLOW } else { REFUSE };
                // SOCK_STREAM | SOCK_CLOEXEC.
                assert_eq!(run(&program, calls.arch, number, [family, 0o2_000_001]), expected, "{family}");
            }
            assert_eq!(run(&program, calls.arch, number, [2, SOCK_PACKET]), REFUSE);
        }
    }

    #[test]
    fn what_hides_the_family_is_refused_and_all_else_passes() {
        let program = filter(&SIXTY_FOUR, Some(&THIRTY_TWO));
        for (call, expected) in [(1, REFUSE), (8, REFUSE), (2, ALLOW), (3, ALLOW)] {
            assert_eq!(run(&program, THIRTY_TWO.arch, 102, [call, 0]), expected);
        }
        for calls in [&SIXTY_FOUR, &THIRTY_TWO] {
            assert_eq!(run(&program, calls.arch, IO_URING_SETUP, [40, 1]), ABSENT);
            for number in (0..40).chain([426, 1000]) {
                assert_eq!(run(&program, calls.arch, number, [40, 1]), ALLOW);
            }
        }
        // socketcall's number is another call on this one.
        assert_eq!(run(&program, SIXTY_FOUR.arch, 102, [1, 0]), ALLOW);
        assert_eq!(run(&program, 0x1234, 41, [2, 1]), ABSENT);
    }
}
