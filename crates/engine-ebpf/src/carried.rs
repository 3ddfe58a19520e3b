//! Which slots flows and sockets still carry.
//!
//! The programs copy chains from flows to sockets and back while user space looks at one after the other, so that
//! something could always be where it does not look at the moment. Therefore they note each copy, before they make it:
//!
//! 1. The notes are cleared, and whatever program runs at that moment is waited for.
//! 2. Flows are looked at, and sockets.
//! 3. The notes are read.
//!
//! What carries a slot now was there all the time, and has been seen, or was copied after the first step, and is noted.

use std::{
    io::Read,
    os::fd::{AsFd, AsRawFd},
};

use libbpf_rs::{Iter, MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, IntoBytes};

use crate::{error::EbpfError, flows, load::Loaded};

const NOTES: &str = "copied";

/// The slots that something carries, as a mask; maybe more, if chains are copied at the moment. `tables` are those in
/// force.
pub(crate) fn carried_slots(loaded: &mut Loaded, tables: &MapHandle) -> Result<u64, EbpfError> {
    let notes = loaded.map(NOTES)?;
    notes
        .update(&0_u32.to_ne_bytes(), 0_u64.as_bytes(), MapFlags::ANY)
        .map_err(|source| EbpfError::Map { map: NOTES, source })?;
    wait_for_programs(loaded, tables)?;
    let seen = carried_by_flows(loaded)? | carried_by_sockets(loaded)?;
    let noted = notes
        .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)
        .map_err(|source| EbpfError::Map { map: NOTES, source })?;
    Ok(seen | noted.and_then(|bytes| u64::read_from_bytes(&bytes).ok()).unwrap_or(u64::MAX))
}

/// Puts the tables where they are already: the kernel lets nobody replace an inner map without waiting for the
/// programs that may be looking at the former (`maybe_wait_bpf_programs` of kernel/bpf/syscall.c).
fn wait_for_programs(loaded: &Loaded, tables: &MapHandle) -> Result<(), EbpfError> {
    let fd = tables.as_fd().as_raw_fd();
    loaded
        .map("tables")?
        .update(&0_u32.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
        .map_err(|source| EbpfError::Map { map: "tables", source })
}

fn carried_by_flows(loaded: &Loaded) -> Result<u64, EbpfError> {
    let mut mask = 0;
    flows::for_each_connection(loaded, |flow| mask |= flow.chain.excluded)?;
    flows::for_each_datagram_flow(loaded, |flow| mask |= flow.chain.excluded)?;
    Ok(mask)
}

/// A socket's storage has no key that user space could walk along; a program is called for each.
fn carried_by_sockets(loaded: &mut Loaded) -> Result<u64, EbpfError> {
    const PROGRAM: &str = "wl_carriers";
    let failed = |source| EbpfError::Map { map: "carried", source };
    let map = loaded.map("carried")?;
    let link = loaded.iterator(PROGRAM, Some(map.as_fd())).map_err(failed)?;
    let mut masks = Vec::new();
    Iter::new(&link).map_err(failed)?.read_to_end(&mut masks).map_err(|source| failed(source.into()))?;
    let masks = masks.chunks_exact(size_of::<u64>());
    Ok(masks.filter_map(|bytes| u64::read_from_bytes(bytes).ok()).fold(0, |all, mask| all | mask))
}
