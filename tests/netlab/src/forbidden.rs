//! Places where system calls are forbidden, as containers forbid some.

use crate::process::system_python;

/// Puts a filter on itself and becomes what follows: in place of each call's number, EPERM.
const FORBID: &str = "
import ctypes, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
calls = json.loads(sys.argv[1])
code = [(0x20, 0, 0, 0)] + [step for call in calls for step in ((0x15, 0, 1, call), (6, 0, 0, 0x50001))] + [(6, 0, 0, 0x7fff0000)]
program = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack('HxxxxxxQ', len(code), ctypes.addressof(program)), 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[2], sys.argv[2:])
";

/// A command line that another one is put behind, which then may not make these system calls.
#[must_use]
pub fn forbidding(calls: &[i64]) -> Vec<String> {
    let calls = serde_json::to_string(calls).unwrap_or_default();
    [system_python(), "-c", FORBID, &calls].map(str::to_owned).to_vec()
}
