//! Where a station is on the host: its cgroups, its pins, and what is written down of them.

use std::{io, path::Path};

use waylay_core::ServiceId;
use waylay_engine_ebpf::{Limits, Scope};

use crate::{
    assignment::Ground,
    cgroup::{Cgroup, CgroupError},
    error::RunError,
    instance::{APPLICATIONS, Instance, InstanceError, InstanceId, RecordedResident},
    spec::ServiceSpec,
    user::Identity,
};

/// Bytes for flows that have ended, until the next look: of a thousand and more.
const PAST: u32 = 1 << 20;

/// The cgroups and pins of a station.
pub(crate) struct Place {
    instance: Instance,
    /// Its own, which is the scope or inside of it.
    pub(crate) cgroup: Cgroup,
    pub(crate) scope: Scope,
    enclosures: Vec<Cgroup>,
    enclosed: u64,
}

impl Place {
    /// `parent` is where its own cgroup goes.
    pub(crate) fn new(
        ground: &Ground,
        parent: &Cgroup,
        pin_root: &Path,
        residents: bool,
    ) -> Result<Self, RunError> {
        let id = InstanceId::new()?;
        let cgroup = parent.child(&id.name());
        let watched = match ground {
            Ground::Own => &cgroup,
            Ground::Existing(scope) => scope,
        };
        let scope = Scope {
            cgroup: watched.path().into(),
            level: watched.level(),
            service_level: cgroup.level() + 1,
            instance: id.number(),
            pin_root: pin_root.into(),
            pins: pin_root.join(id.name()),
            limits: limits(ground),
            residents,
        };
        let instance = Instance::record(id, ground, &cgroup, &scope.pins)?;
        let place = Self { instance, cgroup, scope, enclosures: Vec::new(), enclosed: 0 };
        match place.make_cgroups(ground) {
            Ok(()) => Ok(place),
            Err(error) => {
                place.leave();
                Err(error.into())
            }
        }
    }

    fn make_cgroups(&self, ground: &Ground) -> Result<(), CgroupError> {
        self.cgroup.create()?;
        match ground {
            Ground::Own => self.cgroup.child(APPLICATIONS).create(),
            Ground::Existing(_) => Ok(()),
        }
    }

    /// Writes down to which cgroups of others programs are going to be attached.
    pub(crate) fn record_residents(&mut self, residents: Vec<RecordedResident>) -> Result<(), InstanceError> {
        self.instance.record_residents(residents)
    }

    pub(crate) fn identity_of(&self, service: &ServiceSpec, seat: u32) -> Identity {
        let of_its_own = || Identity::of_a_service(self.scope.instance, seat);
        service.identity.clone().unwrap_or_else(of_its_own)
    }

    /// Makes one for a service. Another one of the same name may still be leaving its own.
    pub(crate) fn make_cgroup_of(&self, id: ServiceId, service: &ServiceSpec) -> Result<Cgroup, CgroupError> {
        let first = self.cgroup.child(&format!("svc-{}", service.name));
        match first.create() {
            Ok(()) => Ok(first),
            Err(CgroupError::Create { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                let another = self.cgroup.child(&format!("svc-{}:{}", service.name, id.0));
                another.create().map(|()| another)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a cgroup for the command of a client, below another one.
    pub(crate) fn enclose(&mut self, parent: &Cgroup) -> Result<Cgroup, RunError> {
        self.enclosed += 1;
        let own = self.cgroup.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let enclosure = parent.child(&format!("{own}-run-{}", self.enclosed));
        let recorded = [self.enclosures.as_slice(), std::slice::from_ref(&enclosure)].concat();
        self.instance.record_enclosures(&recorded)?;
        enclosure.create()?;
        self.enclosures = recorded;
        Ok(enclosure)
    }

    /// Ends all who are in such a cgroup and removes it. One that cannot be removed now is removed at the end.
    pub(crate) fn dissolve(&mut self, enclosure: &Cgroup) {
        enclosure.kill();
        if enclosure.remove().is_ok() {
            self.enclosures.retain(|known| known != enclosure);
            // It says more than there is, which whoever cleans up does not mind.
            let _says_more = self.instance.record_enclosures(&self.enclosures);
        }
    }

    /// The same of all.
    pub(crate) fn dissolve_all(&mut self) {
        self.enclosures.iter().for_each(Cgroup::kill);
        for enclosure in self.enclosures.clone() {
            self.dissolve(&enclosure);
        }
    }

    /// Removes all of it. What cannot be removed now the next run removes.
    pub(crate) fn leave(mut self) {
        self.dissolve_all();
        self.cgroup.kill();
        let unpinned = std::fs::remove_dir_all(&self.scope.pins);
        let unpinned = unpinned.is_ok() || !self.scope.pins.exists();
        let forgotten =
            waylay_engine_ebpf::forget_instance(&self.scope.pin_root, self.scope.instance).is_ok();
        if unpinned && forgotten && self.cgroup.remove().is_ok() && self.enclosures.is_empty() {
            self.instance.forget();
        }
    }
}

/// Whoever has a ground of its own asks for nothing that is over.
fn limits(ground: &Ground) -> Limits {
    match ground {
        Ground::Own => Limits::default(),
        Ground::Existing(_) => Limits { past: PAST, ..Limits::default() },
    }
}
