//! Frames of the ring buffer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waylay_engine_ebpf::frames(bytes));
