//! Root keys, the keyring, and the cookies that it seals.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::LessSafeKey,
    hkdf::{HKDF_SHA256, Prk, Salt},
    hmac,
};
use base64::{Engine as _, decoded_len_estimate, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{BlobHead, Fingerprint, RefreshToken, SealedBlob, limits::COOKIE_BYTES};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::envelope::{self, KeyId, Nonce, OpenError, Purpose};

/// A root key: 256 random bits and an id. Only keys derived from it seal (RFC 5869).
#[derive(Clone)]
pub struct RootKey {
    id: KeyId,
    bytes: Zeroizing<[u8; 32]>,
}

impl RootKey {
    /// Wraps 32 random bytes.
    pub fn new(id: KeyId, bytes: [u8; 32]) -> Self {
        Self { id, bytes: Zeroizing::new(bytes) }
    }

    /// Parses a key as [`RootKey::encode`] writes it. White space around it is ignored.
    ///
    /// # Errors
    /// [`KeyFormatError`] says which part is wrong without showing it.
    pub fn parse(text: &str) -> Result<Self, KeyFormatError> {
        let (id, encoded) = text.trim().split_once(':').ok_or(KeyFormatError::Shape)?;
        let number = id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok()).flatten();
        let id = number.map(KeyId).filter(|id| *id != KeyId::NONE).ok_or(KeyFormatError::Id)?;
        let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| KeyFormatError::Bytes)?);
        let bytes: [u8; 32] = decoded.as_slice().try_into().map_err(|_| KeyFormatError::Bytes)?;
        if bytes == [0; 32] {
            return Err(KeyFormatError::Zero);
        }
        Ok(Self::new(id, bytes))
    }

    /// Returns the key as configurations write it: its id, a colon, and its 32 bytes in base64url
    /// without padding.
    pub fn encode(&self) -> SecretString {
        let octets = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.bytes.as_slice()));
        SecretString::from(format!("{}:{}", self.id, octets.as_str()))
    }

    /// Returns the key's id.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({}, redacted)", self.id)
    }
}

/// Why a text is no root key. The error never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFormatError {
    /// There is no colon.
    #[error("a root key is written as its id, a colon, and 32 bytes in base64url, such as 1:AAAA...")]
    Shape,
    /// The id is not a number, or is 0.
    #[error("the id of a root key must be a number from 1 to 4294967295")]
    Id,
    /// The key does not decode to 32 bytes.
    #[error("a root key must be 32 bytes in base64url without padding: 43 characters after the colon")]
    Bytes,
    /// The key is a placeholder that everybody knows.
    #[error("a root key of zeros protects nothing; `claviger keys generate` makes one")]
    Zero,
}

/// Why a list of root keys is no keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The list is empty.
    #[error("at least one root key is needed")]
    Empty,
    /// Two have the same id.
    #[error("two root keys have the id {0}")]
    Duplicate(KeyId),
    /// Id 0 marks what is sealed without a root key.
    #[error("the id 0 is reserved")]
    ReservedId,
}

/// What a cookie is for. It does not open for another purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CookiePurpose {
    /// The session's id and secret.
    Session,
    /// A copy of the access token.
    CachedToken,
    /// A sign-in in progress.
    Login,
}

impl CookiePurpose {
    fn purpose(self) -> Purpose {
        match self {
            Self::Session => Purpose::SessionCookie,
            Self::CachedToken => Purpose::CachedTokenCookie,
            Self::Login => Purpose::LoginCookie,
        }
    }
}

/// The root keys. The first one seals, and each opens what it sealed.
///
/// A newer key has a higher id. What a key with a lower id than the first sealed must be resealed.
/// A key with a higher id is the next one, and other instances may seal with it already.
pub struct Keyring {
    sealing: Arc<Keys>,
    others: Vec<Arc<Keys>>,
    /// Keys that were removed from the list. They still open rows that were read before.
    leaving: Vec<Arc<Keys>>,
}

