//! The program on the loopback that shows services in datagrams themselves where these were going, and when it is attached.
//!
//! It is the one thing of the engine that is not bounded to the scope and its services. So it is there only while a service needs
//! it, and is not pinned: it goes with the process.

use std::{io, os::fd::AsFd};

use waylay_engine::{CapabilityState, Endpoint, LocalName};

use crate::{
    engine::EbpfEngine,
    error::EbpfError,
    hooks::{HookedProgram, named},
    load::PACKET_PROGRAM,
    sys,
};

impl EbpfEngine {
    /// Attaches it if one of these services needs it or one that is there still, and detaches it otherwise.
    pub(crate) fn show_in_packets(&mut self, endpoints: &[Endpoint]) -> Result<(), EbpfError> {
        if !endpoints.iter().chain(self.endpoints.values()).any(needs_it) {
            self.on_loopback = None;
        } else if self.on_loopback.is_none() {
            let program = self.loaded.program(PACKET_PROGRAM);
            let program = program.ok_or_else(|| EbpfError::Packets(io::ErrorKind::NotFound.into()))?;
            let link = sys::attach_to_loopback(program.as_fd()).map_err(EbpfError::Packets)?;
            self.on_loopback = Some(link);
        }
        Ok(())
    }
}

fn needs_it(endpoint: &Endpoint) -> bool {
    match endpoint.local_name {
        LocalName::Packet => endpoint.udp4.is_some(),
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
