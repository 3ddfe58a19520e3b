//! What the programs cost the kernel that loads them. They are loaded, and dropped again: nothing is attached,
//! nothing pinned.

use std::io;

use libbpf_rs::ObjectBuilder;

use crate::{
    error::EbpfError,
    families,
    load::{
        LEARNING_PROGRAMS, OBJECT, PACKET_PROGRAM, RESIDENT_PROGRAMS, RESIDENTS_ALONE, SCOPE_PROGRAMS,
        SERVICE_PROGRAMS, WALK_PROGRAMS, leave_out_what_the_kernel_lacks, quiet_libbpf,
    },
    sys::{self, ProgramInfo},
};

/// What one program costs, with every function that it calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The program.
    pub program: &'static str,
    /// Instructions once it is loaded, relocated and rewritten by the verifier.
    pub instructions: u32,
    /// Bytes of machine code; 0 where the kernel interprets it.
    pub machine_code: u32,
    /// Instructions the verifier followed, over all paths. It gives up at 1,000,000.
    pub verified: u32,
    /// Bytes of stack of the program, then of each of its functions.
    pub frames: Vec<u32>,
    /// Bytes of stack where it is deepest: of the frames that are under way at one time, each rounded up to
    /// [`STACK_UNIT`]. There are 512.
    pub stack: u32,
}

/// What a frame takes is a multiple of this many bytes, and at least as much, where the kernel interprets programs. Some
/// count more finely where they are compiled.
pub const STACK_UNIT: u32 = 32;

/// Loads every program and asks the kernel and its verifier.
///
/// # Errors
/// [`EbpfError::Load`] and its neighbours if the programs do not load, [`EbpfError::Cost`] if the kernel does not
/// answer.
pub fn measure_programs() -> Result<Vec<Cost>, EbpfError> {
    quiet_libbpf();
    let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(EbpfError::of_load)?;
    leave_out_what_the_kernel_lacks(&mut open);
    let (object, logs) = sys::load_with_logs(open).map_err(EbpfError::of_load)?;
    let measure = |program| {
        let loaded = object.progs().find(|loaded| loaded.name() == program);
        let log = logs.iter().find(|(of, _)| of == program).map(|(_, log)| log);
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let info = loaded.ok_or_else(missing).and_then(|loaded| sys::program_info(&loaded));
        let frames = log.and_then(|log| stack_depths(log)).ok_or_else(missing);
        let both = info.and_then(|info| Ok((info, frames?)));
        let (info, frames) = both.map_err(|source| EbpfError::Cost { program, source })?;
        Ok(Cost {
            program,
            instructions: info.instructions.len() as u32,
            machine_code: info.machine_code,
            verified: info.verified,
            stack: deepest(&frames, &calls(&info), 0),
            frames,
        })
    };
    every_program()
        .filter(|program| *program != families::PROGRAM || families::has_the_hook())
        .map(measure)
        .collect()
}

fn every_program() -> impl Iterator<Item = &'static str> {
    let others = RESIDENT_PROGRAMS.into_iter().filter(|program| program.starts_with(RESIDENTS_ALONE));
    let scope = SCOPE_PROGRAMS.into_iter().chain([families::PROGRAM, PACKET_PROGRAM]);
    scope.chain(LEARNING_PROGRAMS).chain(SERVICE_PROGRAMS).chain(others).chain(WALK_PROGRAMS)
}

/// From the verifier's `stack depth 144+16+0`, or in other kernels `… max 160`.
fn stack_depths(log: &str) -> Option<Vec<u32>> {
    let line = log.lines().find_map(|line| line.strip_prefix("stack depth "))?;
    let depths = line.split(' ').next()?;
    depths.split('+').map(|depth| depth.parse().ok()).collect()
}

/// `BPF_JMP | BPF_CALL` of the kernel, with this as the source register: a call of a function of the program.
const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;

/// Which function calls which, by their numbers.
fn calls(info: &ProgramInfo) -> Vec<(usize, usize)> {
    let of = |at: i64| info.functions.partition_point(|function| i64::from(function.insn_off) <= at) - 1;
    let instructions = (0_i64..).zip(&info.instructions);
    let calls = instructions.filter(|(_, one)| one.code == CALL && one.src_reg() == PSEUDO_CALL);
    calls.map(|(at, call)| (of(at), of(at + 1 + i64::from(call.off)))).collect()
}

/// There is no recursion: the verifier refuses it.
fn deepest(frames: &[u32], calls: &[(usize, usize)], from: usize) -> u32 {
    let called = calls.iter().filter(|(caller, _)| *caller == from);
    let below = called.map(|(_, callee)| deepest(frames, calls, *callee)).max();
    frames[from].max(1).next_multiple_of(STACK_UNIT) + below.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_of_the_object_is_left_out() {
        let object = ObjectBuilder::default().open_memory(OBJECT).unwrap();
        let mut there: Vec<String> =
            object.progs().map(|program| program.name().to_string_lossy().into_owned()).collect();
        let mut measured: Vec<String> = every_program().map(str::to_owned).collect();
        there.sort();
        measured.sort();
        assert_eq!(there, measured);
    }

    #[test]
    fn the_verifiers_words_are_understood() {
        let log = "verification time 2345 usec\nstack depth 144+16+0\nprocessed 42 insns (limit 1000000)\n";
        assert_eq!(stack_depths(log), Some(vec![144, 16, 0]));
        assert_eq!(stack_depths("stack depth 8 max 8\n"), Some(vec![8]));
        assert_eq!(stack_depths("processed 42 insns\n"), None);
    }

    #[test]
    fn the_deepest_stack_is_that_of_one_path() {
        let calls = [(0, 1), (0, 2), (2, 3), (1, 3)];
        assert_eq!(deepest(&[100, 16, 8, 30], &calls, 0), 128 + 32 + 32);
        assert_eq!(deepest(&[100, 16, 80, 30], &calls, 0), 128 + 96 + 32);
        assert_eq!(deepest(&[0], &[], 0), 32);
    }
}
