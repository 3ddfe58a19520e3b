use waylay_engine::{Capabilities, Capability, CapabilityState, Feature};

use crate::{families, packets};

/// What the engine can do where its programs load; what is missing here no kernel would add.
#[must_use]
pub fn capabilities() -> Capabilities {
    [
        (Feature::RedirectTcp4, CapabilityState::Available),
        (Feature::RedirectTcp6, CapabilityState::Available),
        (Feature::RedirectUdp4, CapabilityState::Available),
        (Feature::RedirectUdp6, CapabilityState::Available),
        (Feature::Authorise, CapabilityState::Available),
        (Feature::Records, CapabilityState::Available),
        (Feature::HideRedirection, CapabilityState::Available),
        (Feature::Enforcement, families::capability()),
        (Feature::RefuseSockets, CapabilityState::Available),
        (Feature::RefuseFamilies, families::capability()),
        (Feature::OutliveOwner, CapabilityState::Available),
        (Feature::HostScope, CapabilityState::Available),
        (Feature::ShowInPackets, packets::capability()),
    ]
    .into_iter()
    .map(|(feature, state)| Capability { feature, state })
    .collect()
}
