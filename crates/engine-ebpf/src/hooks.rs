//! Who is hooked into a cgroup: questions to the kernel that change nothing.

use std::{collections::BTreeMap, fmt, fs::File, io, os::fd::AsFd, path::Path};

use libbpf_rs::{libbpf_sys as kernel, query::ProgInfoIter};

use crate::sys;

/// Where a program can be attached to a cgroup to have a say on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of `enum bpf_attach_type`, linux/bpf.h")]
pub enum Hook {
    InetIngress,
    InetEgress,
    InetSockCreate,
    InetSockRelease,
    SockOps,
    Inet4Bind,
    Inet6Bind,
    Inet4Connect,
    Inet6Connect,
    Udp4Sendmsg,
    Udp6Sendmsg,
    Udp4Recvmsg,
    Udp6Recvmsg,
    Getsockopt,
    Setsockopt,
    Inet4Getpeername,
    Inet6Getpeername,
    Inet4Getsockname,
    Inet6Getsockname,
}

/// What is attached to one cgroup at one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooked {
    /// Where.
    pub hook: Hook,
    /// The programs, in the order they run.
    pub programs: Vec<HookedProgram>,
    /// What those who attached them say of cgroups below.
    pub below: Below,
}

/// A program that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookedProgram {
    /// Its number in the kernel.
    pub id: u32,
    /// Its name, cut to 15 bytes; `None` if this process may not ask (that takes `CAP_SYS_ADMIN`).
    pub name: Option<String>,
}

/// Whether programs can be attached to the cgroups below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Beside this one: both run (`BPF_F_ALLOW_MULTI`; every link is of that kind).
    Beside,
    /// In its place (`BPF_F_ALLOW_OVERRIDE`).
    Instead,
    /// No other.
    Refused,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::InetIngress,
        Self::InetEgress,
        Self::InetSockCreate,
        Self::InetSockRelease,
        Self::SockOps,
        Self::Inet4Bind,
        Self::Inet6Bind,
        Self::Inet4Connect,
        Self::Inet6Connect,
        Self::Udp4Sendmsg,
        Self::Udp6Sendmsg,
        Self::Udp4Recvmsg,
        Self::Udp6Recvmsg,
        Self::Getsockopt,
        Self::Setsockopt,
        Self::Inet4Getpeername,
        Self::Inet6Getpeername,
        Self::Inet4Getsockname,
        Self::Inet6Getsockname,
    ];

    /// Where this engine attaches its own programs.
    pub const OURS: [Self; 18] = [
        Self::InetSockCreate,
        Self::InetSockRelease,
        Self::SockOps,
        Self::Inet4Bind,
        Self::Inet6Bind,
        Self::Inet4Connect,
        Self::Inet6Connect,
        Self::Udp4Sendmsg,
        Self::Udp6Sendmsg,
        Self::Udp4Recvmsg,
        Self::Udp6Recvmsg,
        Self::Getsockopt,
        Self::Setsockopt,
        Self::Inet4Getpeername,
        Self::Inet6Getpeername,
        Self::Inet4Getsockname,
        Self::Inet6Getsockname,
        Self::InetIngress,
    ];

    fn attach_type(self) -> kernel::bpf_attach_type {
        match self {
            Self::InetIngress => kernel::BPF_CGROUP_INET_INGRESS,
            Self::InetEgress => kernel::BPF_CGROUP_INET_EGRESS,
            Self::InetSockCreate => kernel::BPF_CGROUP_INET_SOCK_CREATE,
            Self::InetSockRelease => kernel::BPF_CGROUP_INET_SOCK_RELEASE,
            Self::SockOps => kernel::BPF_CGROUP_SOCK_OPS,
            Self::Inet4Bind => kernel::BPF_CGROUP_INET4_BIND,
            Self::Inet6Bind => kernel::BPF_CGROUP_INET6_BIND,
            Self::Inet4Connect => kernel::BPF_CGROUP_INET4_CONNECT,
            Self::Inet6Connect => kernel::BPF_CGROUP_INET6_CONNECT,
            Self::Udp4Sendmsg => kernel::BPF_CGROUP_UDP4_SENDMSG,
            Self::Udp6Sendmsg => kernel::BPF_CGROUP_UDP6_SENDMSG,
            Self::Udp4Recvmsg => kernel::BPF_CGROUP_UDP4_RECVMSG,
            Self::Udp6Recvmsg => kernel::BPF_CGROUP_UDP6_RECVMSG,
            Self::Getsockopt => kernel::BPF_CGROUP_GETSOCKOPT,
            Self::Setsockopt => kernel::BPF_CGROUP_SETSOCKOPT,
            Self::Inet4Getpeername => kernel::BPF_CGROUP_INET4_GETPEERNAME,
            Self::Inet6Getpeername => kernel::BPF_CGROUP_INET6_GETPEERNAME,
            Self::Inet4Getsockname => kernel::BPF_CGROUP_INET4_GETSOCKNAME,
            Self::Inet6Getsockname => kernel::BPF_CGROUP_INET6_GETSOCKNAME,
        }
    }
}

