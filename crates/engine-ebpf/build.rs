//! Compiles the kernel programs and generates their skeleton.

use std::{env, path::PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("waylay.skel.rs");
    SkeletonBuilder::new()
        .source("bpf/waylay.bpf.c")
        .clang_args(["-mcpu=v3", "-Wall", "-Werror"])
        .build_and_generate(&out)
        .expect("clang compiles bpf/waylay.bpf.c (on Debian: apt install clang libelf-dev zlib1g-dev pkg-config)");
    println!("cargo::rerun-if-changed=bpf");
}
