//! Compiles the programs' pure headers for user space.

fn main() {
    cc::Build::new().file("src/headers.c").warnings_into_errors(true).compile("waylay_headers");
    println!("cargo::rerun-if-changed=src/headers.c");
    println!("cargo::rerun-if-changed=../../crates/engine-ebpf/bpf");
}
