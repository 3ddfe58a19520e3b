//! The bytes of CRYPTO frames, put in order.

use crate::bounded::Bounded;

/// Pieces with gaps between them that are kept: more than a flight has frames.
const MOST_PIECES: usize = 64;

/// The first [`Bounded::LIMIT`] bytes of the stream. Of what comes twice, the first is kept.
#[derive(Debug, Default)]
pub(super) struct CryptoStream {
    bytes: Vec<u8>,
    /// What has been received, as ranges of offsets in order that do not touch.
    pieces: Vec<(usize, usize)>,
}

impl CryptoStream {
    /// What has been received without a gap.
    pub(super) fn beginning(&self) -> &[u8] {
        match self.pieces.first() {
            Some(&(0, end)) => &self.bytes[..end],
            Some(_) | None => &[],
        }
    }

    pub(super) fn insert(&mut self, offset: u64, data: &[u8]) {
        let Ok(start) = usize::try_from(offset) else { return };
        let end = start.saturating_add(data.len()).min(Bounded::LIMIT);
        if start >= end {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let mut from = start;
        for &(piece_start, piece_end) in &self.pieces {
            let until = piece_start.clamp(from, end);
            self.bytes[from..until].copy_from_slice(&data[from - start..until - start]);
            from = piece_end.clamp(from, end);
        }
        self.bytes[from..end].copy_from_slice(&data[from - start..end - start]);
        self.note(start, end);
    }

    fn note(&mut self, start: usize, end: usize) {
        let first = self.pieces.partition_point(|piece| piece.1 < start);
        let after = self.pieces.partition_point(|piece| piece.0 <= end);
        let joined = self.pieces[first..after]
            .iter()
            .fold((start, end), |joined, piece| (joined.0.min(piece.0), joined.1.max(piece.1)));
        if first == after && self.pieces.len() == MOST_PIECES {
            return;
        }
        self.pieces.splice(first..after, [joined]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_make_the_stream() {
        let text: Vec<u8> = (0..=255).collect();
        for step in [1, 7, 64, 255] {
            let mut stream = CryptoStream::default();
            let mut starts: Vec<usize> = (0..text.len()).step_by(step).collect();
            starts.sort_by_key(|start| start * 37 % 101);
            if starts.len() > MOST_PIECES {
                starts.sort_unstable();
            }
            for start in starts {
                // Overlaps the next piece.
                stream.insert(start as u64, &text[start..text.len().min(start + step + 3)]);
            }
            assert_eq!(stream.beginning(), text, "in steps of {step}");
        }
    }

    #[test]
    fn of_what_comes_twice_the_first_is_kept() {
        let mut stream = CryptoStream::default();
        stream.insert(2, b"cd");
        stream.insert(0, b"ABCDEF");
        assert_eq!(stream.beginning(), b"ABcdEF");
        stream.insert(1, b"....");
        assert_eq!(stream.beginning(), b"ABcdEF");
    }

    #[test]
    fn it_keeps_a_bounded_number_of_bytes_and_pieces() {
        let mut stream = CryptoStream::default();
        stream.insert(u64::MAX, b"far");
        stream.insert(Bounded::LIMIT as u64, b"out");
        stream.insert(Bounded::LIMIT as u64 - 1, b"edge");
        for piece in 0..1000 {
            stream.insert(piece * 4 + 2, b"x");
        }
        assert_eq!(stream.beginning(), b"");
        assert!(stream.bytes.len() <= Bounded::LIMIT && stream.pieces.len() <= MOST_PIECES);
        stream.insert(0, &[b'y'; 3 * Bounded::LIMIT]);
        assert_eq!(stream.beginning().len(), Bounded::LIMIT);
    }
}
