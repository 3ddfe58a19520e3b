//! Whether the programs would load here. They are loaded, and dropped again: nothing is attached, nothing
//! pinned.

use libbpf_rs::ObjectBuilder;

use crate::{
    error::EbpfError,
    load::{OBJECT, leave_out_what_the_kernel_lacks, quiet_libbpf},
};

/// A program that the kernel was asked to take.
#[derive(Debug)]
pub struct Probed {
    /// The program.
    pub program: String,
    /// Why the kernel refused it.
    pub refusal: Option<EbpfError>,
}

/// Loads every program. If they do not load together, each alone, to tell which of them it is.
///
/// # Errors
///
/// If not even the object file can be read.
pub fn probe_programs() -> Result<Vec<Probed>, EbpfError> {
    quiet_libbpf();
    let names = names()?;
    let together = load(|_| true).err();
    let each = names.into_iter().map(|program| {
        let refusal = together.as_ref().and_then(|_| load(|name| name == program).err());
        Probed { program, refusal }
    });
    let mut probed: Vec<Probed> = each.collect();
    if probed.iter().all(|one| one.refusal.is_none()) && together.is_some() {
        probed.push(Probed { program: TOGETHER.into(), refusal: together });
    }
    Ok(probed)
}

/// Said in the place of a name where the kernel takes each of them and not all.
const TOGETHER: &str = "all of them together";

/// Those that a run loads, be it with proxies that run already.
fn names() -> Result<Vec<String>, EbpfError> {
    let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(EbpfError::of_load)?;
    leave_out_what_the_kernel_lacks(&mut open);
    let loaded = open.progs().filter(|program| program.autoload());
    Ok(loaded.map(|program| program.name().to_string_lossy().into_owned()).collect())
}

fn load(wanted: impl Fn(&str) -> bool) -> Result<(), EbpfError> {
    let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(EbpfError::of_load)?;
    for mut program in open.progs_mut() {
        let is_wanted = program.name().to_str().is_some_and(&wanted);
        program.set_autoload(is_wanted);
    }
    leave_out_what_the_kernel_lacks(&mut open);
    open.load().map_err(EbpfError::of_load)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::names;
    use crate::load::{
        LEARNING_PROGRAMS, RESIDENT_PROGRAMS, SCOPE_PROGRAMS, SERVICE_PROGRAMS, WALK_PROGRAMS,
    };

    #[test]
    fn whatever_a_run_loads_is_asked_about() {
        let names = names().unwrap();
        let loaded =
            [&SCOPE_PROGRAMS[..], &LEARNING_PROGRAMS, &SERVICE_PROGRAMS, &RESIDENT_PROGRAMS, &WALK_PROGRAMS]
                .concat();
        for program in loaded {
            assert!(names.iter().any(|name| name == program), "{program} is not among {names:?}");
        }
    }
}
