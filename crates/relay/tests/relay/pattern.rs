//! Streams whose bytes depend on their position, so that a lost, repeated or moved one is noticed.

use std::io::{Read, Result, Write};
use std::net::TcpStream;
use std::sync::OnceLock;

/// A multiple of the block size, so that only the end of a stream can cut a block.
const CHUNK: usize = 64 * 1024;

/// Any bijective mixing will do; these are SplitMix64's constants.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Bytes that are what they are by their place in the stream as a whole.
const BLOCK: usize = 4096;

/// Fills a chunk that begins at `position`, a multiple of [`BLOCK`]: each block is a piece of a random text,
/// which piece depends on its number.
pub(crate) fn fill(seed: u64, position: u64, chunk: &mut [u8]) {
    let text = text();
    for (index, block) in chunk.chunks_mut(BLOCK).enumerate() {
        let number = position / BLOCK as u64 + index as u64;
        let start = mix(seed.rotate_left(32) ^ number) as usize % (text.len() - BLOCK);
        block.copy_from_slice(&text[start..start + block.len()]);
    }
}

/// The first `total` bytes of a stream.
pub(crate) fn stream(seed: u64, total: usize) -> Vec<u8> {
    let mut bytes = vec![0; total];
    fill(seed, 0, &mut bytes);
    bytes
}

fn text() -> &'static [u8] {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    TEXT.get_or_init(|| (0..1 << 17).flat_map(|word| mix(word).to_le_bytes()).collect())
}

/// Writes the first `total` bytes of a stream, counting them by `progress`.
pub(crate) fn send(mut to: &TcpStream, seed: u64, total: u64, mut progress: impl FnMut(u64)) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut position = 0;
    while position < total {
        let length = CHUNK.min((total - position) as usize);
        fill(seed, position, &mut chunk[..length]);
        to.write_all(&chunk[..length])?;
        position += length as u64;
        progress(position);
    }
    Ok(())
}

/// Reads to the end-of-file and returns the length; panics at the first byte that isn't the stream's.
pub(crate) fn receive(from: &TcpStream, seed: u64, mut progress: impl FnMut(u64)) -> Result<u64> {
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut position = 0;
    loop {
        let length = read_full(from, &mut chunk)?;
        fill(seed, position, &mut expected);
        assert!(chunk[..length] == expected[..length], "wrong bytes after {position}");
        position += length as u64;
        progress(position);
        if length < CHUNK {
            return Ok(position);
        }
    }
}

fn read_full(mut from: &TcpStream, chunk: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < chunk.len() {
        match from.read(&mut chunk[length..])? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}
