//! Questions to the kernel that no safe library asks.
#![expect(
    unsafe_code,
    reason = "getsockopt(SO_NETNS_COOKIE), open_by_handle_at(2), lsm_list_modules(2), bpf(BPF_PROG_LOAD), bpf(BPF_LINK_CREATE, BPF_PROG_QUERY, BPF_MAP_LOOKUP_BATCH, BPF_OBJ_GET_INFO_BY_FD), the verifier's log"
)]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use libbpf_rs::{AsRawLibbpf, Object, OpenObject, libbpf_sys};
use rustix::net::{AddressFamily, SocketType};
use zerocopy::IntoBytes;

/// Programs that the kernel lets anybody attach to one cgroup at one hook: `BPF_CGROUP_MAX_PROGS`.
const MOST_PROGRAMS: u32 = 64;

/// What is attached at one hook of a cgroup itself, or of a device.
pub(crate) struct Attached {
    pub(crate) ids: Vec<u32>,
    pub(crate) flags: u32,
}

/// The programs attached to a cgroup (bpf(2), `BPF_PROG_QUERY`).
pub(crate) fn attached_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Attached> {
    attached_to(cgroup.as_raw_fd(), attach_type)
}

/// `target` is a cgroup's descriptor or a device's index, as the hook has it.
fn attached_to(target: i32, attach_type: u32) -> io::Result<Attached> {
    let mut ids = vec![0_u32; MOST_PROGRAMS as usize];
    let mut query = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as _,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    query.__bindgen_anon_1.prog_cnt = MOST_PROGRAMS;
    // SAFETY: the kernel writes at most `prog_cnt` numbers to `prog_ids`, which has room for them, and the
    // fields of `query`; both outlive the call.
    let result = unsafe { libbpf_sys::bpf_prog_query_opts(target, attach_type, &raw mut query) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: both variants of the union are the same number, which the kernel has written.
    let count = unsafe { query.__bindgen_anon_1.prog_cnt };
    ids.truncate(count as usize);
    Ok(Attached { ids, flags: query.attach_flags })
}

/// The loopback's index in every network namespace: `LOOPBACK_IFINDEX` of the kernel.
const LOOPBACK: i32 = 1;

/// Attaches a program to what comes in by the loopback of this thread's network namespace (bpf(2), `BPF_LINK_CREATE`). It is
/// detached with the descriptor.
pub(crate) fn attach_to_loopback(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: there are no options, and the descriptor outlives the call.
    let link = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), LOOPBACK, libbpf_sys::BPF_TCX_INGRESS, ptr::null())
    };
    if link < 0 {
        return Err(io::Error::from_raw_os_error(-link));
    }
    // SAFETY: the descriptor is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// The programs attached there, by links (bpf(2), `BPF_PROG_QUERY`); an error before Linux 6.6.
pub(crate) fn attached_to_loopback() -> io::Result<Attached> {
    attached_to(LOOPBACK, libbpf_sys::BPF_TCX_INGRESS)
}

/// Whether the kernel takes a program of a cgroup for a hook of its security modules (bpf(2), `BPF_PROG_LOAD`). One that
/// lets everything pass is loaded and dropped.
pub(crate) fn try_program_for(hook: &CStr) -> io::Result<()> {
    const RETURN_ONE: [libbpf_sys::bpf_insn; 2] = [instruction(0xb7, 1), instruction(0x95, 0)];
    // SAFETY: the name ends with a zero and outlives the call.
    let id = unsafe { libbpf_sys::libbpf_find_vmlinux_btf_id(hook.as_ptr(), libbpf_sys::BPF_LSM_CGROUP) };
    if id < 0 {
        return Err(io::Error::from_raw_os_error(id.wrapping_neg()));
    }
    let attach_btf_id = id.cast_unsigned();
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as _,
        expected_attach_type: libbpf_sys::BPF_LSM_CGROUP,
        attach_btf_id,
        ..Default::default()
    };
    // SAFETY: the kernel reads the strings, the instructions and the options, all of which outlive the call.
    let program = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_LSM,
            c"wl_probe".as_ptr(),
            c"GPL".as_ptr(),
            RETURN_ONE.as_ptr(),
            RETURN_ONE.len() as _,
            &raw mut options,
        )
    };
    if program < 0 {
        return Err(io::Error::from_raw_os_error(-program));
    }
    // SAFETY: the descriptor is new, and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(program) });
    Ok(())
}

