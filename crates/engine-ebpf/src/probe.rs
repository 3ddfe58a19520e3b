//! Whether the programs would load here. They are loaded, and dropped again: nothing is attached, nothing
//! pinned.

use libbpf_rs::ObjectBuilder;

use crate::{
    error::EbpfError,
    families,
    load::{
        OBJECT, SCOPE_PROGRAMS, SERVICE_PROGRAMS, leave_out_residents, leave_out_what_the_kernel_lacks,
        quiet_libbpf,
    },
};

/// A program that the kernel was asked to take.
#[derive(Debug)]
pub struct Probed {
    /// The program.
    pub program: &'static str,
    /// Why the kernel refused it.
    pub refusal: Option<EbpfError>,
}

/// Loads every program. If they do not load together, each alone, to tell which of them it is.
#[must_use]
pub fn probe_programs() -> Vec<Probed> {
    quiet_libbpf();
    let programs = SCOPE_PROGRAMS.into_iter().chain(SERVICE_PROGRAMS);
    if load(|_| true).is_ok() {
        return programs.map(|program| Probed { program, refusal: None }).collect();
    }
    programs.map(|program| Probed { program, refusal: load(|name| name == program).err() }).collect()
}

fn load(wanted: impl Fn(&str) -> bool) -> Result<(), EbpfError> {
    let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(EbpfError::of_load)?;
    for mut program in open.progs_mut() {
        let is_wanted = program.name().to_str().is_some_and(&wanted);
        program.set_autoload(is_wanted);
    }
    if wanted(families::PROGRAM) {
        leave_out_what_the_kernel_lacks(&mut open);
    }
    leave_out_residents(&mut open)?;
    open.load().map_err(EbpfError::of_load)?;
    Ok(())
}
