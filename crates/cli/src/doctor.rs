//! `waylay doctor`: what was found, in words or as JSON.

mod human;
mod json;
mod words;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use waylay_host::doctor::{Diagnosis, Need, examine};

use crate::{
    args::{DoctorArgs, Format},
    terminal,
};

/// Something that `waylay run` needs is missing.
const NOT_READY: u8 = 1;

pub(crate) fn doctor(args: &DoctorArgs) -> Result<ExitCode, Box<dyn Error>> {
    let diagnosis = examine();
    let text = match args.output {
        Format::Human => human::text(&diagnosis, terminal::stdout()),
        Format::Json => json::text(&diagnosis)?,
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(status(&diagnosis))
}

/// What a run without the engine on eBPF does without, and what would help.
pub(crate) fn why_without(lacking: Need) -> (&'static str, &'static str) {
    match lacking {
        Need::Root => ("root", "sudo waylay run … does more"),
        other @ (Need::Kernel
        | Need::Btf
        | Need::Cgroup2
        | Need::BpfFileSystem
        | Need::InitialUserNamespace
        | Need::CapBpf
        | Need::CapNetAdmin
        | Need::CapPerfmon
        | Need::Programs
        | Need::Hooks
        | Need::Notifications
        | Need::SoleSupervisor
        | Need::Descriptors
        | Need::Memory
        | Need::Tracing) => (words::need(other), "waylay doctor says what would help"),
    }
}

fn status(diagnosis: &Diagnosis) -> ExitCode {
    if diagnosis.is_ready() { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) }
}
