//! A SPEC of any content: for fuzzing, and for the tests that go on from it.

use crate::spec::{LONGEST_NAME, Service, Spec};

/// Whatever is understood has a name that may be shown and kept.
pub(crate) fn spec(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(spec) = Spec::parse(&text) else { return };
    for name in spec.name.iter().chain([&spec.stem()]) {
        assert!(!name.is_empty() && name.chars().all(|character| character.is_ascii_graphic()), "{name:?}");
    }
    assert!(spec.name.is_none_or(|name| name.len() <= LONGEST_NAME));
    match spec.service {
        Service::Builtin { .. } => {}
        Service::Exec { command, .. } => assert!(!command.trim().is_empty()),
        Service::Adopt { command, adoption, .. } => {
            assert_ne!(command.trim().is_empty(), adoption.known_by.is_none());
            assert!((1..=2).contains(&adoption.listens.len()), "{adoption:?}");
            assert!(adoption.listens.iter().all(|address| address.port() != 0), "{adoption:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_spec_is_too_strange() {
        waylay_corpus::replay("spec", super::spec);
    }
}
