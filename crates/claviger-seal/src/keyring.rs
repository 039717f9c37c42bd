//! Root keys, the keyring made of them, and the cookies it seals.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::LessSafeKey,
    hkdf::{HKDF_SHA256, Prk, Salt},
    hmac,
};
use base64::{Engine as _, decoded_len_estimate, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{
    policy::limits::COOKIE_BYTES,
    secret::{Fingerprint, RefreshToken},
    session::{BlobHead, SealedBlob},
};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::envelope::{self, Nonce, OpenError, Purpose};

/// Names a root key. It stands in front of everything sealed with that key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

impl KeyId {
    /// Stands for no root key: what is sealed under a device's secret bears it.
    pub(crate) const NONE: Self = Self(0);

    /// The root key of a blob that begins so. None if it is sealed without one, or is no form of ours.
    pub fn of(head: BlobHead) -> Option<Self> {
        match head.0 {
            [envelope::FORMAT, a, b, c, d] => {
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

/// A root key: 256 random bits with a name. It seals nothing itself; keys are derived from it (RFC 5869).
#[derive(Clone)]
pub struct RootKey {
    id: KeyId,
    bytes: Zeroizing<[u8; 32]>,
}

impl RootKey {
    /// Wraps 32 random octets.
    pub fn new(id: KeyId, bytes: [u8; 32]) -> Self {
        Self { id, bytes: Zeroizing::new(bytes) }
    }

    /// Reads a key as [`RootKey::encode`] writes it. White space around it is passed over.
    ///
    /// # Errors
    /// [`KeyFormatError`] says which part is wrong, and shows none of it.
    pub fn parse(text: &str) -> Result<Self, KeyFormatError> {
        let (id, encoded) = text.trim().split_once(':').ok_or(KeyFormatError::Shape)?;
        let number = id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok()).flatten();
        let id = number.map(KeyId).filter(|id| *id != KeyId::NONE).ok_or(KeyFormatError::Id)?;
        let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| KeyFormatError::Bytes)?);
        let bytes = decoded.as_slice().try_into().map_err(|_| KeyFormatError::Bytes)?;
        Ok(Self::new(id, bytes))
    }

    /// The key as a configuration holds it: its id, a colon, and its 32 octets in base64url without padding.
    pub fn encode(&self) -> SecretString {
        let octets = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.bytes.as_slice()));
        SecretString::from(format!("{}:{}", self.id, octets.as_str()))
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({}, redacted)", self.id)
    }
}

/// Text that is no root key. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFormatError {
    /// There is no colon.
    #[error("a root key is written as its id, a colon, and 32 octets in base64url, such as 1:AAAA...")]
    Shape,
    /// The id is no number, or is 0.
    #[error("the id of a root key is a number from 1 to 4294967295")]
    Id,
    /// The key itself does not decode to 32 octets.
    #[error("a root key has 32 octets in base64url without padding: 43 characters after the colon")]
    Bytes,
}

/// Root keys that make no keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// There is none.
    #[error("at least one root key is needed")]
    Empty,
    /// Two have the same id.
    #[error("two root keys have the id {0}")]
    Duplicate(KeyId),
    /// Id 0 marks what is sealed without a root key.
    #[error("the id 0 is reserved")]
    ReservedId,
}

/// What a cookie is for. A cookie of one purpose does not open as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CookiePurpose {
    /// Names a session and holds its secret.
    Session,
    /// Carries a copy of the access token.
    AccessHint,
    /// Holds a sign-in that is under way.
    Login,
}

impl CookiePurpose {
    fn purpose(self) -> Purpose {
        match self {
            Self::Session => Purpose::SessionCookie,
            Self::AccessHint => Purpose::AccessHintCookie,
            Self::Login => Purpose::LoginCookie,
        }
    }
}

/// The root keys: the first seals, and each opens what it sealed.
///
/// A younger key has a higher id. What was sealed under a lower id than the first key's is to be sealed anew; a higher id is
/// that of the next key, with which others may seal already.
pub struct Keyring {
    sealing: Arc<Keys>,
    others: Vec<Arc<Keys>>,
    /// They are in the list no more, and open rows that were read before they went.
    leaving: Vec<Arc<Keys>>,
}

/// What is derived from one root key.
pub(crate) struct Keys {
    pub(crate) id: KeyId,
    /// Keys of rows are derived from it.
    pub(crate) rows: Prk,
    session: LessSafeKey,
    access_hint: LessSafeKey,
    login: LessSafeKey,
    fingerprint: hmac::Key,
}

/// Keys that come from a root key and keys that come from a device's secret have nothing in common.
const ROOT_SALT: &[u8] = b"claviger root key, format 1";

impl Keyring {
    /// Makes a keyring of root keys, the one that seals first, and derives the keys of all cookies.
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

    /// The key that seals.
    pub fn sealing(&self) -> KeyId {
        self.sealing.id
    }

