//! The program on the loopback that shows services in datagrams themselves where these were going, and when it is attached.
//!
//! It is the one thing of the engine that is not bounded to the scope and its services. So it is there only while a service needs
//! it, and is not pinned: it goes with the process.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use libbpf_rs::{MapCore, MapHandle, MapType};
use waylay_abi as abi;
use waylay_engine::{CapabilityState, Endpoint, LocalName};

use crate::{
    engine::EbpfEngine,
    error::EbpfError,
    hooks::{HookedProgram, named},
    in_force::put,
    load::PACKET_PROGRAM,
    sys,
};

/// Who has been told what, and the token that stands for it.
const TOLD: &str = "tokens_told";
/// Flows that services are told of at once; of others they cannot answer any more.
const MOST_TOLD: u32 = 1 << 16;

/// The program at its place, as long as this lives, and what it writes to, which takes some 7 MB.
#[derive(Debug)]
pub(crate) struct OnLoopback {
    told: MapHandle,
    _link: OwnedFd,
}

impl Drop for OnLoopback {
    fn drop(&mut self) {
        // What is not deleted takes room until the next one is put there.
        let _stays = self.told.delete(&0_u32.to_ne_bytes());
    }
}

impl EbpfEngine {
    /// Attaches it if one of these services needs it or one that is there still, and detaches it otherwise.
    pub(crate) fn show_in_packets(&mut self, endpoints: &[Endpoint]) -> Result<(), EbpfError> {
        if !endpoints.iter().chain(self.endpoints.values()).any(needs_it) {
            self.on_loopback = None;
        } else if self.on_loopback.is_none() {
            self.on_loopback = Some(self.attach_to_loopback()?);
        }
        Ok(())
    }

    fn attach_to_loopback(&mut self) -> Result<OnLoopback, EbpfError> {
        let told = self.loaded.map(TOLD)?;
        let program = self.loaded.program(PACKET_PROGRAM).filter(|_| has_the_hook());
        let program = program.ok_or_else(|| EbpfError::Packets(io::ErrorKind::Unsupported.into()))?;
        let room = told_map().map_err(|source| EbpfError::Map { map: TOLD, source })?;
        put(&told, TOLD, 0, &room)?;
        let link = sys::attach_to_loopback(program.as_fd());
        link.map(|link| OnLoopback { told, _link: link }).map_err(EbpfError::Packets)
    }
}

fn told_map() -> libbpf_rs::Result<MapHandle> {
    let mut options = libbpf_rs::libbpf_sys::bpf_map_create_opts::default();
    options.sz = size_of_val(&options) as _;
    let (key, token) = (size_of::<abi::Told>() as u32, size_of::<u32>() as u32);
    MapHandle::create(MapType::LruHash, Some("told_slot"), key, token, MOST_TOLD, &options)
}

/// Whether the program can be attached, before which there is no use in loading it: to devices by links, since Linux 6.6.
pub(crate) fn has_the_hook() -> bool {
    match sys::attached_to_loopback() {
        Ok(_) => true,
        Err(error) => error.raw_os_error() != Some(libc::EINVAL),
    }
}

fn needs_it(endpoint: &Endpoint) -> bool {
    match endpoint.local_name {
        LocalName::Packet => endpoint.udp4.is_some() || !endpoint.udp6.is_empty(),
        LocalName::Listener | LocalName::Destination => false,
    }
}

/// What is attached to the loopback of this thread's network namespace by links, at what comes in by it: such a program of this
/// engine's is called `wl_packets`.
///
/// # Errors
/// If the kernel has no such links (before Linux 6.6), or this process may not ask.
pub fn hooked_to_loopback() -> io::Result<Vec<HookedProgram>> {
    match sys::attached_to_loopback() {
        Ok(attached) => Ok(named(attached.ids)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// How many programs there are of these engines.
#[must_use]
pub fn shown_in_packets_here() -> usize {
    let is_ours = |program: &&HookedProgram| program.name.as_deref() == Some(PACKET_PROGRAM);
    hooked_to_loopback().map_or(0, |hooked| hooked.iter().filter(is_ours).count())
}

/// For a report.
pub(crate) fn capability() -> CapabilityState {
    let missing =
        |needs: &str, remedy: &str| CapabilityState::Missing { needs: needs.into(), remedy: remedy.into() };
    match hooked_to_loopback().map_err(|error| error.raw_os_error()) {
        Ok(_) => CapabilityState::Available,
        Err(Some(libc::EPERM)) => missing("CAP_NET_ADMIN", "run waylay as root"),
        Err(_) => missing("programs that are attached to devices by links (tcx)", "use Linux 6.6 or later"),
    }
}
