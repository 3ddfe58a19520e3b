//! The frames of a client's Initial packets.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waylay_inspect::sniff::quic_frames(bytes));
