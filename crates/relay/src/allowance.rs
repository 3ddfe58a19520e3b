//! How many bytes of a direction may wait to be sent by its sink: few at first, and more once a transfer is large.
//!
//! An application that sends until nothing fits would find room for tens of megabytes in the buffers of a few services,
//! and hear late that nobody reads: what one takes in lets the window of the next grow. Large transfers are better off
//! with those buffers: while one side has its turn the other need not wait.

/// Bytes of a direction below which nothing is said: most connections never have more.
const SMALL: u64 = 64 * 1024;
/// Bytes of a direction from which on it may fill what buffers there are.
const LARGE: u64 = 16 << 20;

/// What a direction's sink has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Allowance {
    #[default]
    Unsaid,
    Bounded,
    Lifted,
}

impl Allowance {
    /// What changes after so many bytes.
    pub(crate) fn change(&mut self, forwarded: u64) -> Option<Self> {
        *self = match self {
            Self::Unsaid if forwarded >= SMALL => Self::Bounded,
            Self::Bounded if forwarded >= LARGE => Self::Lifted,
            Self::Unsaid | Self::Bounded | Self::Lifted => return None,
        };
        Some(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_transfer_changes_nothing_and_a_large_one_twice() {
        let mut allowance = Allowance::default();
        let changes: Vec<_> = (0..=LARGE / 1024 + 100)
            .filter_map(|kibibytes| Some((kibibytes * 1024, allowance.change(kibibytes * 1024)?)))
            .collect();
        assert_eq!(changes, [(SMALL, Allowance::Bounded), (LARGE, Allowance::Lifted)]);
    }
}
