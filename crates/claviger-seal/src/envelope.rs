//! The envelope around everything sealed. Only this module seals and opens bytes.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce as OneTimeNonce, UnboundKey},
    error::Unspecified,
    hkdf::Prk,
    hmac,
};
use claviger_core::BlobHead;
use zeroize::Zeroizing;

/// The id of a root key. Everything sealed with the key begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

impl KeyId {
    /// Marks what a device's secret seals, without a root key.
    pub(crate) const NONE: Self = Self(0);

    /// Returns the root key of a blob that begins like this. `None` if it has no root key or
    /// another format.
    pub fn of(head: BlobHead) -> Option<Self> {
        match head.0 {
            [FORMAT, a, b, c, d] => {
                Some(Self(u32::from_be_bytes([a, b, c, d]))).filter(|id| *id != Self::NONE)
            }
            _ => None,
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Twelve bytes that should not repeat under one key. If they do, equal messages can be recognised
/// as equal (RFC 8452 section 1).
pub type Nonce = [u8; NONCE_LEN];

/// Why a sealed value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The keyring lacks its key. The operator must add the key again.
    #[error("sealed with key {0}, which is not in the keyring")]
    UnknownKey(KeyId),
    /// It was sealed elsewhere, for another place, or was changed. Callers cannot tell which.
    #[error("does not open")]
    Invalid,
}

/// What a value is sealed for. The number is authenticated and part of the key derivation, so it
/// never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    SessionCookie = 1,
    CachedTokenCookie = 2,
    LoginCookie = 3,
    Access = 4,
    RefreshDevice = 5,
    RefreshServer = 6,
    Fingerprint = 7,
    Destination = 8,
    SigningKeys = 9,
}

pub(crate) const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 1 + size_of::<u32>() + NONCE_LEN;
const TAG_BYTES: usize = 16;
/// Bytes that sealing adds to a message.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// The first part of the associated data, the same for everything sealed.
pub(crate) fn binding(key: KeyId, purpose: Purpose) -> [u8; 6] {
    let [a, b, c, d] = key.0.to_be_bytes();
    [FORMAT, a, b, c, d, purpose as u8]
}

/// Derives the key for one purpose and context. A purpose has contexts of one fixed length.
pub(crate) fn derive(root: &Prk, purpose: Purpose, context: &[u8]) -> LessSafeKey {
    let info: [&[u8]; 2] = [&[purpose as u8], context];
    certain(root.expand(&info, &AES_256_GCM_SIV).map(|okm| LessSafeKey::new(UnboundKey::from(okm))))
}

/// Derives the key of fingerprints, which seals nothing.
pub(crate) fn derive_fingerprint_key(root: &Prk) -> hmac::Key {
    certain(root.expand(&[&[Purpose::Fingerprint as u8]], hmac::HMAC_SHA256).map(hmac::Key::from))
}

pub(crate) fn seal(key: &LessSafeKey, id: KeyId, bound_to: &[u8], nonce: Nonce, plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&id.0.to_be_bytes());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let tag = sealed.get_mut(HEADER_BYTES..).ok_or(Unspecified).and_then(|body| {
        key.seal_in_place_separate_tag(OneTimeNonce::assume_unique_for_key(nonce), Aad::from(bound_to), body)
    });
    sealed.extend_from_slice(certain(tag).as_ref());
    sealed
}

/// Returns the id of the key that a value names. Only opening the value proves it.
pub(crate) fn key_id(sealed: &[u8]) -> Result<KeyId, OpenError> {
    match sealed {
        &[FORMAT, a, b, c, d, ..] if sealed.len() >= OVERHEAD_BYTES => {
            Ok(KeyId(u32::from_be_bytes([a, b, c, d])))
        }
        _ => Err(OpenError::Invalid),
    }
}

/// Opens a sealed value in place.
pub(crate) fn open(
    key: &LessSafeKey,
    bound_to: &[u8],
    mut sealed: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let &[_, _, _, _, _, ref nonce @ ..] = sealed.first_chunk::<HEADER_BYTES>().ok_or(OpenError::Invalid)?;
    let nonce = OneTimeNonce::assume_unique_for_key(*nonce);
    let plain_bytes = key
        .open_within(nonce, Aad::from(bound_to), &mut sealed, HEADER_BYTES..)
        .map_err(|Unspecified| OpenError::Invalid)?
        .len();
    sealed.truncate(plain_bytes);
    Ok(sealed)
}

/// Sealing fails only for reasons that no caller can act on. A made-up result would lose a token
/// for good, so it panics.
#[expect(
    clippy::expect_used,
    reason = "fails only for messages over 2^36 octets (RFC 8452 section 6), keys of a wrong length, or without memory"
)]
fn certain<T>(result: Result<T, Unspecified>) -> T {
    result.expect("AES-256-GCM-SIV and HKDF-SHA256 take these lengths")
}
