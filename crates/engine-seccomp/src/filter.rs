//! Which system calls the supervisor is asked about: the filter as a program of classic BPF.
//!
//! As few as can be: what a connection costs after connect() is nothing, but for messages where datagrams are judged, since a filter does not see
//! what socket a message is for. It cannot ask about more later, when processes have it. 32-bit programs and those of x32 make no sockets and
//! connect none; io_uring, whose calls no filter sees, is not there.

use libc::sock_filter;

use crate::probe::Means;

/// Whose calls are filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those of the command that is watched.
    Command {
        /// Whether it may make sockets that cannot be redirected.
        any_socket: bool,
    },
    /// Those of a service, which asks and says what services may.
    Service,
}

/// Whether it matters to whom datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagrams {
    /// One might be led to a service or refused: calls that name somebody, or may, are asked about.
    Judged,
    /// Each goes directly, whoever sends it and for as long as the filter is there.
    Direct,
}

/// System calls by their numbers on one architecture.
struct Calls {
    /// `AUDIT_ARCH_…`, linux/audit.h.
    arch: u32,
    /// The bit that tells x32 from x86-64.
    x32: Option<u32>,
    /// The architecture's own 32 bits, and the calls that make sockets and connect them there.
    compat: Option<(u32, &'static [u32])>,
}

#[cfg(target_arch = "x86_64")]
const CALLS: Option<Calls> = Some(Calls {
    arch: 0xc000_003e,
    x32: Some(0x4000_0000),
    // i386: socketcall, socket, connect, sendmmsg, sendto, sendmsg, io_uring_setup.
    compat: Some((0x4000_0003, &[102, 359, 362, 345, 369, 370, 425])),
});
#[cfg(target_arch = "aarch64")]
const CALLS: Option<Calls> = Some(Calls {
    arch: 0xc000_00b7,
    x32: None,
    // arm: socket, connect, sendto, sendmsg, sendmmsg, io_uring_setup.
    compat: Some((0x4000_0028, &[281, 283, 290, 296, 374, 425])),
});
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const CALLS: Option<Calls> = None;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const LOWER_HALF: u32 = if cfg!(target_endian = "big") { 4 } else { 0 };

const fn argument(index: u32) -> u32 {
    16 + 8 * index + LOWER_HALF
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EACCES as u32;
/// As a kernel without it answers, so that programs do without.
const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
/// As a kernel answers that has TCP Fast Open switched off, so that programs connect first.
const NOT_SO_FAST: u32 = libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32;

/// `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST`.
const ORIGINAL_DESTINATION: u32 = 80;
/// By which a socket takes what goes to others' addresses; it takes a privilege.
pub(crate) const TRANSPARENT: [(i32, i32); 2] =
    [(libc::SOL_IP, libc::IP_TRANSPARENT), (libc::SOL_IPV6, libc::IPV6_TRANSPARENT)];
const TYPE_MASK: u32 = 0xf;

/// The filter; `None` on an architecture whose system calls are not known here.
pub(crate) fn program(part: Part, datagrams: Datagrams, means: Means) -> Option<Vec<sock_filter>> {
    let calls = CALLS?;
    let native = native(&calls, part, datagrams, means);
    let mut program = vec![load(ARCH)];
    program.extend(if_equal(calls.arch, &native));
    if let Some((arch, absent)) = calls.compat {
        let mut judged = vec![load(NUMBER)];
        absent.iter().for_each(|&number| judged.extend(if_equal(number, &[answer(ABSENT)])));
        judged.push(answer(ALLOW));
        program.extend(if_equal(arch, &judged));
    }
    program.push(answer(ABSENT));
    Some(program)
}

/// One that lets every call pass.
pub(crate) fn harmless() -> Vec<sock_filter> {
    vec![answer(ALLOW)]
}

fn native(calls: &Calls, part: Part, datagrams: Datagrams, means: Means) -> Vec<sock_filter> {
    let mut program = vec![load(NUMBER)];
    if let Some(bit) = calls.x32 {
        program.extend([jump(libc::BPF_JSET, bit, 0, 1), answer(ABSENT)]);
    }
    let mut judge = |number: i64, judged: &[sock_filter]| program.extend(if_equal(number as u32, judged));
    judge(libc::SYS_io_uring_setup, &[answer(ABSENT)]);
    for number in [libc::SYS_connect, libc::SYS_getpeername, libc::SYS_getsockname] {
        judge(number, &[answer(ASK)]);
    }
    let (named, any) = match datagrams {
        Datagrams::Judged => (with_a_name(4).to_vec(), ASK),
        Datagrams::Direct => (vec![answer(ALLOW)], ALLOW),
    };
    judge(libc::SYS_sendto, &[&fast_open(3, ASK)[..], &named].concat());
    for (number, flags) in [(libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        judge(number, &[&fast_open(flags, NOT_SO_FAST)[..], &[answer(any)]].concat());
    }
    judge(libc::SYS_recvfrom, &named);
    for number in [libc::SYS_recvmsg, libc::SYS_recvmmsg] {
        judge(number, &[answer(any)]);
    }
    let (made, others) = match means {
        Means::Copying => (ALLOW, ALLOW),
        Means::Giving => {
            judge(libc::SYS_bind, &[answer(ASK)]);
            judge(libc::SYS_listen, &[answer(ASK)]);
            (ASK, ALLOW)
        }
    };
    match part {
        Part::Command { any_socket: true } | Part::Service if made == others => {}
        Part::Command { any_socket: true } | Part::Service => {
            judge(libc::SYS_socket, &redirectable(made, others));
        }
        Part::Command { any_socket: false } => judge(libc::SYS_socket, &redirectable(made, REFUSE)),
    }
    match part {
        Part::Command { .. } => {}
        Part::Service => {
            judge(libc::SYS_getsockopt, &questions());
            judge(libc::SYS_setsockopt, &statements());
        }
    }
    program.push(answer(ALLOW));
    program
}

/// Data that make a connection by themselves.
fn fast_open(flags: u32, what: u32) -> [sock_filter; 3] {
    let flag = libc::MSG_FASTOPEN.cast_unsigned();
    [load(argument(flags)), jump(libc::BPF_JSET, flag, 0, 1), answer(what)]
}

/// Datagrams whose peer is named, or is to be: the argument with this index says where. Registers tell no more.
fn with_a_name(index: u32) -> [sock_filter; 6] {
    let other_half = argument(index) ^ 4;
    [
        load(argument(index)),
        jump(libc::BPF_JEQ, 0, 0, 2),
        load(other_half),
        jump(libc::BPF_JEQ, 0, 1, 0),
        answer(ASK),
        answer(ALLOW),
    ]
}

fn questions() -> Vec<sock_filter> {
    let mut program = vec![load(argument(1))];
    program.extend(if_equal(waylay_abi::SOL_WAYLAY.cast_unsigned(), &[answer(ASK)]));
    let mut destination = vec![load(argument(2))];
    destination.extend(if_equal(ORIGINAL_DESTINATION, &[answer(ASK)]));
    destination.push(answer(ALLOW));
    for level in [libc::SOL_IP, libc::SOL_IPV6] {
        program.extend(if_equal(level.cast_unsigned(), &destination));
    }
    program.push(answer(ALLOW));
    program
}

/// Records, and the wish to be transparent.
fn statements() -> Vec<sock_filter> {
    let mut program = vec![load(argument(1))];
    program.extend(if_equal(waylay_abi::SOL_WAYLAY.cast_unsigned(), &[answer(ASK)]));
    for (level, name) in TRANSPARENT {
        let mut wish = vec![load(argument(2))];
        wish.extend(if_equal(name.cast_unsigned(), &[answer(ASK)]));
        wish.push(answer(ALLOW));
        program.extend(if_equal(level.cast_unsigned(), &wish));
    }
    program.push(answer(ALLOW));
    program
}

/// Of IP: TCP, MPTCP and UDP are `made`. Of others: what stays on this host is allowed.
fn redirectable(made: u32, others: u32) -> Vec<sock_filter> {
    let protocols = |allowed: &[i32]| {
        let mut program = vec![load(argument(2))];
        allowed
            .iter()
            .for_each(|protocol| program.extend(if_equal(protocol.cast_unsigned(), &[answer(made)])));
        program.push(answer(others));
        program
    };
    let mut of_ip =
        vec![load(argument(1)), statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, TYPE_MASK)];
    of_ip.extend(if_equal(
        libc::SOCK_STREAM.cast_unsigned(),
        &protocols(&[0, libc::IPPROTO_TCP, libc::IPPROTO_MPTCP]),
    ));
    of_ip.extend(if_equal(libc::SOCK_DGRAM.cast_unsigned(), &protocols(&[0, libc::IPPROTO_UDP])));
    of_ip.push(answer(others));
    let mut program = vec![load(argument(0))];
    for family in [libc::AF_INET, libc::AF_INET6] {
        program.extend(if_equal(family.cast_unsigned(), &of_ip));
    }
    for family in [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_ALG, libc::AF_KEY] {
        program.extend(if_equal(family.cast_unsigned(), &[answer(ALLOW)]));
    }
    program.push(answer(others));
    program
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn answer(what: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, what)
}

/// What was loaded is compared, and `then` carried out if it is `value`; it must end with an answer.
fn if_equal(value: u32, then: &[sock_filter]) -> Vec<sock_filter> {
    let over = u8::try_from(then.len()).unwrap_or(u8::MAX);
    let mut program = match over {
        // Further than a conditional jump reaches.
        u8::MAX => {
            vec![jump(libc::BPF_JEQ, value, 1, 0), statement(libc::BPF_JMP | libc::BPF_JA, then.len() as u32)]
        }
        over => vec![jump(libc::BPF_JEQ, value, 0, over)],
    };
    program.extend_from_slice(then);
    program
}

fn jump(operation: u32, value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { jt, jf, ..statement(libc::BPF_JMP | operation | libc::BPF_K, value) }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [Part; 3] =
        [Part::Command { any_socket: false }, Part::Command { any_socket: true }, Part::Service];
    const SOMEWHERE: u64 = 1 << 32;

    /// What each of these filters says of a call.
    fn said(datagrams: Datagrams, number: i64, arguments: [u64; 6]) -> Vec<u32> {
        let means = [Means::Copying, Means::Giving];
        let programs = PARTS.into_iter().flat_map(|part| means.map(|means| program(part, datagrams, means)));
        programs.map(|program| interpret(&program.unwrap(), number, arguments)).collect()
    }

    fn all_say(datagrams: Datagrams, number: i64, arguments: [u64; 6], what: u32) {
        assert_eq!(said(datagrams, number, arguments), [what; 6], "{datagrams:?} {number} {arguments:?}");
    }

    /// As bpf(4) has it, as far as these programs use it.
    fn interpret(program: &[sock_filter], number: i64, arguments: [u64; 6]) -> u32 {
        let mut data = [(number as u32).to_ne_bytes(), CALLS.unwrap().arch.to_ne_bytes()].concat();
        data.extend([0; 8]);
        arguments.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
        let (mut at, mut value) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let class = u32::from(code);
            at += 1;
            if class == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                value = u32::from_ne_bytes(*data[k as usize..].first_chunk().unwrap());
            } else if class == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K {
                value &= k;
            } else if class == libc::BPF_JMP | libc::BPF_JA | libc::BPF_K {
                at += k as usize;
            } else if class == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K {
                at += usize::from(if value == k { jt } else { jf });
            } else if class == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K {
                at += usize::from(if value & k != 0 { jt } else { jf });
            } else {
                assert_eq!(class, libc::BPF_RET | libc::BPF_K);
                return k;
            }
        }
    }

