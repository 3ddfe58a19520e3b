//! From the object file to programs in the kernel.

use std::{fs, os::fd::BorrowedFd};

use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel, ProgramMut,
};
use rustix::rand::GetRandomFlags;
use waylay_abi as abi;
use zerocopy::IntoBytes;

use crate::{admitted, error::EbpfError, families, packets, past, registry, scope::Scope, sys};

/// The compiled programs, with their type information.
pub const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/waylay.bpf.o"));

/// Attached to the whole scope. Listed so that a program that is half way in
/// never meets a redirected socket it cannot follow: connect comes last.
pub(crate) const SCOPE_PROGRAMS: [&str; 17] = [
    "wl_sock_create",
    "wl_reserve6",
    "wl_reserve4",
    "wl_sock_release",
    "wl_sockops",
    "wl_getpeername4",
    "wl_getpeername6",
    "wl_getsockname4",
    "wl_getsockname6",
    "wl_recvmsg4",
    "wl_recvmsg6",
    "wl_sendmsg6",
    "wl_sendmsg4",
    "wl_udp_connect6",
    "wl_udp_connect4",
    "wl_connect6",
    "wl_connect4",
];
/// Attached to the scope while a policy asks for names of hosts.
pub(crate) const LEARNING_PROGRAMS: [&str; 2] = ["wl_note_asker", "wl_hear_names"];
/// Attached to the loopback while a service is shown the destination in datagrams themselves.
pub(crate) const PACKET_PROGRAM: &str = "wl_packets";
/// Attached to each service's cgroup.
pub(crate) const SERVICE_PROGRAMS: [&str; 8] = [
    "wl_getsockopt",
    "wl_setsockopt",
    "wl_bind6",
    "wl_bind4",
    "wl_answer6",
    "wl_answer4",
    "wl_connect_answer6",
    "wl_connect_answer4",
];
/// Attached to the cgroups of services that run already, where the scope's are asked too.
pub(crate) const RESIDENT_PROGRAMS_IN_SCOPE: [&str; 7] = [
    "wl_getsockopt",
    "wl_bind6",
    "wl_bind4",
    "wl_answer6",
    "wl_answer4",
    "wl_connect_answer6",
    "wl_connect_answer4",
];
/// And outside of the scope; connect last, likewise, and what answers a flow before what judges it.
pub(crate) const RESIDENT_PROGRAMS: [&str; 21] = [
    "wl_getsockopt",
    "wl_bind6",
    "wl_bind4",
    "wl_answer6",
    "wl_answer4",
    "wl_connect_answer6",
    "wl_connect_answer4",
    "wl_sock_release",
    "wl_resident_sockops",
    "wl_getpeername4",
    "wl_getpeername6",
    "wl_getsockname4",
    "wl_getsockname6",
    "wl_resident_recvmsg4",
    "wl_resident_recvmsg6",
    "wl_resident_sendmsg6",
    "wl_resident_sendmsg4",
    "wl_resident_udp_connect6",
    "wl_resident_udp_connect4",
    "wl_resident_connect6",
    "wl_resident_connect4",
];
/// What the names begin with of those that are attached nowhere else.
pub(crate) const RESIDENTS_ALONE: &str = "wl_resident_";
const ERRANDS: &str = "errands";
/// Those that user space runs over the maps.
pub(crate) const WALK_PROGRAMS: [&str; 6] = [
    "wl_carriers",
    "wl_see_connection",
    "wl_see_flow",
    "wl_judge_flow",
    "wl_judge_tuple",
    "wl_judge_datagrams",
];

/// Programs that are loaded, with their configuration and key in place.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) object: Object,
    pub(crate) netns: u64,
}

impl Loaded {
    pub(crate) fn new(scope: &Scope) -> Result<Self, EbpfError> {
        quiet_libbpf();
        let netns = sys::netns_cookie().map_err(EbpfError::Namespace)?;
        let loaded = Self { object: load(scope)?, netns };
        loaded.write_config(scope)?;
        loaded.write_key(scope.instance)?;
        loaded.write_empty_flow()?;
        Ok(loaded)
    }

