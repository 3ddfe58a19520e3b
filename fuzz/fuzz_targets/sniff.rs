//! The first bytes of a connection.
#![no_main]

#[path = "../../crates/inspect/tests/strange/sniff.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check(bytes));
