//! The arguments of WSAIoctl and WSPIoctl; what is checked is in the file below, which `make test` uses too.
#![no_main]

#[path = "../../crates/ws2/tests/arguments/sys.rs"]
mod sys;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sys::call(bytes));
