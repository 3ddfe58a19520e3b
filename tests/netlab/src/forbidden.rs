//! Places where system calls are forbidden, as containers forbid some.

use crate::process::system_python;

/// Puts a filter on itself and becomes what follows: each call's number is answered with an errno.
const FORBID: &str = "
import ctypes, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
calls = json.loads(sys.argv[1])
code = [(0x20, 0, 0, 0)] + [step for call, error in calls for step in ((0x15, 0, 1, call), (6, 0, 0, 0x50000 | error))] + [(6, 0, 0, 0x7fff0000)]
program = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack('HxxxxxxQ', len(code), ctypes.addressof(program)), 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[2], sys.argv[2:])
";

/// Forbidden to whoever has no capability by the filter that Docker gives its containers
/// (<https://github.com/moby/profiles/blob/main/seccomp/default.json>), and of use to somebody who observes programs.
const OF_CONTAINERS: [i64; 26] = [
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_acct,
];

/// A command line that another one is put behind, which then may not make these system calls.
#[must_use]
pub fn forbidding(calls: &[i64]) -> Vec<String> {
    answering(calls.iter().map(|&call| (call, libc::EPERM)).collect())
}

/// The same of those that are forbidden in containers.
#[must_use]
pub fn forbidding_as_containers_do() -> Vec<String> {
    let forbidden = OF_CONTAINERS.map(|call| (call, libc::EPERM));
    // Whose flags no filter sees: as if there were no such call.
    answering(forbidden.into_iter().chain([(libc::SYS_clone3, libc::ENOSYS)]).collect())
}

fn answering(calls: Vec<(i64, i32)>) -> Vec<String> {
    let calls = serde_json::to_string(&calls).unwrap_or_default();
    [system_python(), "-c", FORBID, &calls].map(str::to_owned).to_vec()
}
