//! From `before` and `after` to one order.
//!
//! Stable: of the services whose predecessors are all placed, the one declared first goes next.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Service;

/// Why there is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Services wait for each other. Each name comes before the next; the first is repeated at the end.
    #[error("these services are each ordered before the next: {}", names.join(" -> "))]
    Cycle {
        /// The cycle.
        names: Vec<String>,
    },
    /// A service orders itself against one that does not exist.
    #[error("service {service:?} orders itself against {name:?}, which does not exist")]
    UnknownName {
        /// The service that says so.
        service: String,
        /// The name nobody has.
        name: String,
    },
    /// Two services have one name.
    #[error("two services are named {name:?}")]
    DuplicateName {
        /// The name.
        name: String,
    },
}

/// The order in which services see a connection, as indices into `services`.
pub fn solve(services: &[Service]) -> Result<Vec<usize>, OrderError> {
    let predecessors = predecessors(services)?;
    let mut order = Vec::with_capacity(services.len());
    let mut waiting: BTreeSet<usize> = (0..services.len()).collect();
    while !waiting.is_empty() {
        let Some(next) = waiting.iter().copied().find(|&service| predecessors[service].is_disjoint(&waiting))
        else {
            return Err(OrderError::Cycle { names: name_cycle(services, &predecessors, &waiting) });
        };
        waiting.remove(&next);
        order.push(next);
    }
    Ok(order)
}

fn predecessors(services: &[Service]) -> Result<Vec<BTreeSet<usize>>, OrderError> {
    let by_name = index_names(services)?;
    let find = |service: &Service, name: &String| {
        by_name
            .get(name.as_str())
            .copied()
            .ok_or_else(|| OrderError::UnknownName { service: service.name.clone(), name: name.clone() })
    };
    let mut predecessors = vec![BTreeSet::new(); services.len()];
    for (index, service) in services.iter().enumerate() {
        for later in &service.before {
            predecessors[find(service, later)?].insert(index);
        }
        for earlier in &service.after {
            predecessors[index].insert(find(service, earlier)?);
        }
    }
    Ok(predecessors)
}

fn index_names(services: &[Service]) -> Result<BTreeMap<&str, usize>, OrderError> {
    let mut by_name = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        if by_name.insert(service.name.as_str(), index).is_some() {
            return Err(OrderError::DuplicateName { name: service.name.clone() });
        }
    }
    Ok(by_name)
}

/// Every service that still waits has a predecessor that waits, so walking backwards must come round.
fn name_cycle(
    services: &[Service],
    predecessors: &[BTreeSet<usize>],
    waiting: &BTreeSet<usize>,
) -> Vec<String> {
    let mut walk: Vec<usize> = Vec::new();
    let mut at = waiting.first().copied();
    while let Some(service) = at {
        if let Some(begin) = walk.iter().position(|&seen| seen == service) {
            walk.drain(..begin);
            walk.push(service);
            break;
        }
        walk.push(service);
        at = predecessors[service].intersection(waiting).next().copied();
    }
    walk.iter().rev().map(|&service| services[service].name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServiceId;
    use crate::model::FailurePolicy;

    fn service(name: &str, before: &[&str], after: &[&str]) -> Service {
        let own = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Service {
            id: ServiceId(0),
            name: name.into(),
            before: own(before),
            after: own(after),
            on_failure: FailurePolicy::Open,
        }
    }

    fn solved(services: &[Service]) -> String {
        let order = solve(services).unwrap();
        order.iter().map(|&index| services[index].name.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn cycle(services: &[Service]) -> String {
        solve(services).unwrap_err().to_string()
    }

    #[test]
    fn free_services_keep_their_declaration_order() {
        assert_eq!(
            solved(&[service("c", &[], &[]), service("a", &[], &[]), service("b", &[], &[])]),
            "c a b"
        );
    }

    #[test]
    fn before_and_after_are_honoured() {
        let services = [
            service("vpn", &[], &["scan", "log"]),
            service("scan", &[], &[]),
            service("log", &["scan"], &[]),
        ];
        assert_eq!(solved(&services), "log scan vpn");
    }

    #[test]
    fn a_constraint_moves_no_more_than_it_must() {
        let services = [
            service("a", &[], &["d"]),
            service("b", &[], &[]),
            service("c", &[], &[]),
            service("d", &[], &[]),
        ];
        assert_eq!(solved(&services), "b c d a");
    }

    #[test]
    fn a_cycle_is_named_and_nothing_but_the_cycle() {
        let services = [
            service("tail", &[], &["a"]),
            service("a", &["b"], &[]),
            service("b", &["c"], &[]),
            service("c", &["a"], &[]),
            service("free", &[], &[]),
        ];
        assert_eq!(cycle(&services), "these services are each ordered before the next: a -> b -> c -> a");
    }

    #[test]
    fn a_service_before_itself_is_a_cycle() {
        assert_eq!(
            solve(&[service("a", &["a"], &[])]),
            Err(OrderError::Cycle { names: vec!["a".into(), "a".into()] })
        );
    }

    #[test]
    fn two_services_that_both_want_to_be_first_are_a_cycle() {
        let services = [service("a", &["b"], &[]), service("b", &["a"], &[])];
        assert_eq!(cycle(&services), "these services are each ordered before the next: a -> b -> a");
    }

    #[test]
    fn unknown_and_duplicate_names_are_refused() {
        assert_eq!(
            solve(&[service("a", &["ghost"], &[])]),
            Err(OrderError::UnknownName { service: "a".into(), name: "ghost".into() })
        );
        assert_eq!(
            solve(&[service("a", &[], &[]), service("a", &[], &[])]),
            Err(OrderError::DuplicateName { name: "a".into() })
        );
    }
}
