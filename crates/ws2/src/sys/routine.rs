//! Completion routines: functions of the program.
#![expect(unsafe_code, reason = "functions of the program are called")]

use std::ptr::with_exposed_provenance_mut;

use super::caller::Place;
use crate::{abi::Overlapped, outcome::Outcome};

/// `LPWSAOVERLAPPED_COMPLETION_ROUTINE`: code, bytes, operation, flags.
pub type CompletionRoutine = unsafe extern "C" fn(u32, u32, *mut Overlapped, u32);

/// A completion routine that the program asked to be called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routine(CompletionRoutine);

impl Routine {
    /// # Safety
    /// The routine may be called with the operation it was given with.
    pub(crate) unsafe fn vouched_for(routine: CompletionRoutine) -> Self {
        Self(routine)
    }

    pub(crate) fn call(self, outcome: Outcome, operation: Place<Overlapped>) {
        let code = outcome.code.map_or(0, u32::from);
        // SAFETY: whoever gave the routine has vouched for it.
        unsafe { (self.0)(code, outcome.bytes, with_exposed_provenance_mut(operation.address()), 0) };
    }
}
