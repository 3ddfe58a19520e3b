//! Lists of patterns, and streams in which they are looked for.
#![no_main]

#[path = "../../crates/inspect/tests/strange/scan.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check(bytes));
