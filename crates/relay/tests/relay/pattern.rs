//! Streams whose every word depends on its position, so that a lost, repeated or moved byte is noticed.

use std::io::{Read, Result, Write};
use std::net::TcpStream;

/// A multiple of the word size, so that only the end of a stream can cut a word.
const CHUNK: usize = 64 * 1024;

/// Any bijective mixing will do; these are SplitMix64's constants.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Fills a chunk that begins at `position`, a multiple of 8.
pub(crate) fn fill(seed: u64, position: u64, chunk: &mut [u8]) {
    for (index, word) in chunk.chunks_mut(8).enumerate() {
        let value = mix(seed ^ (position / 8 + index as u64)).to_le_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
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
