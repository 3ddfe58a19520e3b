//! What somebody who mistyped may have meant.

/// The name that is nearest to what was typed, if it is near enough for a slip.
#[must_use]
pub fn meant<'n>(typed: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let slips = |name: &&str| strsim::damerau_levenshtein(typed, name);
    names.into_iter().min_by_key(slips).filter(|name| slips(name) <= allowed(name))
}

/// One slip in a short word, two in a longer one.
fn allowed(name: &str) -> usize {
    (name.len() / 3).clamp(1, 2)
}

/// As a message puts it.
pub(crate) fn did_you_mean<'n>(typed: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    meant(typed, names).map(|name| format!("did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_from_other_words() {
        let names = ["run", "doctor", "completions", "man"];
        for (typed, name) in
            [("rn", "run"), ("rnu", "run"), ("dcotro", "doctor"), ("completion", "completions")]
        {
            assert_eq!(meant(typed, names), Some(name), "{typed}");
        }
        for typed in ["", "a", "exec", "install", "rm -rf"] {
            assert_eq!(meant(typed, names), None, "{typed}");
        }
    }
}
