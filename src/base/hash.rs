//! Hash functions: for text from outside the process, with a random seed, and for numbers that the process assigns.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// Hashes an event type or a key: eight bytes at a time, each step a 128-bit product folded to 64 bits. The random seed
/// prevents a client from preparing texts that collide.
pub(crate) fn hash_text(text: &str) -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("type"));

    let bytes = text.as_bytes();
    let mut hash = *SEED ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word));
    }
    // A text of eight bytes or more hashes its last eight bytes (overlapping the words) instead of a padded remainder,
    // which saves a copy.
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

/// Hashes 64-bit numbers that the process itself assigns. It needs no protection against crafted collisions.
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write_u64(&mut self, number: u64) {
        // Multiplying and folding in the upper half lets every input bit affect all output bits.
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
