//! Both sides of the boundary lay their structures out alike.

use std::mem::offset_of;

use waylay_abi::{ABI_VERSION, Address, Context, Process, SocketWishes};
use waylay_headers::{compilers, program};
use waylay_ws2::abi::{Buffer, Message, Overlapped, StartupData, ThreadId};

macro_rules! layout {
    ($($name:literal = $rust:ty { $($field:literal = $at:ident),+ $(,)? })+) => {
        [$(
            format!("{} {}", $name, size_of::<$rust>()),
            $(format!("{}.{} {}", $name, $field, offset_of!($rust, $at)),)+
        )+]
    };
}

fn winsock() -> impl IntoIterator<Item = String> {
    layout! {
        "WSAOVERLAPPED" = Overlapped {
            "Internal" = internal, "InternalHigh" = internal_high, "Offset" = offset, "hEvent" = event,
        }
        "WSABUF" = Buffer { "len" = len, "buf" = buf }
        "WSAMSG" = Message {
            "name" = name, "namelen" = name_len, "lpBuffers" = buffers, "dwBufferCount" = buffer_count,
            "Control" = control, "dwFlags" = flags,
        }
        "WSATHREADID" = ThreadId { "ThreadHandle" = handle, "Reserved" = reserved }
        "WSADATA" = StartupData {
            "wVersion" = version, "wHighVersion" = high_version, "iMaxSockets" = max_sockets,
            "iMaxUdpDg" = max_udp, "lpVendorInfo" = vendor_info, "szDescription" = description,
            "szSystemStatus" = system_status,
        }
    }
}

fn context() -> impl IntoIterator<Item = String> {
    layout! {
        "WAYLAY_ADDRESS" = Address { "Ip" = ip, "Port" = port, "Family" = family, "Scope" = scope }
        "WAYLAY_PROCESS" = Process {
            "StartTime" = start_time_ns, "Cgroup" = cgroup, "ExeDevice" = exe_device, "ExeInode" = exe_inode,
            "ProcessId" = pid, "UserId" = uid, "Command" = comm,
        }
        "WAYLAY_SOCKET_WISHES" = SocketWishes {
            "Source" = source, "Mark" = mark, "BoundDevice" = bound_device, "Tos" = tos,
            "TrafficClass" = tclass,
        }
        "WAYLAY_REDIRECT_CONTEXT" = Context {
            "Version" = version, "Size" = size, "Flow" = flow, "Service" = service, "Filter" = filter,
            "Destination" = destination, "Application" = application, "Wishes" = wishes,
            "ExePath" = exe_path,
        }
    }
}

#[test]
fn c_and_rust_agree_on_every_structure_they_share() {
    let expected: Vec<String> = winsock()
        .into_iter()
        .chain(context())
        .chain([format!("WAYLAY_CONTEXT_VERSION {ABI_VERSION}")])
        .collect();
    for compiler in compilers() {
        let printed = compiler.prints(&program("layout.c"));
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected, "{compiler:?}");
    }
}
