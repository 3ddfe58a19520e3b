//! Policy files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waylay_config::strange::policy(bytes));
