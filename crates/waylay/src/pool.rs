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
    /// class). Threads and tasks of one process are not told apart, and none
    /// shares with an application that is not known, as on Windows.
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
            // All that are not known would look the same.
            Pooling::SameApplication if !context.application().is_known() => Key::Flow(context.flow()),
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
    use std::{collections::HashSet, net::Ipv6Addr};

    use super::*;
    use crate::testing::context;

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
    fn applications_that_are_not_known_never_share() {
        let keys = [1, 2].map(|flow| {
            let unknown = context(|context| {
                context.application = Application::UNKNOWN;
                context.flow = flow;
            });
            PoolKey::new(Pooling::SameApplication, &unknown, &[])
        });
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn flows_that_differ_in_anything_else_never_share() {
        let changes: [fn(&mut RedirectContext); 16] = [
            |_| {},
            |context| context.application.pid = 101,
            |context| context.application.start_time_ns = 1,
            |context| context.application.uid = 1,
            |context| context.application.cgroup = 1,
            |context| context.application.command.push('x'),
            |context| context.executable.device = 1,
            |context| context.executable.inode = 1,
            |context| context.application.path.push('x'),
            |context| context.original_destination.set_port(81),
            |context| context.original_destination.set_ip(Ipv6Addr::UNSPECIFIED.into()),
            |context| context.wishes.source = Ipv6Addr::LOCALHOST,
            |context| context.wishes.mark = 1,
            |context| context.wishes.bound_device = 1,
            |context| context.wishes.type_of_service = 1,
            |context| context.wishes.traffic_class = 1,
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
