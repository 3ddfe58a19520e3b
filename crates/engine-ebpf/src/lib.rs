//! The Linux engine: eBPF programs and their loader.
