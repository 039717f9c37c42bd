//! Random numbers that follow from a seed (SplitMix64). Not for cryptography.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use claviger_engine::Entropy;

/// A source of random numbers. Tasks that share it draw in the order in which they run.
pub(crate) struct Rng(AtomicU64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn number(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 up to but not including `end`.
    pub(crate) fn below(&self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.number() % end).unwrap_or(0)
    }

    /// Returns true with this probability in thousandths.
    pub(crate) fn chance(&self, permille: u64) -> bool {
        self.number() % 1000 < permille
    }

    pub(crate) fn pick<T: Copy>(&self, from: &[T], otherwise: T) -> T {
        from.get(self.below(from.len())).copied().unwrap_or(otherwise)
    }

    /// Returns a span from `shortest` to `longest`, both included.
    pub(crate) fn span(&self, shortest: Duration, longest: Duration) -> Duration {
        let width = u64::try_from(longest.saturating_sub(shortest).as_millis()).unwrap_or(u64::MAX);
        shortest + Duration::from_millis(self.number() % width.saturating_add(1))
    }
}

impl Entropy for Rng {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.number().to_be_bytes();
            for (byte, drawn) in chunk.iter_mut().zip(word) {
                *byte = drawn;
            }
        }
    }
}
