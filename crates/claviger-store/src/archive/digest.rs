//! A checksum of rows that does not depend on the kind of store.

use std::{
    fmt,
    hash::{Hash as _, Hasher},
};

use sha2::{Digest as _, Sha256};

use super::Record;

/// SHA-256 of rows in the order of their keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Makes a digest, row by row. A row's types derive `Hash`, so no field of it can be left out.
#[derive(Default)]
pub(super) struct Digester(Sha256);

impl Digester {
    pub(super) fn add(&mut self, record: &Record) {
        record.hash(self);
    }

    pub(super) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl Hasher for Digester {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The first octets of the digest so far.
    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}
