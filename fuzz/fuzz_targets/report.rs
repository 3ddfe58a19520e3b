//! Lines that are said to be reports.
#![no_main]

#[path = "../../crates/inspect/tests/strange/report.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check(bytes));
