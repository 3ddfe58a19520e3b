use std::net::SocketAddr;

use crate::context::{Application, ChainHop, FileId, RedirectContext, Wishes};

/// Which connections of a service may share an upstream connection.
///
/// A service that keeps connections to destinations open, and uses one for
/// several of its own, makes all that travels over it the traffic of the
/// application it was dialled for: the services after it and their reports
/// blame that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// None: each flow has an upstream connection of its own.
    #[default]
    Never,
    /// Those of one process that came the same way and go the same way: the
    /// same application (process, start time, user, executable, cgroup),
    /// original destination, services so far with the filters that chose
    /// them, and wishes for the socket (source, mark, device, TOS, traffic
    /// class). Threads and tasks of one process are not told apart.
    SameApplication,
}

/// Connections with equal keys may share an upstream connection, if it goes to
/// the place it would have been dialled to for each of them.
///
/// # Example
/// ```
/// use std::collections::HashMap;
/// use tokio::net::TcpStream;
/// use waylay::{Inbound, PoolKey};
///
/// /// Upstream connections at rest.
/// struct Pool(HashMap<PoolKey, Vec<TcpStream>>);
///
/// impl Pool {
///     fn take(&mut self, inbound: &Inbound) -> Option<TcpStream> {
///         self.0.get_mut(&inbound.pool_key())?.pop()
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey(Key);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Flow(u64),
    Application(Box<SameApplication>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SameApplication {
    application: Application,
    executable: FileId,
    destination: SocketAddr,
    wishes: Wishes,
    /// Service and filter of each hop.
    chain: Vec<(u32, u32)>,
}

impl PoolKey {
    pub(crate) fn new(pooling: Pooling, context: &RedirectContext, chain: &[ChainHop]) -> Self {
        Self(match pooling {
            Pooling::Never => Key::Flow(context.flow()),
            Pooling::SameApplication => Key::Application(Box::new(SameApplication {
                application: context.application().clone(),
                executable: context.executable(),
                destination: context.original_destination(),
                wishes: context.wishes(),
                chain: chain.iter().map(|hop| (hop.service_id, hop.filter_id)).collect(),
            })),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use waylay_abi as abi;
    use zerocopy::FromZeros;

    use super::*;

    fn context(change: impl FnOnce(&mut abi::Context)) -> RedirectContext {
        let mut context = abi::Context::new_zeroed();
        context.application.pid = 100;
        context.destination.port = 80;
        change(&mut context);
        context.into()
    }

    fn hop(service_id: u32, filter_id: u32) -> ChainHop {
        ChainHop { service_id, filter_id, service: "log".into() }
    }

    #[test]
    fn by_default_no_two_flows_share() {
        let keys = [1, 2].map(|flow| {
            let context = context(|context| context.flow = flow);
            PoolKey::new(Pooling::default(), &context, &[hop(1, 1)])
        });
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn flows_of_one_application_that_go_the_same_way_share_if_asked_for() {
        let keys = [1, 2].map(|flow| {
            let context = context(|context| context.flow = flow);
            PoolKey::new(Pooling::SameApplication, &context, &[hop(1, 1)])
        });
        assert_eq!(keys[0], keys[1]);
    }

    #[test]
    fn flows_that_differ_in_anything_else_never_share() {
        let changes: [fn(&mut abi::Context); 16] = [
            |_| {},
            |context| context.application.pid = 101,
            |context| context.application.start_time_ns = 1,
            |context| context.application.uid = 1,
            |context| context.application.cgroup = 1,
            |context| context.application.comm[0] = b'x',
            |context| context.application.exe_device = 1,
            |context| context.application.exe_inode = 1,
            |context| context.exe_path[0] = b'x',
            |context| context.destination.port = 81,
            |context| context.destination.ip[15] = 1,
            |context| context.wishes.source[15] = 1,
            |context| context.wishes.mark = 1,
            |context| context.wishes.bound_device = 1,
            |context| context.wishes.tos = 1,
            |context| context.wishes.tclass = 1,
        ];
        let chains = [vec![hop(1, 1)], vec![hop(2, 1)], vec![hop(1, 2)], vec![hop(3, 3), hop(1, 1)]];
        let keys: HashSet<PoolKey> = changes
            .iter()
            .flat_map(|change| chains.iter().map(move |chain| (context(change), chain)))
            .map(|(context, chain)| PoolKey::new(Pooling::SameApplication, &context, chain))
            .collect();
        assert_eq!(keys.len(), changes.len() * chains.len());
    }
}
