//! Gives the shared library its name for the linker of programs that use it.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libwaylay_ws2.so.0");
    println!("cargo::rerun-if-changed=build.rs");
}
