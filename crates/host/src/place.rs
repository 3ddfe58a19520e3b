//! Where a run is on the host: its cgroups, its pins, and what is written down of them.

use std::path::Path;

use waylay_engine_ebpf::{Limits, Scope};

use crate::{
    cgroup::{Cgroup, CgroupError},
    error::RunError,
    instance::{APPLICATIONS, Instance, InstanceId, RecordedResident},
    spec::ServiceSpec,
    user::Identity,
};

/// The cgroups and pins of a run.
pub(crate) struct Place {
    instance: Instance,
    pub(crate) cgroup: Cgroup,
    pub(crate) scope: Scope,
}

impl Place {
    pub(crate) fn new(
        parent: &Cgroup,
        pin_root: &Path,
        residents: Vec<RecordedResident>,
    ) -> Result<Self, RunError> {
        let id = InstanceId::new()?;
        let cgroup = parent.child(&id.name());
        let scope = Scope {
            cgroup: cgroup.path().into(),
            service_level: cgroup.level() + 1,
            instance: id.number(),
            pin_root: pin_root.into(),
            pins: pin_root.join(id.name()),
            limits: Limits::default(),
            residents: !residents.is_empty(),
        };
        let instance = Instance::record(id, &cgroup, &scope.pins, residents)?;
        let place = Self { instance, cgroup, scope };
        match place.make_cgroups() {
            Ok(()) => Ok(place),
            Err(error) => {
                place.leave();
                Err(error.into())
            }
        }
    }

    fn make_cgroups(&self) -> Result<(), CgroupError> {
        self.cgroup.create()?;
        self.cgroup.child(APPLICATIONS).create()
    }

    pub(crate) fn identity_of(&self, service: &ServiceSpec, index: u32) -> Identity {
        let of_its_own = || Identity::of_a_service(self.scope.instance, index);
        service.identity.clone().unwrap_or_else(of_its_own)
    }

    pub(crate) fn cgroup_of(&self, service: &ServiceSpec) -> Cgroup {
        self.cgroup.child(&format!("svc-{}", service.name))
    }

    /// Removes all of it. What cannot be removed now the next run removes.
    pub(crate) fn leave(self) {
        self.cgroup.kill();
        let unpinned = std::fs::remove_dir_all(&self.scope.pins);
        let unpinned = unpinned.is_ok() || !self.scope.pins.exists();
        let forgotten =
            waylay_engine_ebpf::forget_instance(&self.scope.pin_root, self.scope.instance).is_ok();
        if unpinned && forgotten && self.cgroup.remove().is_ok() {
            self.instance.forget();
        }
    }
}