/// One that names register 0 only.
const fn instruction(code: u8, immediate: i32) -> libbpf_sys::bpf_insn {
    libbpf_sys::bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: libbpf_sys::__BindgenBitfieldUnit::new([0]),
        off: 0,
        imm: immediate,
    }
}

/// lsm_list_modules(2) of Linux 6.8 and later, whose number is the same on every architecture.
const LSM_LIST_MODULES: libc::c_long = 461;
/// `LSM_ID_BPF`, linux/lsm.h.
const LSM_ID_BPF: u64 = 109;

/// Whether programs are among the security modules in force; `None` on kernels that do not say.
pub(crate) fn bpf_is_a_security_module() -> Option<bool> {
    let mut modules = [0_u64; 64];
    let mut size = size_of_val(&modules) as u32;
    // SAFETY: the kernel writes at most `size` bytes to `modules`, and their number to `size`; both outlive the call.
    let count = unsafe { libc::syscall(LSM_LIST_MODULES, modules.as_mut_ptr(), &raw mut size, 0) };
    let count = usize::try_from(count).ok()?;
    Some(modules.iter().take(count).any(|module| *module == LSM_ID_BPF))
}

/// Whether there is no cgroup of that number on the file system to which a file belongs (open_by_handle_at(2)). What
/// cannot be told counts as being there.
pub(crate) fn is_no_cgroup(file: BorrowedFd<'_>, id: u64) -> bool {
    /// `FILEID_KERNFS`, linux/exportfs.h.
    const KERNFS: i32 = 0xfe;
    #[repr(C)]
    struct Handle {
        head: libc::file_handle,
        id: [u8; 8],
    }
    let head = libc::file_handle { handle_bytes: 8, handle_type: KERNFS, f_handle: [] };
    let mut handle = Handle { head, id: id.to_ne_bytes() };
    // SAFETY: the kernel reads the handle's head and the eight bytes after it, which it says it has and which outlive the call.
    let opened = unsafe {
        libc::open_by_handle_at(file.as_raw_fd(), (&raw mut handle).cast(), libc::O_PATH | libc::O_CLOEXEC)
    };
    if opened < 0 {
        return io::Error::last_os_error().raw_os_error() == Some(libc::ESTALE);
    }
    // SAFETY: the descriptor is new, and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(opened) });
    false
}

/// What the kernel says of a program that is loaded.
pub(crate) struct ProgramInfo {
    /// Bytes of machine code.
    pub(crate) machine_code: u32,
    /// Instructions the verifier followed.
    pub(crate) verified: u32,
    /// The instructions, as the verifier has left them.
    pub(crate) instructions: Vec<libbpf_sys::bpf_insn>,
    /// Where each function begins, the program itself first.
    pub(crate) functions: Vec<libbpf_sys::bpf_func_info>,
}

/// Asks for it (bpf(2), `BPF_OBJ_GET_INFO_BY_FD`).
pub(crate) fn program_info(program: &impl AsFd) -> io::Result<ProgramInfo> {
    let sizes = get_info(program, libbpf_sys::bpf_prog_info::default())?;
    let count = sizes.xlated_prog_len as usize / size_of::<libbpf_sys::bpf_insn>();
    let mut instructions = vec![libbpf_sys::bpf_insn::default(); count];
    let mut functions = vec![libbpf_sys::bpf_func_info::default(); sizes.nr_func_info as usize];
    let wanted = libbpf_sys::bpf_prog_info {
        xlated_prog_len: sizes.xlated_prog_len,
        xlated_prog_insns: instructions.as_mut_ptr() as u64,
        nr_func_info: sizes.nr_func_info,
        func_info_rec_size: size_of::<libbpf_sys::bpf_func_info>() as u32,
        func_info: functions.as_mut_ptr() as u64,
        ..Default::default()
    };
    let info = get_info(program, wanted)?;
    Ok(ProgramInfo {
        machine_code: info.jited_prog_len,
        verified: info.verified_insns,
        instructions,
        functions,
    })
}

/// The pointers in `info` have to be null, or to have room for as much as stands beside them.
fn get_info(
    program: &impl AsFd,
    mut info: libbpf_sys::bpf_prog_info,
) -> io::Result<libbpf_sys::bpf_prog_info> {
    let mut len = size_of_val(&info) as u32;
    let fd = program.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes to `info`, which outlives the call, and no more to where it points
    // than the lengths in it say, for which there is room.
    let result = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(fd, &raw mut info, &raw mut len) };
    if result != 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(info) }
}

