//! What is typed after `--through`. The command is no library, so its modules are looked at where they are.
#![no_main]
#![allow(dead_code, reason = "not all of the modules is needed here")]

#[path = "../../crates/cli/src/meant.rs"]
mod meant;
#[path = "../../crates/cli/src/spec.rs"]
mod spec;
#[path = "../../crates/cli/src/strange.rs"]
mod strange;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strange::spec(bytes));
