//! The datagrams of a flow.
#![no_main]

#[path = "../../crates/inspect/tests/strange/datagrams.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check(bytes));
