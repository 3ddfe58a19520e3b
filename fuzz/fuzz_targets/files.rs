//! Files of the kernel, and those that waylay keeps.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waylay_host::files(bytes));
