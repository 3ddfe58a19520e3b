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

/// Bytes of `struct wl_leg`.
#[must_use]
pub fn leg_size() -> usize {
    // SAFETY: it has no arguments.
    unsafe { c::waylay_test_leg_size() }
}
