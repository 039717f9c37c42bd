//! A session's token pair, sealed.

use crate::{Expiry, Version};

/// A sealed token pair, bound to its row and to [`SealedPair::generation`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SealedPair {
    /// The row's version when the pair was written. Both blobs are bound to it.
    pub generation: Version,
    /// The access token with its scopes, sealed with the server's keyring.
    pub access: SealedBlob,
    /// The refresh token, sealed by the session's custody. `None` if the provider gave none.
    pub refresh: Option<SealedBlob>,
    /// When the access token expires.
    pub expiry: Expiry,
}

/// Sealed bytes. They are not secret, but logs do not need them either.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SealedBlob(pub Vec<u8>);

impl std::fmt::Debug for SealedBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedBlob({} bytes)", self.0.len())
    }
}

/// The first bytes of a sealed blob. Blobs with the same format and key begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHead(pub [u8; 5]);

impl SealedBlob {
    /// Returns the first bytes, filled up with zeros.
    pub fn head(&self) -> BlobHead {
        BlobHead(std::array::from_fn(|index| self.0.get(index).copied().unwrap_or_default()))
    }
}
