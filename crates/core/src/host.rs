//! Names of hosts, as applications ask resolvers for them.
//!
//! A name is known of a leg if the original application has asked for it and had the leg's destination for an answer. Answers can be
//! forged, and an address can have many names, so a name never lets anything pass: it can lead a connection to a service, block it,
//! or take a permission away. [`crate::Policy`] refuses filters that would have it otherwise.

use std::fmt;

/// A name of a host: labels of letters, digits, `-` and `_`, in lower case, without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Names of hosts: one, or all below one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name.
    Name(HostName),
    /// All names below this one, which is not among them: `*.example.com`.
    Below(HostName),
}

/// Why a text is no name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// It has no labels, or an empty one.
    #[error("a label is empty")]
    EmptyLabel,
    /// A label has more than 63 bytes, or all together have more than 253 (RFC 1035, section 2.3.4).
    #[error("a label has at most 63 characters, and a name 253")]
    TooLong,
    /// It has something else than letters, digits, `-` and `_` in it. Others are written as resolvers are asked for them: `xn--…`.
    #[error("a name has letters, digits, '-' and '_', and others as \"xn--…\"")]
    Character,
}

impl HostName {
    /// The longest, in bytes.
    pub const LONGEST: usize = 253;

    /// Reads a name; upper case is lower case, and one dot at the end is none.
    ///
    /// # Errors
    /// [`HostNameError`] if it is none.
    pub fn new(text: &str) -> Result<Self, HostNameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        for label in text.split('.') {
            if label.is_empty() {
                return Err(HostNameError::EmptyLabel);
            }
            if label.len() > 63 {
                return Err(HostNameError::TooLong);
            }
            if !label.bytes().all(fits) {
                return Err(HostNameError::Character);
            }
        }
        if text.len() > Self::LONGEST {
            return Err(HostNameError::TooLong);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// All patterns that cover it: itself, and all names below each name above it.
    ///
    /// ```
    /// use waylay_core::HostName;
    ///
    /// let name = HostName::new("a.b.example")?;
    /// let words: Vec<String> = name.patterns().map(|pattern| pattern.to_string()).collect();
    /// assert_eq!(words, ["a.b.example", "*.b.example", "*.example"]);
    /// # Ok::<(), waylay_core::HostNameError>(())
    /// ```
    pub fn patterns(&self) -> impl Iterator<Item = HostPattern> {
        let above =
            self.0.match_indices('.').map(|(at, _)| HostPattern::Below(Self(self.0[at + 1..].to_owned())));
        std::iter::once(HostPattern::Name(self.clone())).chain(above)
    }

    fn is_below(&self, other: &Self) -> bool {
        self.0.strip_suffix(other.as_str()).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl HostPattern {
    /// Whether it covers a name.
    ///
    /// ```
    /// use waylay_core::{HostName, HostPattern};
    ///
    /// let ads = HostPattern::Below(HostName::new("ads.example")?);
    /// assert!(ads.covers(&HostName::new("a.b.ADS.example.")?));
    /// assert!(!ads.covers(&HostName::new("ads.example")?));
    /// assert!(!ads.covers(&HostName::new("loads.example")?));
    /// # Ok::<(), waylay_core::HostNameError>(())
    /// ```
    #[must_use]
    pub fn covers(&self, name: &HostName) -> bool {
        match self {
            Self::Name(this) => this == name,
            Self::Below(above) => name.is_below(above),
        }
    }

    /// Whether it covers all that another covers.
    #[must_use]
    pub fn covers_all_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(this), Self::Name(other)) => this == other,
            (Self::Name(_), Self::Below(_)) => false,
            (Self::Below(above), Self::Name(other)) => other.is_below(above),
            (Self::Below(above), Self::Below(other)) => above == other || other.is_below(above),
        }
    }

    /// The number by which engines know it.
    #[must_use]
    pub fn key(&self) -> u64 {
        match self {
            Self::Name(name) => finish(digest(name.0.bytes())),
            Self::Below(name) => finish(digest(name.0.bytes()) ^ BELOW),
        }
    }
}

const BEGINNING: u64 = 0xcbf2_9ce4_8422_2325;
/// What tells all names below one from that one.
const BELOW: u64 = 0x5bd1_e995_7b7d_159c;

/// From the last byte to the first, so that on the way the digests of all names above come by.
fn digest(bytes: impl DoubleEndedIterator<Item = u8>) -> u64 {
    bytes.rev().fold(BEGINNING, |digest, byte| {
        let mixed = (digest ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    })
}

/// Murmur's finalizer. No key is 0, which means none.
const fn finish(digest: u64) -> u64 {
    let mut mixed = digest;
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^= mixed >> 33;
    if mixed == 0 { 1 } else { mixed }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> HostName {
        HostName::new(text).unwrap()
    }

    #[test]
    fn names_have_one_form() {
        assert_eq!(name("WWW.Example.com.").as_str(), "www.example.com");
        assert_eq!(name("_dmarc.example"), name("_DMARC.example"));
        let long = format!("{}.example", "a".repeat(64));
        let deep = "a.".repeat(127) + "example";
        for (text, error) in [
            ("", HostNameError::EmptyLabel),
            (".", HostNameError::EmptyLabel),
            ("a..b", HostNameError::EmptyLabel),
            ("a.b..", HostNameError::EmptyLabel),
            (&long, HostNameError::TooLong),
            (&deep, HostNameError::TooLong),
            ("a b", HostNameError::Character),
            ("*.a", HostNameError::Character),
            ("müller.example", HostNameError::Character),
        ] {
            assert_eq!(HostName::new(text), Err(error), "{text}");
        }
    }

    fn names() -> impl Strategy<Value = HostName> {
        "[ab](\\.[ab]{1,2}){0,3}".prop_map(|text| name(&text))
    }

    fn patterns() -> impl Strategy<Value = HostPattern> {
        (names(), any::<bool>())
            .prop_map(|(name, one)| if one { HostPattern::Name(name) } else { HostPattern::Below(name) })
    }

    proptest! {
        #[test]
        fn a_pattern_covers_the_names_of_which_it_is_one(pattern in patterns(), name in names()) {
            prop_assert_eq!(name.patterns().any(|own| own == pattern), pattern.covers(&name));
            prop_assert_eq!(name.patterns().any(|own| own.key() == pattern.key()), pattern.covers(&name));
        }

        #[test]
        fn what_a_covered_pattern_covers_is_covered(one in patterns(), other in patterns(), name in names()) {
            if one.covers_all_of(&other) && other.covers(&name) {
                prop_assert!(one.covers(&name));
            }
            let itself = HostPattern::Name(name.clone());
            prop_assert_eq!(one.covers_all_of(&itself), one.covers(&name));
        }
    }
}