/// The keys derived from one root key.
pub(crate) struct Keys {
    pub(crate) id: KeyId,
    /// Row keys are derived from it.
    pub(crate) rows: Prk,
    session: LessSafeKey,
    cached_token: LessSafeKey,
    login: LessSafeKey,
    fingerprint: hmac::Key,
}

/// Keeps keys of root keys and keys of device secrets apart.
const ROOT_SALT: &[u8] = b"claviger root key, format 1";

impl Keyring {
    /// Creates a keyring from root keys, the sealing one first, and derives the keys of all
    /// cookies.
    ///
    /// # Errors
    /// [`KeyringError`]: no key, two of one id, or the id 0.
    pub fn new(roots: Vec<RootKey>) -> Result<Self, KeyringError> {
        for (index, root) in roots.iter().enumerate() {
            if root.id == KeyId::NONE {
                return Err(KeyringError::ReservedId);
            }
            if roots.iter().take(index).any(|other| other.id == root.id) {
                return Err(KeyringError::Duplicate(root.id));
            }
        }
        let mut keys = roots.iter().map(|root| Arc::new(Keys::new(root)));
        let sealing = keys.next().ok_or(KeyringError::Empty)?;
        Ok(Self { sealing, others: keys.collect(), leaving: Vec::new() })
    }

    /// Returns the key that seals.
    pub fn sealing(&self) -> KeyId {
        self.sealing.id
    }

