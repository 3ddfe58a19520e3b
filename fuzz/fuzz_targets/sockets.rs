//! Messages of the kernel about sockets.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waylay_host::socket_messages(bytes));
