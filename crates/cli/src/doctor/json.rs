//! The findings as one JSON object. Keys are only added, and never change their meaning.

use serde::Serialize;
use waylay_core::MAX_HOPS;
use waylay_engine::{Capabilities, Capability, CapabilityState, Feature};
use waylay_host::doctor::{
    Check, Diagnosis, Facts, Jit, Meaning, Other, Relation, ResidentSeen, Run, RunState, State,
};
use waylay_inspect::report::harmless_json;

use super::words;

pub(super) fn text(diagnosis: &Diagnosis) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(&Written::of(diagnosis))?;
    Ok(harmless_json(&text) + "\n")
}

#[derive(Serialize)]
struct Written<'d> {
    ready: bool,
    kernel: &'d str,
    cgroup: Option<String>,
    needs: Vec<WrittenNeed<'d>>,
    capabilities: Vec<WrittenCapability<'d>>,
    without_root: WithoutRoot<'d>,
    /// `null` if this process may not ask.
    programs: Option<Vec<WrittenProgram<'d>>>,
    runs: Vec<WrittenRun<'d>>,
    open_ends: Vec<OpenEnd>,
    facts: WrittenFacts<'d>,
    bound: Bound,
}

#[derive(Serialize)]
struct WithoutRoot<'d> {
    ready: bool,
    needs: Vec<WrittenNeed<'d>>,
    capabilities: Vec<WrittenCapability<'d>>,
}

#[derive(Serialize)]
struct WrittenNeed<'d> {
    name: &'static str,
    state: &'static str,
    found: Option<&'d str>,
    needs: &'static str,
    remedy: Option<&'static str>,
}

#[derive(Serialize)]
struct WrittenCapability<'d> {
    name: &'static str,
    available: bool,
    needs: Option<&'d str>,
    remedy: Option<&'d str>,
}

#[derive(Serialize)]
struct WrittenProgram<'d> {
    cgroup: String,
    attach_type: String,
    id: u32,
    name: Option<&'d str>,
    waylay: bool,
    holds_for_runs: bool,
    sandbox: bool,
    meaning: &'static str,
}

#[derive(Serialize)]
struct WrittenResident<'d> {
    service: &'d str,
    known_by: String,
    cgroups: Vec<String>,
    bystanders: &'d [String],
}

#[derive(Serialize)]
struct WrittenRun<'d> {
    id: &'d str,
    state: &'static str,
    owner: Option<u32>,
    cgroup: Option<String>,
    inside: Option<&'d str>,
    services: &'d [String],
    residents: Vec<WrittenResident<'d>>,
    processes: &'d [u32],
}

#[derive(Serialize)]
struct OpenEnd {
    name: &'static str,
    text: &'static str,
}

#[derive(Serialize)]
struct WrittenFacts<'d> {
    ipv6: bool,
    link_local: bool,
    mptcp: bool,
    jit: Option<bool>,
    command_runs_as_root: bool,
    container: Option<&'d str>,
    hidepid: Option<&'d str>,
    lockdown: Option<&'d str>,
    in_packets: usize,
}

#[derive(Serialize)]
struct Bound {
    with_records: &'static str,
    whatever_services_do: &'static str,
    most_hops: usize,
}

impl<'d> Written<'d> {
    fn of(diagnosis: &'d Diagnosis) -> Self {
        let ends = words::open_ends(&diagnosis.facts).into_iter();
        Self {
            ready: diagnosis.is_ready(),
            kernel: &diagnosis.kernel,
            cgroup: diagnosis.place.as_ref().map(|place| place.display().to_string()),
            needs: diagnosis.checks.iter().map(need).collect(),
            capabilities: diagnosis.capabilities.iter().map(capability).collect(),
            without_root: without_root(diagnosis),
            programs: diagnosis.others.as_ref().ok().map(|others| others.iter().map(program).collect()),
            runs: diagnosis.runs.iter().map(run).collect(),
            open_ends: ends.map(|(name, text)| OpenEnd { name, text }).collect(),
            facts: facts(&diagnosis.facts),
            bound: Bound { with_records: "n", whatever_services_do: "n(n+1)/2", most_hops: MAX_HOPS },
        }
    }
}

