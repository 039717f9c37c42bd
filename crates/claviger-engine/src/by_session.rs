//! Bounded caches by session.
//!
//! A session's id is random, so its own bits serve as its hash. Only ids of ours get here, so an
//! attacker cannot choose them to collide.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use claviger_core::SessionId;
use quick_cache::{UnitWeighter, sync::Cache};

/// A bounded cache of something for each session.
pub(crate) type BySession<T> = By<SessionId, T>;

/// A bounded cache by a key whose hash is that of a session.
pub(crate) type By<K, T> = Cache<K, T, UnitWeighter, BuildHasherDefault<OwnBits>>;

/// Makes a cache of at most this many values.
pub(crate) fn cache<K: Eq + Hash, T: Clone>(values: usize) -> By<K, T> {
    Cache::with(values, values as u64, UnitWeighter, BuildHasherDefault::default(), Default::default())
}

/// A hasher that takes the last eight octets: in an id these are 62 random bits.
#[derive(Default)]
pub(crate) struct OwnBits(u64);

impl Hasher for OwnBits {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_ne_bytes(*last);
        }
    }

    /// The length of the id comes first. It is the same for all ids, so it is ignored.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        // The variant's two fixed bits are mixed with the others, which costs nothing.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, hash::BuildHasher as _};

    use claviger_core::Timestamp;

    use super::*;

    #[test]
    fn ids_of_one_moment_have_different_hashes() {
        let hasher = BuildHasherDefault::<OwnBits>::default();
        let hash = |n: u8| hasher.hash_one(SessionId::new(Timestamp::EPOCH, [n; 10]));
        assert_eq!((0..=255).map(hash).collect::<BTreeSet<_>>().len(), 256);
    }
}
