//! Messages of the kernel about routes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waylay_host::route_messages(bytes));
