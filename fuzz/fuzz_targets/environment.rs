//! The variables by which a service is given its listeners.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waylay::environment(bytes));
