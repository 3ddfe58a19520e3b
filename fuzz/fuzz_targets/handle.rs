//! Handles, before the kernel's own check of them, compiled for user space.
#![no_main]

#[path = "../../tests/differential/tests/strange/handle.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check(bytes));