/// `BPF_LOG_STATS` of the kernel: what the verifier came to, not how.
const LOG_STATS: u32 = 4;
const LOG_BYTES: usize = 1 << 20;

/// Loads programs and returns the verifier's statistics of each, by its name.
pub(crate) fn load_with_logs(mut open: OpenObject) -> libbpf_rs::Result<(Object, Vec<(String, String)>)> {
    let mut logs = Vec::new();
    for mut program in open.progs_mut() {
        program.set_log_level(LOG_STATS);
        let name = program.name().to_string_lossy().into_owned();
        let mut log = vec![0_u8; LOG_BYTES];
        let to = program.as_libbpf_object().as_ptr();
        // SAFETY: the program exists; its log is written while it is loaded, below, which `log` outlives: moving the
        // vector does not move its bytes.
        unsafe { libbpf_sys::bpf_program__set_log_buf(to, log.as_mut_ptr().cast(), LOG_BYTES as u64) };
        logs.push((name, log));
    }
    let object = open.load()?;
    for program in object.progs_mut() {
        // SAFETY: the program exists; from here on it has no log that could be written.
        unsafe {
            libbpf_sys::bpf_program__set_log_buf(program.as_libbpf_object().as_ptr(), ptr::null_mut(), 0)
        };
    }
    let text = |log: &[u8]| {
        CStr::from_bytes_until_nul(log).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    Ok((object, logs.into_iter().map(|(name, log)| (name, text(&log))).collect()))
}

/// The cookie of the network namespace of this thread (`SO_NETNS_COOKIE`, socket(7)), by which policies name namespaces.
///
/// # Errors
/// If there is no socket to be had, or the kernel has no cookies (before Linux 5.14).
pub fn netns_cookie() -> io::Result<u64> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `cookie`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

/// How many entries of a map are read at a time, at first.
const BATCH: usize = 256;

/// Shows every value that stays in a hash map throughout, and some of those that come or go meanwhile. Unlike a walk from
/// key to key (`BPF_MAP_GET_NEXT_KEY`) it holds each bucket's lock, so that a deleted entry leads nobody astray.
///
/// `size` has to be the map's value size. `libbpf_rs` has the same, but takes an error for the end.
pub(crate) fn for_each_value(
    map: BorrowedFd<'_>,
    key_size: usize,
    size: usize,
    mut look: impl FnMut(&[u8]),
) -> io::Result<()> {
    let options = libbpf_sys::bpf_map_batch_opts {
        sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as _,
        ..Default::default()
    };
    // Of words, so that they are aligned as a value needs it.
    let mut room = BATCH;
    let (mut keys, mut values) =
        (vec![0_u64; room * key_size.div_ceil(8)], vec![0_u64; room * size.div_ceil(8)]);
    // The kernel's place in the map is a number of 32 bits; a key would have to fit as well.
    let (mut place, mut next) = (vec![0_u64; key_size.div_ceil(8)], vec![0_u64; key_size.div_ceil(8)]);
    let mut first = true;
    loop {
        let mut count = room as u32;
        let from = if first { std::ptr::null_mut() } else { place.as_mut_ptr() };
        // SAFETY: the kernel reads `from`, if it is not null, and writes `next`, each of which has room for a key and for
        // the number of 32 bits that a hash map uses instead; it writes at most `count` keys and values, for which there
        // is room in `keys` and `values`, and the number of them to `count`. All of them outlive the call.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                map.as_raw_fd(),
                from.cast(),
                next.as_mut_ptr().cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &raw mut count,
                &raw const options,
            )
        };
        match -result {
            0 | libc::ENOENT => {}
            libc::ENOSPC => {
                // More in one bucket than there is room for.
                room *= 2;
                keys.resize(room * key_size.div_ceil(8), 0);
                values.resize(room * size.div_ceil(8), 0);
                continue;
            }
            libc::EINTR => continue,
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        values.as_bytes().chunks_exact(size).take(count as usize).for_each(&mut look);
        if result != 0 {
            return Ok(());
        }
        std::mem::swap(&mut place, &mut next);
        first = false;
    }
}
