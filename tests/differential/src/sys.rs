//! Calls into `headers.c`.
#![expect(unsafe_code, reason = "C functions")]

use waylay_abi as abi;

/// `struct wl_origin` of `classify.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Origin {
    /// Device of its executable.
    pub exe_device: u64,
    /// Inode of its executable.
    pub exe_inode: u64,
    /// Its cgroup.
    pub cgroup: u64,
    /// Its user.
    pub uid: u32,
    /// Zero.
    pub reserved: u32,
}

/// `struct wl_leg` of `classify.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Leg {
    /// Where it goes.
    pub remote: abi::Address,
    /// Who dials.
    pub caller: abi::Process,
    /// The application at the head of the chain.
    pub origin: Origin,
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
    use super::{Leg, abi};

    unsafe extern "C" {
        pub(super) fn waylay_test_siphash(k0: u64, k1: u64, words: *const u64, tag: *mut u64);
        pub(super) fn waylay_test_judge_handle(key: *const abi::HandleKey, handle: *const abi::Handle)
        -> i32;
        pub(super) fn waylay_test_classify_redirect(t: *const abi::Tables, leg: *const Leg, skip: u64)
        -> i32;
        pub(super) fn waylay_test_classify_auth(t: *const abi::Tables, leg: *const Leg) -> i32;
        pub(super) fn waylay_test_judge_socket(
            t: *const abi::Tables,
            family: u32,
            socket_type: u32,
            protocol: u32,
            leg: *const Leg,
            foreign: i32,
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

/// The first redirect filter that matches and is not skipped.
#[must_use]
pub fn classify_redirect(tables: &abi::Tables, leg: &Leg, skip: u64) -> Option<usize> {
    // SAFETY: both are read only, and laid out as the C side has them.
    usize::try_from(unsafe { c::waylay_test_classify_redirect(tables, leg, skip) }).ok()
}

/// The auth filter that blocks.
#[must_use]
pub fn classify_auth(tables: &abi::Tables, leg: &Leg) -> Option<usize> {
    // SAFETY: both are read only, and laid out as the C side has them.
    usize::try_from(unsafe { c::waylay_test_classify_auth(tables, leg) }).ok()
}

/// Why a socket (family, type, protocol) is refused to the leg's caller: `enum wl_refusal`, 0 if it is not.
#[must_use]
pub fn judge_socket(tables: &abi::Tables, kind: [u16; 3], maker: &Leg, foreign: bool) -> u32 {
    let [family, socket_type, protocol] = kind.map(u32::from);
    // SAFETY: both are read only, and laid out as the C side has them.
    unsafe { c::waylay_test_judge_socket(tables, family, socket_type, protocol, maker, foreign.into()) }
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
