//! `WSAStartup` and `WSACleanup`: nothing works before the one or after the other.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use zerocopy::FromZeros;

use crate::{
    abi::StartupData,
    code::{Code, FAULT, NOT_INITIALISED, VERSION},
    pending,
    sys::caller::Place,
};

/// Version 2.2, low byte major.
const HIGHEST: u16 = 0x0202;
const DESCRIPTION: &[u8] = b"waylay: Windows Sockets' control codes for redirect records";
const STATUS: &[u8] = b"Running";

static STARTED: AtomicU32 = AtomicU32::new(0);
/// Starting and cleaning up exclude each other.
static CHANGING: Mutex<()> = Mutex::new(());

/// Fails before `WSAStartup` and after the last `WSACleanup`.
pub(crate) fn check() -> Result<(), Code> {
    if STARTED.load(Ordering::Acquire) == 0 { Err(NOT_INITIALISED) } else { Ok(()) }
}

pub(crate) fn start(version: u16, data: Place<StartupData>) -> Result<(), Code> {
    let [major, minor] = version.to_le_bytes();
    if major == 0 {
        return Err(VERSION);
    }
    let given = if (major, minor) > (2, 2) { HIGHEST } else { version };
    let mut answer = StartupData::new_zeroed();
    (answer.version, answer.high_version) = (given, HIGHEST);
    answer.description[..DESCRIPTION.len()].copy_from_slice(DESCRIPTION);
    answer.system_status[..STATUS.len()].copy_from_slice(STATUS);
    data.write(&answer).map_err(|_fault| FAULT)?;
    let _changing = CHANGING.lock();
    STARTED.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

pub(crate) fn clean_up() -> Result<(), Code> {
    let _changing = CHANGING.lock();
    check()?;
    if STARTED.fetch_sub(1, Ordering::AcqRel) == 1 {
        pending::abort(|_| true);
    }
    Ok(())
}
