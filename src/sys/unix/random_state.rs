//! Random numbers from the keys of std's hashers, where the system has no better ones.

use std::hash::{BuildHasher, RandomState};

/// 128 bits. A forked copy of this process can get the same ones, so its pid is a part of them.
pub(crate) fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(std::process::id()).to_ne_bytes());
    }
    bytes
}
