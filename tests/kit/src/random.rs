//! Numbers that look random and can be had again.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

/// splitmix64, after its published constants.
pub struct Random(u64);

impl Random {
    pub fn of(seed: u64) -> Random {
        Random(seed)
    }

    /// Seeded from this variable if that is set, and saying so either way.
    pub fn announced(variable: &str) -> Random {
        let given = env::var(variable).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").subsec_nanos().into()
        });
        eprintln!("{variable}={seed}");
        Random(seed)
    }

    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Another sequence, for another task.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }
}
