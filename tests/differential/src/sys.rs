//! Calls into `headers.c`.
#![expect(unsafe_code, reason = "C functions")]

use waylay_abi as abi;

/// `struct wl_who` of `lookup.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Who {
    /// Device of its executable.
    pub exe_device: u64,
    /// Inode of its executable.
    pub exe_inode: u64,
    /// Its command name, ended by zeros.
    pub command: [u8; 16],
    /// Its cgroups, from the root down; 0 where there are no more.
    pub lineage: [u64; abi::LINEAGE],
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What programs ask the kernel about a leg.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct People {
    /// The application at the head of the chain.
    pub application: Who,
    /// Who dials.
    pub via: Who,
    /// What the caller has bound.
    pub source: abi::Address,
}

/// `struct wl_leg` of `classify.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Leg {
    /// Where it goes.
    pub remote: abi::Address,
    /// Who dials.
    pub caller: abi::Process,
    /// Slot of the calling service.
    pub caller_slot: u32,
    /// Number of the IP protocol.
    pub protocol: u32,
    /// Whether it goes to a service.
    pub redirected: u32,
    /// Whether it comes from one.
    pub proxied: u32,
}

mod c {
    use super::{Leg, People, Who, abi};

    unsafe extern "C" {
        pub(super) fn waylay_test_siphash(k0: u64, k1: u64, words: *const u64, tag: *mut u64);
        pub(super) fn waylay_test_judge_handle(key: *const abi::HandleKey, handle: *const abi::Handle)
        -> i32;
        pub(super) fn waylay_test_classify_redirect(
            words: *const u64,
            count: usize,
            leg: *const Leg,
            people: *const People,
            skip: u64,
        ) -> u32;
        pub(super) fn waylay_test_classify_auth(
            words: *const u64,
            count: usize,
            leg: *const Leg,
            people: *const People,
        ) -> u64;
        pub(super) fn waylay_test_judge_socket(
            t: *const abi::Tables,
            words: *const u64,
            count: usize,
            family: u32,
            socket_type: u32,
            protocol: u32,
            maker: *const Who,
            slot: u32,
            surroundings: i32,
        ) -> u32;
        pub(super) fn waylay_test_is_group(ip: *const u8) -> i32;
        pub(super) fn waylay_test_recognises(
            s: *const abi::Service,
            p: *const abi::Process,
            ancestor: u64,
        ) -> i32;
        pub(super) fn waylay_test_leg_size() -> usize;
    }
}

/// The tag of a handle's four words.
#[must_use]
pub fn siphash128(k0: u64, k1: u64, words: &[u64; 4]) -> [u64; 2] {
    let mut tag = [0; 2];
    // SAFETY: it reads the four words and writes the two.
    unsafe { c::waylay_test_siphash(k0, k1, words.as_ptr(), tag.as_mut_ptr()) };
    tag
}

/// What is wrong with a handle: `enum wl_handle_verdict` of `handle.h`.
#[must_use]
pub fn judge_handle(key: &abi::HandleKey, handle: &abi::Handle) -> i32 {
    // SAFETY: both are read only, and laid out as the C side has them.
    unsafe { c::waylay_test_judge_handle(key, handle) }
}

/// The id of the first redirect filter that matches and is not skipped; filters of id 0 are not told from none.
#[must_use]
pub fn classify_redirect(words: &[u64], leg: &Leg, people: &People, skip: u64) -> Option<u32> {
    // SAFETY: all are read only, and laid out as the C side has them.
    let id = unsafe { c::waylay_test_classify_redirect(words.as_ptr(), words.len(), leg, people, skip) };
    (id != 0).then_some(id)
}

/// The id of the auth filter that blocks, and the errno.
#[must_use]
pub fn classify_auth(words: &[u64], leg: &Leg, people: &People) -> Option<(u32, u16)> {
    // SAFETY: all are read only, and laid out as the C side has them.
    let both = unsafe { c::waylay_test_classify_auth(words.as_ptr(), words.len(), leg, people) };
    (both != 0).then_some((both as u32, (both >> 32) as u16))
}

/// Why a socket (family, type, protocol) is refused to who makes it, and has this slot: `enum wl_refusal`, 0 if it is not. It may be of another
/// network namespace, or in a sandbox.
#[must_use]
pub fn judge_socket(
    tables: &abi::Tables,
    words: &[u64],
    kind: [u16; 3],
    (maker, slot): (&Who, u32),
    [foreign, sandboxed]: [bool; 2],
) -> u32 {
    let [family, socket_type, protocol] = kind.map(u32::from);
    let (at, count) = (words.as_ptr(), words.len());
    // SAFETY: all are read only, and laid out as the C side has them.
    unsafe {
        c::waylay_test_judge_socket(
            tables,
            at,
            count,
            family,
            socket_type,
            protocol,
            maker,
            slot,
            i32::from(foreign) | i32::from(sandboxed) << 1,
        )
    }
}

/// Whether an address is one of several hosts.
#[must_use]
pub fn is_group(ip: [u8; 16]) -> bool {
    // SAFETY: it reads the 16 bytes.
    unsafe { c::waylay_test_is_group(ip.as_ptr()) != 0 }
}

/// Whether a process, with its own cgroup or one above it, is of a resident.
#[must_use]
pub fn recognises(service: &abi::Service, process: &abi::Process, ancestor: u64) -> bool {
    // SAFETY: both are read only, and laid out as the C side has them.
    unsafe { c::waylay_test_recognises(service, process, ancestor) != 0 }
}

/// Bytes of `struct wl_leg`.
#[must_use]
pub fn leg_size() -> usize {
    // SAFETY: it has no arguments.
    unsafe { c::waylay_test_leg_size() }
}
