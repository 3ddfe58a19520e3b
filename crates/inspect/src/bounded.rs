//! A byte buffer with a hard limit.

/// Holds the first [`LIMIT`](Self::LIMIT) bytes it is given; neither its contents nor its allocation ever
/// exceed them.
#[derive(Debug, Default)]
pub(crate) struct Bounded(Vec<u8>);

impl Bounded {
    /// 16 KiB: the largest TLS record, and twice what servers commonly accept as a request head.
    pub(crate) const LIMIT: usize = 16 * 1024;

    /// Takes what there is room for and returns it.
    pub(crate) fn append<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let taken = &bytes[..bytes.len().min(Self::LIMIT - self.0.len())];
        self.make_room(self.0.len() + taken.len());
        self.0.extend_from_slice(taken);
        taken
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() == Self::LIMIT
    }

    /// Grows by doubling, as a vector does by itself, but never beyond the limit.
    fn make_room(&mut self, needed: usize) {
        if needed > self.0.capacity() {
            let capacity = needed.max(2 * self.0.capacity()).min(Self::LIMIT);
            self.0.reserve_exact(capacity - self.0.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_first_bytes_and_no_more() {
        let mut buffer = Bounded::default();
        let mut kept = 0;
        for _ in 0..5000 {
            kept += buffer.append(b"seven b").len();
            assert!(buffer.0.capacity() <= Bounded::LIMIT);
        }
        assert_eq!((kept, buffer.bytes().len()), (Bounded::LIMIT, Bounded::LIMIT));
        assert!(buffer.is_full());
    }
}
