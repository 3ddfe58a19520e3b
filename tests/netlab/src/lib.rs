//! The ground the tests stand on: the built `waylay` command, local servers,
//! and what a run reported. It starts real programs and never stands in for one.
//!
//! The tests need root: they load eBPF programs, in cgroups they make themselves.
