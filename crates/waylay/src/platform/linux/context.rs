//! The kernel's bytes about a connection, read.

use waylay_abi as abi;
use waylay_core::{FilterId, Hop, ServiceId};

use crate::context::{Application, ChainHop, FileId, RedirectContext, Wishes};

impl From<abi::SocketWishes> for Wishes {
    fn from(wishes: abi::SocketWishes) -> Self {
        Self {
            source: wishes.source.into(),
            mark: wishes.mark,
            bound_device: wishes.bound_device,
            type_of_service: wishes.tos,
            traffic_class: wishes.tclass,
        }
    }
}

impl From<abi::Context> for RedirectContext {
    fn from(context: abi::Context) -> Self {
        let process = context.application;
        Self {
            application: Application {
                path: abi::path_to_string(&context.exe_path),
                command: abi::comm_to_string(&process.comm),
                pid: process.pid,
                start_time_ns: process.start_time_ns,
                uid: process.uid,
                cgroup: process.cgroup,
            },
            executable: FileId { device: process.exe_device, inode: process.exe_inode },
            original_destination: context.destination.into(),
            wishes: context.wishes.into(),
            flow: context.flow,
            service_id: context.service,
            filter_id: context.filter,
            attached: Vec::new(),
        }
    }
}

impl ChainHop {
    pub(crate) fn id(&self) -> Hop {
        Hop { service: ServiceId(self.service_id), filter: FilterId(self.filter_id) }
    }
}

impl From<&abi::NamedHop> for ChainHop {
    fn from(hop: &abi::NamedHop) -> Self {
        Self { service_id: hop.hop.service, filter_id: hop.hop.filter, service: hop.service_name() }
    }
}