    #[test]
    fn what_is_read_and_written_is_asked_about_nowhere() {
        let calls = [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_sendfile,
            libc::SYS_splice,
            libc::SYS_ppoll,
            libc::SYS_epoll_pwait,
            libc::SYS_accept4,
            libc::SYS_shutdown,
            libc::SYS_close,
            // Without a name.
            libc::SYS_sendto,
            libc::SYS_recvfrom,
        ];
        for datagrams in [Datagrams::Judged, Datagrams::Direct] {
            for call in calls {
                all_say(datagrams, call, [3, SOMEWHERE, 64, 0, 0, 0], ALLOW);
            }
            for call in [libc::SYS_connect, libc::SYS_getpeername, libc::SYS_getsockname] {
                all_say(datagrams, call, [3, SOMEWHERE, 16, 0, 0, 0], ASK);
            }
        }
    }

    #[test]
    fn calls_that_may_name_somebody_are_asked_about_where_datagrams_are_judged() {
        let named = [libc::SYS_sendto, libc::SYS_recvfrom];
        let any = [libc::SYS_sendmsg, libc::SYS_sendmmsg, libc::SYS_recvmsg, libc::SYS_recvmmsg];
        for (datagrams, what) in [(Datagrams::Judged, ASK), (Datagrams::Direct, ALLOW)] {
            for at in [1, SOMEWHERE] {
                for call in named {
                    all_say(datagrams, call, [3, SOMEWHERE, 64, 0, at, 16], what);
                }
            }
            for call in any {
                all_say(datagrams, call, [3, SOMEWHERE, 0, 0, 0, 0], what);
            }
        }
    }

    #[test]
    fn data_that_make_a_connection_are_asked_about_or_refused_everywhere() {
        let flags = libc::MSG_FASTOPEN as u64 | libc::MSG_NOSIGNAL as u64;
        for datagrams in [Datagrams::Judged, Datagrams::Direct] {
            all_say(datagrams, libc::SYS_sendto, [3, SOMEWHERE, 64, flags, SOMEWHERE, 16], ASK);
            all_say(datagrams, libc::SYS_sendmsg, [3, SOMEWHERE, flags, 0, 0, 0], NOT_SO_FAST);
            all_say(datagrams, libc::SYS_sendmmsg, [3, SOMEWHERE, 1, flags, 0, 0], NOT_SO_FAST);
        }
    }
}