    /// All keys of the list, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.listed().map(|keys| keys.id)
    }

    /// The keys that are in the list no more and still open rows.
    pub fn leaving(&self) -> impl Iterator<Item = KeyId> {
        self.leaving.iter().map(|keys| keys.id)
    }

    /// Whether a key is in the list.
    pub fn holds(&self, id: KeyId) -> bool {
        self.ids().any(|held| held == id)
    }

    /// Whether there may be something that this keyring opens and that is to be sealed anew.
    pub fn has_older(&self) -> bool {
        !(self.others.is_empty() && self.leaving.is_empty())
            && self.others.iter().chain(&self.leaving).any(|keys| self.is_older(keys.id))
    }

    /// Whether what this key sealed is to be sealed anew.
    pub fn is_older(&self, id: KeyId) -> bool {
        id != KeyId::NONE && id < self.sealing.id
    }

    /// Whether a blob of a row is to be sealed anew.
    pub fn is_outdated(&self, sealed: &SealedBlob) -> bool {
        KeyId::of(sealed.head()).is_some_and(|id| self.is_older(id))
    }

    /// Whether a cookie's value is to be sealed anew, by what it says of itself. Takes no allocation.
    pub fn is_cookie_outdated(&self, sealed: &str) -> bool {
        let mut head = [0; 6];
        let read = sealed.as_bytes().get(..8).map(|first| URL_SAFE_NO_PAD.decode_slice(first, &mut head));
        let [format, a, b, c, d, _] = head;
        matches!(read, Some(Ok(_)))
            && KeyId::of(BlobHead([format, a, b, c, d])).is_some_and(|id| self.is_older(id))
    }

    /// A key of this keyring that is another one than the key that `before` has under the same id.
    pub fn contradicts(&self, before: &Self) -> Option<KeyId> {
        let tag = |keys: &Keys| hmac::sign(&keys.fingerprint, b"claviger: the same key?");
        let differs = |keys: &&Arc<Keys>| {
            let old = before.listed().chain(&before.leaving).find(|old| old.id == keys.id);
            old.is_some_and(|old| tag(old).as_ref() != tag(keys).as_ref())
        };
        self.listed().find(differs).map(|keys| keys.id)
    }

    /// This keyring in the place of `before`. A key that only `before` has goes on opening rows, and no cookies, since there may
    /// be rows in memory that were read a moment ago.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        let gone = |keys: &&Arc<Keys>| !self.holds(keys.id);
        self.leaving = before.listed().chain(&before.leaving).filter(gone).cloned().collect();
        self
    }

    /// This keyring without the keys that are in the list no more.
    #[must_use]
    pub fn without_leaving(&self) -> Self {
        Self { sealing: Arc::clone(&self.sealing), others: self.others.clone(), leaving: Vec::new() }
    }

    fn listed(&self) -> impl Iterator<Item = &Arc<Keys>> {
        std::iter::once(&self.sealing).chain(&self.others)
    }

    /// Seals a cookie's value. It holds only letters, digits, `-` and `_`.
    pub fn seal_cookie(&self, purpose: CookiePurpose, plain: &[u8], nonce: Nonce) -> String {
        let keys = &self.sealing;
        let bound_to = envelope::binding(keys.id, purpose.purpose());
        URL_SAFE_NO_PAD.encode(envelope::seal(keys.cookie(purpose), keys.id, &bound_to, nonce, plain))
    }

    /// Opens a cookie's value, of at most [`COOKIE_BYTES`] octets. Takes one allocation.
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

    /// Tells two refresh tokens apart without telling what they are: HMAC-SHA256 under the sealing key, cut to 16 octets.
    ///
    /// It is compared only within one claim on a row, which a rotation of keys outlives by a lease at most.
    pub fn fingerprint(&self, token: &RefreshToken) -> Fingerprint {
        let tag = hmac::sign(&self.sealing.fingerprint, token.expose().as_bytes());
        Fingerprint(std::array::from_fn(|index| tag.as_ref().get(index).copied().unwrap_or_default()))
    }

    /// The keys that seal.
    pub(crate) fn seals_with(&self) -> &Keys {
        &self.sealing
    }

    /// The keys that a cookie says it is sealed with. What was sealed without a root key is no matter of missing keys.
    fn keys_of(&self, sealed: &[u8]) -> Result<&Keys, OpenError> {
        let id = envelope::key_id(sealed)?;
        if id == KeyId::NONE {
            return Err(OpenError::Invalid);
        }
        self.listed().find(|keys| keys.id == id).map(Arc::as_ref).ok_or(OpenError::UnknownKey(id))
    }

    /// The keys that a blob of a row says it is sealed with.
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
            access_hint: envelope::derive(&rows, Purpose::AccessHintCookie, &[]),
            login: envelope::derive(&rows, Purpose::LoginCookie, &[]),
            fingerprint: envelope::derive_fingerprint_key(&rows),
            rows,
        }
    }

    fn cookie(&self, purpose: CookiePurpose) -> &LessSafeKey {
        match purpose {
            CookiePurpose::Session => &self.session,
            CookiePurpose::AccessHint => &self.access_hint,
            CookiePurpose::Login => &self.login,
        }
    }
}

#[cfg(test)]
mod tests;
