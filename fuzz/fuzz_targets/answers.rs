//! Answers of the kernel to what a service asks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waylay::answers(bytes));
