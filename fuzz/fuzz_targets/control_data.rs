//! What is beside a datagram, as it comes from the kernel and from a program in C.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waylay_ws2::control_data(bytes));
