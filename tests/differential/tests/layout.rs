//! Every offset of `waylay-abi` is the one in the object's type information.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    collections::BTreeSet,
    mem::offset_of,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use libbpf_rs::{
    HasSize,
    btf::{Btf, types::Struct},
};
use waylay_abi as abi;

/// The object as a file, for libbpf reads type information from files.
fn object() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("waylay-layout-{}-{count}.o", std::process::id()));
    std::fs::write(&path, waylay_engine_ebpf::OBJECT).unwrap();
    path
}

/// Name, offset and size of every member.
type Layout = (usize, Vec<(String, usize)>);

fn in_the_object(btf: &Btf<'_>, name: &str) -> Layout {
    let found: Struct<'_> =
        btf.type_by_name(name).unwrap_or_else(|| panic!("the object has no struct {name}"));
    let size = found.size();
    let members = found.iter().map(|member| {
        let libbpf_rs::btf::types::MemberAttr::Normal { offset } = member.attr else {
            panic!("{name} has a bit field")
        };
        (member.name.unwrap().to_str().unwrap().to_owned(), offset as usize / 8)
    });
    (size, members.collect())
}

macro_rules! layout {
    ($type:ty { $($field:ident),* $(,)? }) => {
        (size_of::<$type>(), vec![$((stringify!($field).to_owned(), offset_of!($type, $field))),*])
    };
}

#[test]
fn rust_and_the_object_agree() {
    let path = object();
    let btf = Btf::from_path(&path).unwrap();
    for (name, ours) in answers().into_iter().chain(tables()).chain(state()) {
        assert_eq!(in_the_object(&btf, name), ours, "struct {name}");
    }
    std::fs::remove_file(path).unwrap();
}

/// What services are answered.
fn answers() -> Vec<(&'static str, Layout)> {
    vec![
        ("wl_address", layout!(abi::Address { ip, port, family, scope })),
        (
            "wl_process",
            layout!(abi::Process { start_time_ns, cgroup, exe_device, exe_inode, pid, uid, comm }),
        ),
        ("wl_hop", layout!(abi::Hop { service, filter })),
        (
            "wl_socket_wishes",
            layout!(abi::SocketWishes { source, mark, bound_device, tos, tclass, reserved }),
        ),
        ("wl_chain", layout!(abi::Chain { excluded, hop_count, reserved, hops })),
        (
            "wl_flow",
            layout!(abi::Flow {
                id,
                admitted_cgroup,
                state,
                slot,
                listener,
                taken,
                seen,
                errand,
                first,
                began,
                destination,
                source,
                chain,
                application,
                wishes,
                exe_path,
                lineage,
                gid,
                reserved,
                ends,
            }),
        ),
        ("wl_tuple", layout!(abi::Ends { netns, client_ip, server_ip, client_port, server_port })),
        ("wl_handle", layout!(abi::Handle { version, size, boot, instance, flow, tag })),
        (
            "wl_context",
            layout!(abi::Context {
                version,
                size,
                flow,
                service,
                filter,
                destination,
                application,
                wishes,
                exe_path,
            }),
        ),
        ("wl_datagram_path", layout!(abi::DatagramPath { local, peer })),
        ("wl_reply", layout!(abi::Reply { path, from })),
        ("wl_error", layout!(abi::UnreachableReport { path, error, info })),
        ("wl_datagram", layout!(abi::Datagram { local, peer, flags, reserved })),
        ("wl_datagram_flow", layout!(abi::DatagramFlow { flow, ends, cookie, last })),
        ("wl_unreachable", layout!(abi::Unreachable { path, error, info })),
        ("wl_named_hop", named_hop()),
        ("wl_named_chain", layout!(abi::NamedChain { version, hop_count, hops })),
    ]
}

/// Flat in C.
fn named_hop() -> Layout {
    let (size, mut members) = layout!(abi::NamedHop { hop, name });
    assert_eq!(members.remove(0), ("hop".into(), 0));
    members.splice(0..0, layout!(abi::Hop { service, filter }).1);
    (size, members)
}

