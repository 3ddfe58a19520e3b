//! Compiles the kernel programs.

use std::{env, path::PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    SkeletonBuilder::new()
        .source("bpf/waylay.bpf.c")
        .obj(out.join("waylay.bpf.o"))
        // Debian keeps asm/types.h in a directory by architecture, which clang
        // searches for its own targets but not for BPF.
        .clang_args(["-mcpu=v3", "-Wall", "-Werror", "-idirafter", &format!("/usr/include/{arch}-linux-gnu")])
        .build()
        .expect(
            "clang compiles bpf/waylay.bpf.c (on Debian: apt install clang libelf-dev zlib1g-dev pkg-config)",
        );
    println!("cargo::rerun-if-changed=bpf");
}