    /// A handle on one of the object's maps.
    pub(crate) fn map(&self, name: &'static str) -> Result<MapHandle, EbpfError> {
        let found = self.object.maps().find(|map| map.name() == name);
        let missing = || EbpfError::Map {
            map: name,
            source: std::io::Error::from(std::io::ErrorKind::NotFound).into(),
        };
        let map = found.ok_or_else(missing)?;
        MapHandle::try_from(&map).map_err(|source| EbpfError::Map { map: name, source })
    }

    /// One of the programs that are called for each entry of a map, tied to that map, or for each socket.
    pub(crate) fn iterator(
        &mut self,
        program: &'static str,
        map: Option<BorrowedFd<'_>>,
    ) -> libbpf_rs::Result<Link> {
        let found = self.program(program);
        let missing = || libbpf_rs::Error::from(std::io::Error::from(std::io::ErrorKind::NotFound));
        let found = found.ok_or_else(missing)?;
        match map {
            Some(map) => found.attach_iter(map),
            None => found.attach(),
        }
    }

    pub(crate) fn program(&mut self, name: &'static str) -> Option<ProgramMut<'_>> {
        self.object.progs_mut().find(|program| program.name() == name)
    }

    fn write_config(&self, scope: &Scope) -> Result<(), EbpfError> {
        let config = abi::Config {
            netns: self.netns,
            service_level: scope.service_level,
            scope_level: scope.level,
            max_flows: scope.limits.flows,
            max_flows_per_cgroup: scope.limits.flows_per_cgroup,
            max_datagram_flows: scope.limits.datagram_flows,
            max_datagram_flows_per_cgroup: scope.limits.datagram_flows_per_cgroup,
            datagram_idle_ns: u64::try_from(scope.limits.datagram_idle.as_nanos()).unwrap_or(u64::MAX),
        };
        self.write_first("config", config.as_bytes())
    }

    /// From here on nobody can change the key; that only those who may load
    /// programs can read it is the kernel's word.
    fn write_key(&self, instance: u64) -> Result<(), EbpfError> {
        let mut secret = [0_u64; 2];
        rustix::rand::getrandom(secret.as_mut_bytes(), GetRandomFlags::empty())
            .map_err(|errno| EbpfError::Random(errno.into()))?;
        let key = abi::HandleKey { boot: boot_number()?, instance, k0: secret[0], k1: secret[1] };
        self.write_first("handle_key", key.as_bytes())?;
        let map = self.map("handle_key")?;
        map.freeze().map_err(|source| EbpfError::Map { map: "handle_key", source })
    }

    fn write_empty_flow(&self) -> Result<(), EbpfError> {
        for map in ["empty_flow", "empty_datagram_flow"] {
            let size = self.map(map)?.value_size() as usize;
            self.write_first(map, &vec![0; size])?;
        }
        Ok(())
    }

    fn write_first(&self, map: &'static str, value: &[u8]) -> Result<(), EbpfError> {
        self.map(map)?
            .update(&0_u32.to_ne_bytes(), value, MapFlags::ANY)
            .map_err(|source| EbpfError::Map { map, source })
    }
}

/// libbpf's own words go to debug logs of those who ask; errors carry the rest.
pub(crate) fn quiet_libbpf() {
    if std::env::var_os("WAYLAY_LIBBPF_LOG").is_none() {
        libbpf_rs::set_print(None);
    } else {
        libbpf_rs::set_print(Some((PrintLevel::Debug, |_, text| eprint!("{text}"))));
    }
}

fn load(scope: &Scope) -> Result<Object, EbpfError> {
    match load_with(scope, families::has_the_hook()) {
        // It is nothing that a run could not do without: a filter stands in for it.
        Err(_) if families::has_the_hook() => load_with(scope, false),
        loaded => loaded,
    }
}

fn load_with(scope: &Scope, every_family: bool) -> Result<Object, EbpfError> {
    let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(EbpfError::of_load)?;
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if registry::SHARED.contains(&name.as_str()) {
            let path = registry::pin_path(&scope.pin_root, &name);
            map.set_pin_path(&path).map_err(|source| EbpfError::Pin { path: path.clone(), source })?;
        }
        if name == past::MAP {
            let sized = map.set_max_entries(scope.limits.past);
            sized.map_err(|source| EbpfError::Map { map: past::MAP, source })?;
        }
        if let Some(map_name) = admitted::MAPS.into_iter().find(|known| *known == name) {
            let sized = map.set_max_entries(scope.limits.cgroups);
            sized.map_err(|source| EbpfError::Map { map: map_name, source })?;
        }
    }
    leave_out_unless(every_family, families::PROGRAM, &mut open);
    leave_out_unless(packets::has_the_hook(), PACKET_PROGRAM, &mut open);
    if !scope.residents {
        leave_out_residents(&mut open)?;
    }
    open.load().map_err(EbpfError::of_load)
}