/// What is installed and reported.
fn tables() -> Vec<(&'static str, Layout)> {
    vec![
        ("wl_key", layout!(abi::HandleKey { boot, instance, k0, k1 })),
        (
            "wl_config",
            layout!(abi::Config {
                netns,
                service_level,
                scope_level,
                max_flows,
                max_flows_per_cgroup,
                max_datagram_flows,
                max_datagram_flows_per_cgroup,
                datagram_idle_ns,
            }),
        ),
        (
            "wl_service",
            layout!(abi::Service {
                prefix_mask,
                cgroup,
                id,
                on_failure,
                listen4,
                listen6,
                ports4,
                ports6,
                count4,
                count6,
                flags,
                udp4,
                bank,
                resident_level,
                resident_cgroup,
                resident_exe_device,
                resident_exe_inode,
                resident_uid,
                resident_shared_level,
                udp6,
                behind6,
                reserved,
                name,
            }),
        ),
        (
            "wl_tables",
            layout!(abi::Tables {
                service_count,
                filters,
                foreign_namespace,
                unredirectable,
                any_address,
                residents,
                override_sandboxes,
                amendments,
                asks_for_hosts,
                reserved,
                services,
            }),
        ),
    ]
}

/// What else the programs and user space share.
fn state() -> Vec<(&'static str, Layout)> {
    vec![
        ("wl_progress", layout!(abi::Progress { arrived, taken, lost })),
        ("wl_route_key", layout!(abi::RouteKey { length, ip })),
        ("wl_route", layout!(abi::Route { source, error, here, group, reserved })),
        ("wl_listener", layout!(abi::Listener { netns, ip, port, protocol, reserved })),
        ("wl_resolver", layout!(abi::Resolver { ip, port, reserved })),
        ("wl_told", layout!(abi::Told { ip, peer_ip, port, peer_port, slot })),
        ("wl_asker", layout!(abi::Asker { exe_device, exe_inode, cgroup, uid, reserved })),
        ("wl_known", layout!(abi::Known { by, ip })),
        ("wl_names", layout!(abi::Names { keys, until })),
        ("wl_holder", layout!(abi::Holder { instance, pid, held })),
        ("wl_listener_owner", layout!(abi::ListenerOwner { instance, scope, scope_level, service })),
        (
            "wl_event",
            layout!(abi::Event { refusal, error, service, filter, destination, process, protocol, reserved }),
        ),
        ("wl_socket_event", socket_event()),
    ]
}

/// Rust keeps `type` for itself.
fn socket_event() -> Layout {
    let (size, mut members) =
        layout!(abi::SocketEvent { refusal, error, family, socket_type, protocol, process });
    members[3].0 = "type".into();
    (size, members)
}

/// What the programs keep among themselves.
const OWN: [&str; 8] = [
    "wl_caller_from",
    "wl_destination",
    "wl_leaving",
    "wl_outgoing",
    "wl_path",
    "wl_seat",
    "wl_seats",
    "wl_visitor",
];

#[test]
fn no_structure_that_is_shared_is_left_out() {
    let read =
        |path: &str| std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let header = read("crates/engine-ebpf/bpf/abi.h");
    let structures = header.lines().filter_map(|line| line.strip_prefix("struct ")?.strip_suffix(" {"));
    let declared: BTreeSet<&str> = structures.collect();
    let compared: BTreeSet<&str> =
        answers().iter().chain(&tables()).chain(&state()).map(|(name, _)| *name).collect();
    assert_eq!(&declared - &compared, OWN.into());
    assert!(compared.is_subset(&declared), "{:?}", &compared - &declared);

    let count = |file: &str| read(&format!("crates/abi/src/{file}.rs")).matches("\npub struct ").count();
    let ours: usize = ["address", "datagrams", "records", "tables", "options", "lib"].map(count).iter().sum();
    assert_eq!(ours, compared.len(), "a structure of waylay-abi is not compared");
}

#[test]
fn the_leg_of_the_tests_is_the_headers() {
    let path = object();
    let btf = Btf::from_path(&path).unwrap();
    let leg =
        layout!(waylay_differential::Leg { remote, caller, caller_slot, protocol, redirected, proxied });
    let who = layout!(waylay_differential::Who { exe_device, exe_inode, command, lineage, uid, gid });
    assert_eq!(in_the_object(&btf, "wl_leg"), leg);
    assert_eq!(in_the_object(&btf, "wl_who"), who);
    std::fs::remove_file(path).unwrap();
    assert_eq!(size_of::<waylay_differential::Leg>(), waylay_differential::leg_size());
}