    /// Returns the ids of all keys in the list, the sealing one first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.listed().map(|keys| keys.id)
    }

    /// Returns the keys that were removed from the list and still open rows.
    pub fn leaving(&self) -> impl Iterator<Item = KeyId> {
        self.leaving.iter().map(|keys| keys.id)
    }

    /// Returns whether a key is in the list.
    pub fn holds(&self, id: KeyId) -> bool {
        self.ids().any(|held| held == id)
    }

    /// Returns whether this keyring opens anything that must be resealed.
    pub fn has_older(&self) -> bool {
        !(self.others.is_empty() && self.leaving.is_empty())
            && self.others.iter().chain(&self.leaving).any(|keys| self.is_older(keys.id))
    }

    /// Returns whether values that this key sealed must be resealed.
    pub fn is_older(&self, id: KeyId) -> bool {
        id != KeyId::NONE && id < self.sealing.id
    }

    /// Returns whether a blob of a row must be resealed.
    pub fn is_outdated(&self, sealed: &SealedBlob) -> bool {
        KeyId::of(sealed.head()).is_some_and(|id| self.is_older(id))
    }

    /// Returns whether a cookie must be resealed, by the key id that it names. Does not allocate.
    pub fn is_cookie_outdated(&self, sealed: &str) -> bool {
        let mut head = [0; 6];
        let read = sealed.as_bytes().get(..8).map(|first| URL_SAFE_NO_PAD.decode_slice(first, &mut head));
        let [format, a, b, c, d, _] = head;
        matches!(read, Some(Ok(_)))
            && KeyId::of(BlobHead([format, a, b, c, d])).is_some_and(|id| self.is_older(id))
    }

    /// Returns a key whose id `before` has for another key.
    pub fn contradicts(&self, before: &Self) -> Option<KeyId> {
        let tag = |keys: &Keys| hmac::sign(&keys.fingerprint, b"claviger: the same key?");
        let differs = |keys: &&Arc<Keys>| {
            let old = before.listed().chain(&before.leaving).find(|old| old.id == keys.id);
            old.is_some_and(|old| tag(old).as_ref() != tag(keys).as_ref())
        };
        self.listed().find(differs).map(|keys| keys.id)
    }

    /// Replaces `before` by this keyring. Keys that only `before` has still open rows, which may be
    /// in memory, but no cookies.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        let gone = |keys: &&Arc<Keys>| !self.holds(keys.id);
        self.leaving = before.listed().chain(&before.leaving).filter(gone).cloned().collect();
        self
    }

    /// Returns this keyring without the removed keys.
    #[must_use]
    pub fn without_leaving(&self) -> Self {
        Self { sealing: Arc::clone(&self.sealing), others: self.others.clone(), leaving: Vec::new() }
    }

    fn listed(&self) -> impl Iterator<Item = &Arc<Keys>> {
        std::iter::once(&self.sealing).chain(&self.others)
    }

    /// Seals a cookie. The value consists of letters, digits, `-` and `_`.
    pub fn seal_cookie(&self, purpose: CookiePurpose, plain: &[u8], nonce: Nonce) -> String {
        let keys = &self.sealing;
        let bound_to = envelope::binding(keys.id, purpose.purpose());
        URL_SAFE_NO_PAD.encode(envelope::seal(keys.cookie(purpose), keys.id, &bound_to, nonce, plain))
    }

    /// Opens a cookie of at most [`COOKIE_BYTES`] bytes. Allocates once.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_cookie(&self, purpose: CookiePurpose, sealed: &str) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if sealed.len() > COOKIE_BYTES {
            return Err(OpenError::Invalid);
        }
        let mut bytes = Zeroizing::new(vec![0; decoded_len_estimate(sealed.len())]);
        let length = URL_SAFE_NO_PAD.decode_slice(sealed, &mut bytes).map_err(|_| OpenError::Invalid)?;
        bytes.truncate(length);
        let keys = self.keys_of(&bytes)?;
        envelope::open(keys.cookie(purpose), &envelope::binding(keys.id, purpose.purpose()), bytes)
    }

    /// Distinguishes refresh tokens without revealing them: HMAC-SHA256 under the sealing key, cut
    /// to 16 bytes.
    ///
    /// Fingerprints are compared only within one claim on a row, so a key rotation affects them for
    /// at most one lease.
    pub fn fingerprint(&self, token: &RefreshToken) -> Fingerprint {
        let tag = hmac::sign(&self.sealing.fingerprint, token.expose().as_bytes());
        Fingerprint(std::array::from_fn(|index| tag.as_ref().get(index).copied().unwrap_or_default()))
    }

    /// Returns the keys that seal.
    pub(crate) fn seals_with(&self) -> &Keys {
        &self.sealing
    }

    /// Returns the keys that a cookie names. A value without a root key is invalid, not a missing
    /// key.
    fn keys_of(&self, sealed: &[u8]) -> Result<&Keys, OpenError> {
        let id = envelope::key_id(sealed)?;
        if id == KeyId::NONE {
            return Err(OpenError::Invalid);
        }
        self.listed().find(|keys| keys.id == id).map(Arc::as_ref).ok_or(OpenError::UnknownKey(id))
    }

    /// Returns the keys that a blob of a row names.
    pub(crate) fn keys_of_row(&self, sealed: &[u8]) -> Result<&Keys, OpenError> {
        self.keys_of(sealed).or_else(|error| match error {
            OpenError::UnknownKey(id) => {
                self.leaving.iter().find(|keys| keys.id == id).map(Arc::as_ref).ok_or(error)
            }
            OpenError::Invalid => Err(error),
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.ids().map(|id| id.0);
        f.write_str("Keyring")?;
        f.debug_list().entries(ids).finish()
    }
}

impl Keys {
    fn new(root: &RootKey) -> Self {
        let rows = Salt::new(HKDF_SHA256, ROOT_SALT).extract(root.bytes.as_slice());
        Self {
            id: root.id,
            session: envelope::derive(&rows, Purpose::SessionCookie, &[]),
            cached_token: envelope::derive(&rows, Purpose::CachedTokenCookie, &[]),
            login: envelope::derive(&rows, Purpose::LoginCookie, &[]),
            fingerprint: envelope::derive_fingerprint_key(&rows),
            rows,
        }
    }

    fn cookie(&self, purpose: CookiePurpose) -> &LessSafeKey {
        match purpose {
            CookiePurpose::Session => &self.session,
            CookiePurpose::CachedToken => &self.cached_token,
            CookiePurpose::Login => &self.login,
        }
    }
}

#[cfg(test)]
mod tests;