impl fmt::Display for Hook {
    /// As bpftool(8) calls it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InetIngress => "cgroup_inet_ingress",
            Self::InetEgress => "cgroup_inet_egress",
            Self::InetSockCreate => "cgroup_inet_sock_create",
            Self::InetSockRelease => "cgroup_inet_sock_release",
            Self::SockOps => "cgroup_sock_ops",
            Self::Inet4Bind => "cgroup_inet4_bind",
            Self::Inet6Bind => "cgroup_inet6_bind",
            Self::Inet4Connect => "cgroup_inet4_connect",
            Self::Inet6Connect => "cgroup_inet6_connect",
            Self::Udp4Sendmsg => "cgroup_udp4_sendmsg",
            Self::Udp6Sendmsg => "cgroup_udp6_sendmsg",
            Self::Udp4Recvmsg => "cgroup_udp4_recvmsg",
            Self::Udp6Recvmsg => "cgroup_udp6_recvmsg",
            Self::Getsockopt => "cgroup_getsockopt",
            Self::Setsockopt => "cgroup_setsockopt",
            Self::Inet4Getpeername => "cgroup_inet4_getpeername",
            Self::Inet6Getpeername => "cgroup_inet6_getpeername",
            Self::Inet4Getsockname => "cgroup_inet4_getsockname",
            Self::Inet6Getsockname => "cgroup_inet6_getsockname",
        })
    }
}

/// What is attached to this cgroup itself; what its ancestors have holds for it too.
///
/// # Errors
/// If the cgroup cannot be opened, or this process may not ask: that takes `CAP_NET_ADMIN` or
/// `CAP_SYS_ADMIN`.
pub fn hooked(cgroup: &Path) -> io::Result<Vec<Hooked>> {
    let directory = File::open(cgroup)?;
    let mut found = Vec::new();
    for hook in Hook::ALL {
        let attached = match sys::attached_programs(directory.as_fd(), hook.attach_type()) {
            // A kernel that does not know the hook has nobody there.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => continue,
            attached => attached?,
        };
        if !attached.ids.is_empty() {
            let named = |id| HookedProgram { id, name: None };
            let programs = attached.ids.into_iter().map(named).collect();
            found.push(Hooked { hook, programs, below: below(attached.flags) });
        }
    }
    name(&mut found);
    Ok(found)
}

fn below(flags: u32) -> Below {
    if flags & kernel::BPF_F_ALLOW_MULTI != 0 {
        Below::Beside
    } else if flags & kernel::BPF_F_ALLOW_OVERRIDE != 0 {
        Below::Instead
    } else {
        Below::Refused
    }
}

pub(crate) fn named(ids: Vec<u32>) -> Vec<HookedProgram> {
    let names = if ids.is_empty() { BTreeMap::new() } else { names() };
    ids.into_iter().map(|id| HookedProgram { id, name: names.get(&id).cloned() }).collect()
}

fn names() -> BTreeMap<u32, String> {
    ProgInfoIter::default().map(|program| (program.id, program.name.to_string_lossy().into_owned())).collect()
}

fn name(found: &mut [Hooked]) {
    if found.is_empty() {
        return;
    }
    let names = names();
    for program in found.iter_mut().flat_map(|hooked| &mut hooked.programs) {
        program.name = names.get(&program.id).cloned();
    }
}