fn without_root(diagnosis: &Diagnosis) -> WithoutRoot<'_> {
    WithoutRoot {
        ready: diagnosis.is_ready_without_root(),
        needs: diagnosis.without_root.iter().map(need).collect(),
        capabilities: diagnosis
            .capabilities_without_root
            .iter()
            .flat_map(Capabilities::iter)
            .map(capability)
            .collect(),
    }
}

fn need(check: &Check) -> WrittenNeed<'_> {
    let (state, remedy) = match check.state {
        State::Fine => ("fine", None),
        State::Missing => ("missing", Some(words::remedy(check.need))),
        State::Unknown => ("unknown", None),
    };
    let (name, needs) = (check.need.name(), words::need(check.need));
    WrittenNeed { name, state, found: check.found.as_deref(), needs, remedy }
}

fn capability(capability: &Capability) -> WrittenCapability<'_> {
    let name = match capability.feature {
        Feature::RedirectTcp4 => "redirect-tcp4",
        Feature::RedirectTcp6 => "redirect-tcp6",
        Feature::RedirectUdp4 => "redirect-udp4",
        Feature::RedirectUdp6 => "redirect-udp6",
        Feature::RefuseSockets => "refuse-sockets",
        Feature::RefuseFamilies => "refuse-families",
        Feature::Authorise => "authorise",
        Feature::Records => "records",
        Feature::HideRedirection => "hide-redirection",
        Feature::Enforcement => "enforcement",
        Feature::OutliveOwner => "outlive-owner",
        Feature::HostScope => "host-scope",
        Feature::ShowInPackets => "show-in-packets",
    };
    let (needs, remedy) = match &capability.state {
        CapabilityState::Available => (None, None),
        CapabilityState::Missing { needs, remedy } => (Some(needs.as_str()), Some(remedy.as_str())),
    };
    WrittenCapability { name, available: needs.is_none(), needs, remedy }
}

fn program(other: &Other) -> WrittenProgram<'_> {
    let holds_for_runs = match other.relation {
        Relation::Above => true,
        Relation::Evaded => false,
    };
    WrittenProgram {
        cgroup: other.cgroup.display().to_string(),
        attach_type: other.hook.to_string(),
        id: other.program.id,
        name: other.program.name.as_deref(),
        waylay: other.ours,
        holds_for_runs,
        sandbox: holds_for_runs && !other.ours && other.meaning() == Meaning::Sandbox,
        meaning: words::meaning(other),
    }
}

fn resident(resident: &ResidentSeen) -> WrittenResident<'_> {
    let ResidentSeen { service, known_by, hooked, bystanders } = resident;
    WrittenResident {
        service,
        known_by: known_by.to_string(),
        cgroups: hooked.iter().map(|path| path.display().to_string()).collect(),
        bystanders,
    }
}

fn run(run: &Run) -> WrittenRun<'_> {
    let state = match run.state {
        RunState::Alive => "alive",
        RunState::Boot => "boot",
        RunState::LeftBehind => "left-behind",
        RunState::Removable => "removable",
        RunState::Unrecorded => "unrecorded",
        RunState::Unknown => "unknown",
    };
    WrittenRun {
        id: &run.id,
        state,
        owner: run.owner,
        cgroup: run.cgroup.as_ref().map(|cgroup| cgroup.display().to_string()),
        inside: run.inside.as_deref(),
        services: &run.services,
        residents: run.residents.iter().map(resident).collect(),
        processes: &run.processes,
    }
}

fn facts(facts: &Facts) -> WrittenFacts<'_> {
    WrittenFacts {
        ipv6: facts.ipv6,
        link_local: facts.link_local,
        mptcp: facts.mptcp,
        jit: facts.jit.map(|jit| jit == Jit::On),
        command_runs_as_root: facts.command_runs_as_root,
        container: facts.container.as_deref(),
        hidepid: facts.hidepid.as_deref(),
        lockdown: facts.lockdown.as_deref(),
        in_packets: facts.in_packets,
    }
}
