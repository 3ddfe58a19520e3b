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
    /// Keys of the patterns that cover the names of the destination.
    pub hosts: [u64; abi::LINEAGE],
    /// Cookie of its network namespace; 0 if that is the own one.
    pub namespace: u64,
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

/// `struct waylay_test_words` of `headers.c`: those of tables, and those that amend them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Words<'w> {
    whole: *const u64,
    count: usize,
    amendments: *const u64,
    amendment_count: usize,
    of: std::marker::PhantomData<&'w [u64]>,
}

impl<'w> Words<'w> {
    /// These, amended by those; none amend them where those are empty.
    #[must_use]
    pub const fn new(whole: &'w [u64], amendments: &'w [u64]) -> Self {
        Self {
            whole: whole.as_ptr(),
            count: whole.len(),
            amendments: amendments.as_ptr(),
            amendment_count: amendments.len(),
            of: std::marker::PhantomData,
        }
    }
}

/// Records of an answer that are looked at: `WL_MAX_RECORDS` of `names.h`.
pub const MAX_RECORDS: usize = 64;

/// `struct waylay_test_answer` of `headers.c`.
#[repr(C)]
struct RawAnswer {
    key_count: u32,
    address_count: u32,
    keys: [u64; abi::LINEAGE],
    ttls: [u32; MAX_RECORDS],
    addresses: [[u8; 16]; MAX_RECORDS],
}

/// What a resolver's answer says of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Keys of the patterns that cover it, of those that are asked for.
    pub keys: Vec<u64>,
    /// Its addresses, in normal form, and for how many seconds.
    pub addresses: Vec<([u8; 16], u32)>,
}

mod c {
    use super::{Leg, People, Who, Words, abi};

    unsafe extern "C" {
        pub(super) fn waylay_test_siphash(k0: u64, k1: u64, words: *const u64, tag: *mut u64);
        pub(super) fn waylay_test_judge_handle(key: *const abi::HandleKey, handle: *const abi::Handle)
        -> i32;
        pub(super) fn waylay_test_classify_redirect(
            words: *const Words<'_>,
            leg: *const Leg,
            people: *const People,
            skip: u64,
        ) -> u32;
        pub(super) fn waylay_test_classify_auth(
            words: *const Words<'_>,
            leg: *const Leg,
            people: *const People,
        ) -> u64;
        pub(super) fn waylay_test_judge_socket(
            t: *const abi::Tables,
            words: *const Words<'_>,
            family: u32,
            socket_type: u32,
            protocol: u32,
            maker: *const Who,
            slot: u32,
            surroundings: i32,
        ) -> u32;
        pub(super) fn waylay_test_read_answer(
            words: *const Words<'_>,
            bytes: *const u8,
            length: usize,
            answer: *mut super::RawAnswer,
        );
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
pub fn classify_redirect(words: &Words<'_>, leg: &Leg, people: &People, skip: u64) -> Option<u32> {
    // SAFETY: all are read only, and laid out as the C side has them.
    let id = unsafe { c::waylay_test_classify_redirect(words, leg, people, skip) };
    (id != 0).then_some(id)
}

/// The id of the auth filter that speaks, and the errno if it blocks; filters of id 0 are not told from none.
#[must_use]
pub fn classify_auth(words: &Words<'_>, leg: &Leg, people: &People) -> Option<(u32, Option<u16>)> {
    // SAFETY: all are read only, and laid out as the C side has them.
    let both = unsafe { c::waylay_test_classify_auth(words, leg, people) };
    let errno = (both >> 32) as u16;
    (both != 0).then_some((both as u32, (errno != 0).then_some(errno)))
}

/// Why a socket (family, type, protocol) is refused to who makes it, and has this slot: `enum wl_refusal`, 0 if it is not. It may be of another
/// network namespace, or in a sandbox.
#[must_use]
pub fn judge_socket(
    tables: &abi::Tables,
    words: &Words<'_>,
    kind: [u16; 3],
    (maker, slot): (&Who, u32),
    [foreign, sandboxed]: [bool; 2],
) -> u32 {
    let [family, socket_type, protocol] = kind.map(u32::from);
    // SAFETY: all are read only, and laid out as the C side has them.
    unsafe {
        c::waylay_test_judge_socket(
            tables,
            words,
            family,
            socket_type,
            protocol,
            maker,
            slot,
            i32::from(foreign) | i32::from(sandboxed) << 1,
        )
    }
}

/// What a message says of names that are asked for; nothing if it is no answer.
#[must_use]
pub fn read_answer(words: &Words<'_>, message: &[u8]) -> Answer {
    let mut raw = RawAnswer {
        key_count: 0,
        address_count: 0,
        keys: [0; abi::LINEAGE],
        ttls: [0; MAX_RECORDS],
        addresses: [[0; 16]; MAX_RECORDS],
    };
    // SAFETY: the words and `length` bytes are read, and `answer` is written, which is laid out as the C side has it.
    unsafe { c::waylay_test_read_answer(words, message.as_ptr(), message.len(), &raw mut raw) };
    let addresses = raw.addresses.into_iter().zip(raw.ttls);
    Answer {
        keys: raw.keys[..raw.key_count as usize].to_vec(),
        addresses: addresses.take(raw.address_count as usize).collect(),
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