pub(crate) fn leave_out_what_the_kernel_lacks(open: &mut OpenObject) {
    leave_out_unless(families::has_the_hook(), families::PROGRAM, open);
    leave_out_unless(packets::has_the_hook(), PACKET_PROGRAM, open);
}

/// Where none can come, nothing is loaded for them nor kept.
pub(crate) fn leave_out_residents(open: &mut OpenObject) -> Result<(), EbpfError> {
    for mut program in open.progs_mut() {
        if program.name().to_str().is_some_and(|name| name.starts_with(RESIDENTS_ALONE)) {
            program.set_autoload(false);
        }
    }
    let errands = open.maps_mut().find(|map| map.name() == ERRANDS);
    match errands.map(|mut map| map.set_max_entries(1)) {
        Some(Err(source)) => Err(EbpfError::Map { map: ERRANDS, source }),
        Some(Ok(())) | None => Ok(()),
    }
}

fn leave_out_unless(is_wanted: bool, program: &str, open: &mut OpenObject) {
    let optional = open.progs_mut().find(|found| found.name() == program && !is_wanted);
    if let Some(mut optional) = optional {
        optional.set_autoload(false);
    }
}

/// The inner map of one set of tables, filled.
pub(crate) fn tables_map(tables: &abi::Tables) -> libbpf_rs::Result<MapHandle> {
    let mut options = libbpf_rs::libbpf_sys::bpf_map_create_opts::default();
    options.sz = size_of_val(&options) as _;
    let size = size_of::<abi::Tables>() as u32;
    let map = MapHandle::create(libbpf_rs::MapType::Array, Some("tables_slot"), 4, size, 1, &options)?;
    map.update(&0_u32.to_ne_bytes(), tables.as_bytes(), MapFlags::ANY)?;
    Ok(map)
}

/// The inner map of one set of filters' words, filled, with room for at least so many chunks.
pub(crate) fn filters_map(words: &[u64], room: usize) -> libbpf_rs::Result<MapHandle> {
    const INNER_MAP: u32 = 1 << 12; // BPF_F_INNER_MAP: one may replace another of a different length
    let mut options = libbpf_rs::libbpf_sys::bpf_map_create_opts::default();
    options.sz = size_of_val(&options) as _;
    options.map_flags = INNER_MAP;
    let (chunk, count) = (abi::CHUNK * size_of::<u64>(), words.len().div_ceil(abi::CHUNK).max(room));
    let kind = libbpf_rs::MapType::Array;
    let map = MapHandle::create(kind, Some("filters_slot"), 4, chunk as u32, count as u32, &options)?;
    write_chunks(&map, words)?;
    Ok(map)
}

/// Filters' words into a map that has room for them.
pub(crate) fn write_chunks(map: &MapHandle, words: &[u64]) -> libbpf_rs::Result<()> {
    for (number, words) in (0_u32..).zip(words.chunks_exact(abi::CHUNK)) {
        map.update(&number.to_ne_bytes(), words.as_bytes(), MapFlags::ANY)?;
    }
    Ok(())
}

/// The first half of the kernel's boot id.
fn boot_number() -> Result<u64, EbpfError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(path).map_err(|source| EbpfError::Read { path: path.into(), source })?;
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    Ok(u64::from_str_radix(&digits, 16).unwrap_or_default())
}
