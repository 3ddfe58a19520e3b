//! The ground the tests stand on: the built `waylay` command, local servers,
//! and what a run reported. It starts real programs and never stands in for one.
//!
//! The tests need root: they load eBPF programs, in cgroups they make themselves.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod c;
mod corners;
mod daemon;
mod fence;
mod forbidden;
mod ground;
mod home;
mod instance;
mod lab;
mod process;
mod programs;
mod programs_of_others;
mod proxies;
mod report;
mod run;
mod servers;
mod station;
mod ward;

pub use c::{CheckedBy, program};
pub use corners::{Corner, Corners, Greeter, one_after_another};
pub use daemon::Daemon;
pub use fence::Fence;
pub use forbidden::{forbidding, forbidding_as_containers_do};
pub use ground::{Family, Ground, Namespace, Place};
pub use home::{Dialler, Home};
pub use instance::{Instance, cgroup_file_system};
pub use lab::{Dialled, Lab, one_service};
pub use process::{Lines, Process, Subject, kill, patiently, python, stop, system_python};
pub use programs::Programs;
pub use programs_of_others::Foreign;
pub use proxies::{Other, Proxies, Proxy, free_port, listens};
pub use report::Report;
pub use run::{Finished, Running, Waylay};
pub use servers::{
    Certificate, GitServer, TcpServer, WebServer, WorldReadable, dialler_of, listeners_of, random_file,
    waiting_for, world_readable_file,
};
pub use station::Station;
pub use ward::{Ward, become_user, submit};
