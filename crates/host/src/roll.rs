//! What services are called, and what becomes of connections while they are gone: for those who tell the observer, on threads
//! that outlast a policy.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use waylay_core::{FailurePolicy, Service, ServiceId};

/// Those of the policy in force, and of those that leave. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roll(Arc<RwLock<BTreeMap<ServiceId, Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    on_failure: FailurePolicy,
}

impl Roll {
    pub(crate) fn enter(&self, service: &Service) {
        let entry = Entry { name: service.name.clone(), on_failure: service.on_failure };
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(service.id, entry);
    }

    pub(crate) fn strike(&self, service: ServiceId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&service);
    }

    pub(crate) fn name_of(&self, service: ServiceId) -> Option<String> {
        self.entry(service).map(|entry| entry.name)
    }

    pub(crate) fn on_failure(&self, service: ServiceId) -> FailurePolicy {
        self.entry(service).map_or(FailurePolicy::Closed, |entry| entry.on_failure)
    }

    fn entry(&self, service: ServiceId) -> Option<Entry> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&service).cloned()
    }
}
