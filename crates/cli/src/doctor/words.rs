//! Words for what was found, the same in both forms.

use waylay_core::MAX_HOPS;
use waylay_host::doctor::{Facts, Guard, Jit, Meaning, Need, Other, Relation, ResidentSeen, Run, RunState};

/// What is needed.
pub(super) fn need(need: Need) -> &'static str {
    match need {
        Need::Kernel => "Linux 6.1 or later",
        Need::Btf => "the kernel's type information (CONFIG_DEBUG_INFO_BTF=y)",
        Need::Cgroup2 => "cgroup v2, writable",
        Need::BpfFileSystem => "the BPF file system",
        Need::Root => "root, to give each process a user of its own",
        Need::InitialUserNamespace => "the initial user namespace",
        Need::CapBpf => "CAP_BPF, to load programs",
        Need::CapNetAdmin => "CAP_NET_ADMIN, to attach them to sockets",
        Need::CapPerfmon => "CAP_PERFMON, to let them follow the kernel's structures",
        Need::Programs => "programs that this kernel takes",
        Need::Hooks => "hooks that nobody above has reserved",
        Need::Notifications => {
            "filters of system calls that ask (seccomp user notifications, Linux 5.19 or later)"
        }
        Need::SoleSupervisor => "no other filter that asks, on this process",
        Need::Descriptors => "the command's sockets (by pidfd_getfd)",
        Need::Memory => "the command's memory (process_vm_readv)",
        Need::Tracing => "to look at processes that it starts (kernel.yama.ptrace_scope below 2)",
    }
}

/// What a person can do about it.
pub(super) fn remedy(need: Need) -> &'static str {
    match need {
        Need::Kernel => "boot a newer kernel; Debian 12 has 6.1",
        Need::Btf => "boot a kernel that has it; those of the distributions do",
        Need::Cgroup2 => "mount -t cgroup2 none /sys/fs/cgroup/unified (after mkdir), or remount it writable",
        Need::BpfFileSystem => "mount -t bpf bpf /sys/fs/bpf",
        Need::Root => "sudo waylay …",
        Need::InitialUserNamespace => "run it outside of the container or user namespace",
        Need::CapBpf | Need::CapNetAdmin | Need::CapPerfmon => {
            "sudo waylay …; in a container: start it privileged"
        }
        Need::Programs => "WAYLAY_LIBBPF_LOG=1 waylay doctor shows the kernel's own words",
        Need::Hooks => "have them attached with BPF_F_ALLOW_MULTI, or run waylay in another cgroup",
        Need::Notifications => {
            "boot a newer kernel; in a container: one whose seccomp profile lets seccomp(2) pass"
        }
        Need::SoleSupervisor => {
            "run it outside of the other supervisor (waylay run without root, or a container manager's)"
        }
        Need::Descriptors => {
            "a container whose seccomp profile lets pidfd_getfd pass, as with --cap-add SYS_PTRACE"
        }
        Need::Memory => {
            "a container whose seccomp profile lets process_vm_readv pass, as with --cap-add SYS_PTRACE"
        }
        Need::Tracing => "sudo sysctl kernel.yama.ptrace_scope=1",
    }
}

/// Why it could not be told.
pub(super) fn why_unknown(need: Need) -> &'static str {
    match need {
        Need::Programs => "not tried: that takes the privileges above",
        Need::Hooks => "not known: asking takes CAP_NET_ADMIN and a cgroup2 file system",
        Need::SoleSupervisor => "not tried: there is no filter that asks",
        Need::Kernel
        | Need::Btf
        | Need::Cgroup2
        | Need::BpfFileSystem
        | Need::Root
        | Need::InitialUserNamespace
        | Need::CapBpf
        | Need::CapNetAdmin
        | Need::CapPerfmon
        | Need::Notifications
        | Need::Descriptors
        | Need::Memory
        | Need::Tracing => "not known",
    }
}

/// What a program of others means for a run.
pub(super) fn meaning(other: &Other) -> &'static str {
    match (other.ours, other.relation, other.meaning()) {
        (true, ..) => "waylay's own: this is inside of another run, whose services see the connections too",
        (false, Relation::Evaded, _) => {
            "does not hold for a run: its cgroup is a user's, and a run is placed outside of it"
        }
        (false, Relation::Above, Meaning::Sandbox) => {
            "may drop packets, of the services too; it has to let loopback pass, or connections fail"
        }
        (false, Relation::Above, Meaning::Connections) => {
            "runs after waylay: for the command it sees a service's address, for the last service the destination"
        }
        (false, Relation::Above, Meaning::Datagrams) => "sees datagrams, which waylay leaves alone",
        (false, Relation::Above, Meaning::Sockets) => "may refuse sockets, those of the services too",
        (false, Relation::Above, Meaning::Answers) => "may change what sockets answer, after waylay has",
    }
}

