//! The sweep: flows whose end the programs were not told of.
//!
//! Another program in the scope may switch off the callbacks by which they hear of a connection's end. What such a
//! connection took is given back by looking, now and then, which flows have a socket.

use std::{io::Read, os::fd::AsFd, path::Path};

use libbpf_rs::{Iter, Link};

use crate::{admitted::Cgroups, error::EbpfError, load::Loaded};

/// Of the connections of a network namespace.
const CONNECTIONS: &str = "tcp";

/// The walks of a sweep, in their order: over which map, or all connections, and by which program.
const WALKS: [(&str, &str); 6] = [
    (CONNECTIONS, "wl_see_connection"),
    ("outgoing", "wl_see_flow"),
    ("inbound", "wl_see_flow"),
    ("flows", "wl_judge_flow"),
    ("tuples", "wl_judge_tuple"),
    ("datagram_flows", "wl_judge_datagrams"),
];

/// Ends flows that have no socket any more, and forgets cgroups that are gone.
#[derive(Debug)]
pub struct FlowSweeper {
    cgroups: Cgroups,
    walks: Vec<(&'static str, Link)>,
}

impl FlowSweeper {
    pub(crate) fn new(loaded: &mut Loaded, cgroup: &Path) -> Result<Self, EbpfError> {
        let walk = |(map, program): (&'static str, &'static str)| {
            let link = if map == CONNECTIONS {
                loaded.iterator(program, None)
            } else {
                let handle = loaded.map(map)?;
                loaded.iterator(program, Some(handle.as_fd()))
            };
            Ok((map, link.map_err(|source| EbpfError::Map { map, source })?))
        };
        let walks = WALKS.into_iter().map(walk).collect::<Result<_, EbpfError>>()?;
        Ok(Self { walks, cgroups: Cgroups::new(loaded, cgroup)? })
    }

    /// Looks at every socket and every flow. A flow is ended by the second sweep that does not find it a socket, at
    /// the earliest, and a cgroup without flows is forgotten by the second that finds it gone; between two sweeps there
    /// should be seconds.
    ///
    /// # Errors
    /// [`EbpfError::Map`] says which could not be looked at; what was not judged is judged by the next sweep.
    pub fn sweep(&self) -> Result<(), EbpfError> {
        for (map, link) in &self.walks {
            let failed = |source| EbpfError::Map { map, source };
            let mut nothing = Vec::new();
            let mut walk = Iter::new(link).map_err(failed)?;
            walk.read_to_end(&mut nothing).map_err(|source| failed(source.into()))?;
        }
        self.cgroups.sweep()
    }
}
