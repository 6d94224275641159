//! Hashes: of texts that come from outside, and of numbers that do not. They differ from process to process.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// The hash of an event type or a key: eight bytes at a time, each step a 128-bit product folded to 64 bits. The seed is random, so nobody can prepare
/// texts that all have the same hash.
pub(crate) fn hash_text(text: &str) -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("type"));

    let bytes = text.as_bytes();
    let mut hash = *SEED ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word));
    }
    // The last eight bytes again stand for the rest of a text that is long enough: cheaper than a copy of the rest.
    let last = bytes.last_chunk().copied().unwrap_or_else(|| {
        let mut padded = [0; 8];
        padded[..rest.len()].copy_from_slice(rest);
        padded
    });
    fold(hash ^ u64::from_le_bytes(last))
}

fn fold(word: u64) -> u64 {
    let product = u128::from(word) * 0x9E37_79B9_7F4A_7C15;
    product as u64 ^ (product >> 64) as u64
}

/// Hashes 64-bit numbers that nobody outside can choose, so that speed is all that counts.
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write_u64(&mut self, number: u64) {
        // Multiply, and fold the upper half in: every bit of the number reaches every part of the hash.
        let product = u128::from(self.0 ^ number ^ 0x9E37_79B9_7F4A_7C15) * 0xD6E8_FEB8_6659_FD93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only 64-bit numbers are hashed")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