/// How a run is, and what to do about it.
pub(super) fn run(run: &Run) -> String {
    match run.state {
        RunState::Alive => {
            let owner = run.owner.map_or_else(String::new, |pid| format!(" (waylay is process {pid})"));
            let inside = run.inside.as_ref().map_or_else(String::new, |run| format!(", inside of {run}"));
            let residents: String = run.residents.iter().map(resident).collect();
            format!("alive{owner}, through {}{inside}{residents}", list(&run.services))
        }
        RunState::LeftBehind => {
            let killed =
                "left behind by a waylay that was killed; its rules hold for the processes that live on";
            match run.processes.as_slice() {
                [] => format!("{killed}, in another pid namespace"),
                pids => format!("{killed}; kill {} ends them, and the next run cleans up", numbers(pids)),
            }
        }
        RunState::Boot => "filters that are in force from boot on, until a daemon takes over".to_owned(),
        RunState::Removable => "left behind by a waylay that was killed; the next run removes it".to_owned(),
        RunState::Unrecorded if run.processes.is_empty() => format!(
            "of another container or mount namespace, or forgotten: it has no record in /run/waylay, and no processes; \
             rm -r /sys/fs/bpf/waylay/waylay-{} ends its rules",
            run.id
        ),
        RunState::Unrecorded => format!(
            "of another container or mount namespace: it has no record in /run/waylay, and {} process(es)",
            run.processes.len()
        ),
        RunState::Unknown => "known by its record only, which root may read".to_owned(),
    }
}

fn numbers(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

fn resident(resident: &ResidentSeen) -> String {
    let ResidentSeen { service, known_by, hooked, bystanders } = resident;
    let hooked: Vec<String> = hooked.iter().map(|path| path.display().to_string()).collect();
    let shared = match bystanders.as_slice() {
        [] => String::new(),
        others => format!(", shared with {}, who are left alone", others.join(", ")),
    };
    format!("; {service} ({known_by}) ran already, in {}{shared}", hooked.join(" and "))
}

fn list(services: &[String]) -> String {
    if services.is_empty() { "services unknown".to_owned() } else { services.join(", ") }
}

/// What can get past, on this machine: a name for good, and words.
pub(super) fn open_ends(facts: &Facts) -> Vec<(&'static str, &'static str)> {
    let mut ends = vec![
        (
            "udp",
            "UDP, and so QUIC and DNS, goes to services that take it (log, scan, exec/udp:, adopt/udp:) and past the others",
        ),
        (
            "passed-sockets",
            "sockets made outside of a run and handed to a process in it are not hooked; inherited ones are refused",
        ),
        (
            "other-namespaces",
            "connections made in another network namespace are left alone, and who makes them is named; --other-namespaces \
             block refuses them",
        ),
    ];
    match facts.families {
        Guard::Programs => {}
        Guard::Filter => ends.push((
            "socket-families",
            "packet, vsock and other sockets that cannot be redirected are refused by a seccomp filter, without a line that \
             says so, and io_uring with them: this kernel asks no program about them",
        )),
        Guard::None => ends.push((
            "raw-sockets",
            "packet, vsock and other sockets that cannot be redirected need the kernel's seccomp filters, or its security \
             hooks for programs; without either a run starts with --unredirectable permit only, and they pass",
        )),
    }
    if facts.command_runs_as_root {
        ends.push((
            "root-command",
            "COMMAND would run as root, who can take the rules away: --user NAME, or sudo as a user",
        ));
    }
    if !facts.ipv6 {
        ends.push(("ipv6", "IPv6 is off: services listen on IPv4 only, and are absent for IPv6 connections"));
    }
    if facts.ipv6 && !facts.link_local {
        ends.push((
            "link-local",
            "connections to link-local IPv6 addresses fail: before Linux 6.2 programs are not shown the link",
        ));
    }
    if facts.mptcp {
        ends.push(("mptcp", "multipath TCP is on: it is inspected, and ends at the first service"));
    }
    ends
}

/// What is worth knowing besides.
pub(super) fn notes(facts: &Facts) -> Vec<String> {
    let jit = matches!(facts.jit, Some(Jit::Off)).then(|| {
        "the kernel interprets eBPF programs, which is slow: sysctl net.core.bpf_jit_enable=1".to_owned()
    });
    let container = facts.container.as_ref().map(|name| {
        format!("this is a container ({}): runs see its cgroups and its network only", name.escape_debug())
    });
    let hidepid = facts.hidepid.as_ref().map(|value| {
        format!("/proc hides processes of others (hidepid={}); root sees them", value.escape_debug())
    });
    let lockdown = facts.lockdown.as_ref().map(|mode| {
        format!(
            "the kernel is locked down ({}): confidentiality keeps programs from loading",
            mode.escape_debug()
        )
    });
    let in_packets = (facts.in_packets > 0).then(|| {
        format!(
            "the loopback has {} program(s) of waylay (wl_packets): some service is shown in datagrams where these were going",
            facts.in_packets
        )
    });
    [jit, container, hidepid, lockdown, in_packets].into_iter().flatten().collect()
}

/// Why nothing loops.
pub(super) fn bound() -> String {
    format!(
        "whatever they do, a chain of n services has ended after n(n+1)/2 hops, with records after n; the limit is \
         {MAX_HOPS}"
    )
}
