//! A policy file of any content: for fuzzing, and for the tests that go on from it.

use crate::paper::{Paper, Party};
use crate::{Severity, Sources, Style, lint, lower, names::Nobody, read, render, strangers};
use waylay_core::{Facts, Leg, Process, Protocol, Records, World, decide};

/// Two files at once, the bytes cut at the first zero: whatever is said of them can be shown, and what holds together decides.
pub fn policy(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut sources = Sources::default();
    for (name, text) in ["policy.toml", "conf.d/more.toml"].into_iter().zip(text.split('\0')) {
        sources.add(name, text);
    }
    let (declarations, mut diagnostics) = read(&sources);
    let mut paper = Paper::new(&Nobody);
    let caller = paper.process(&Party { exe: Some("/usr/bin/curl".into()), ..Party::default() });
    let lowered = lower(&declarations, &paper, &mut diagnostics);
    let is_wrong = diagnostics.iter().any(|diagnostic| diagnostic.severity() == Severity::Error);
    assert_eq!(lowered.is_none(), is_wrong, "an error, and no policy, or neither");
    diagnostics.extend(strangers(&declarations, &Nobody));
    if let Some(lowered) = &lowered {
        assert_eq!(lowered.policy.filters().len(), declarations.filters.len());
        diagnostics.extend(lint(&declarations, lowered, &sources));
        judge(caller, &lowered.policy);
    }
    for diagnostic in &diagnostics {
        let span = diagnostic.span.iter().chain(diagnostic.related.iter().map(|(span, _)| span));
        span.for_each(|span| assert!(sources.text(span).get(span.bytes()).is_some(), "{diagnostic:?}"));
        assert!(!render(std::slice::from_ref(diagnostic), &sources, Style::Plain).is_empty());
    }
}

fn judge(caller: Process, policy: &waylay_core::Policy) {
    let remote = ([192, 0, 2, 1], 443).into();
    let leg = Leg { protocol: Protocol::Tcp, local: None, remote, caller };
    let world = World::default();
    let decision = decide(policy, &leg, &Records::None, &world);
    let chain = waylay_core::Chain::default();
    let facts = Facts::new(&leg, &chain, &world);
    let matches = policy.filters().iter().any(|filter| filter.conditions.match_facts(&facts));
    assert!(
        matches || decision.verdict == waylay_core::Verdict::Direct,
        "nothing matches, so nothing happens"
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_policy_is_too_strange() {
        waylay_corpus::replay("policy", super::policy);
    }
}
