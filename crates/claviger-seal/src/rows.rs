//! The blobs of a row: an access token and a refresh token. Each opens only in its own row,
//! generation and column.

use aws_lc_rs::{
    aead::LessSafeKey,
    hkdf::{HKDF_SHA256, Salt},
};
use claviger_core::{AccessToken, ProviderName, RefreshToken, SealedBlob, SessionId, SessionSecret, Version};
use zeroize::Zeroizing;

use crate::{
    encoding::{Reader, Writer},
    envelope::{self, KeyId, Nonce, OpenError, Purpose},
    keyring::Keyring,
};

/// The place of a token pair. A blob that was moved does not open.
#[derive(Clone, Copy, Debug)]
pub struct PairBinding<'a> {
    /// The provider that issued the pair.
    pub provider: &'a ProviderName,
    /// The row.
    pub session: SessionId,
    /// The row's version when the pair was written.
    pub generation: Version,
}

/// What opens a refresh token.
#[derive(Clone, Copy, Debug)]
pub enum RefreshLock<'a> {
    /// The secret in the device's cookie. The keyring is not involved.
    Device(&'a SessionSecret),
    /// The server's keys.
    Server,
}

/// An access token and its scopes, sealed together so that they are always of one generation.
#[derive(Clone, Debug)]
pub struct AccessPlain {
    /// The token.
    pub token: AccessToken,
    /// The scopes granted to it.
    pub scopes: Vec<String>,
}

const DEVICE_SALT: &[u8] = b"claviger device secret, format 1";

impl Keyring {
    /// Seals an access token and its scopes for one row and generation, padded to 64 bytes.
    pub fn seal_access(&self, at: PairBinding<'_>, plain: &AccessPlain, nonce: Nonce) -> SealedBlob {
        let lengths = plain.scopes.iter().map(String::len).chain([plain.token.expose().len(), 0]);
        let mut writer = Writer::with_room_for(lengths);
        writer.text(plain.token.expose()).number(plain.scopes.len());
        for scope in &plain.scopes {
            writer.text(scope);
        }
        self.seal_row(Purpose::Access, at, writer.pad().bytes(), nonce)
    }

    /// Opens what [`Keyring::seal_access`] sealed for the same row and generation.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_access(&self, at: PairBinding<'_>, sealed: &SealedBlob) -> Result<AccessPlain, OpenError> {
        let plain = self.open_row(Purpose::Access, at, sealed)?;
        let mut reader = Reader::new(&plain);
        let token = AccessToken::new(reader.text()?);
        let scopes =
            (0..reader.number()?).map(|_| reader.text().map(str::to_owned)).collect::<Result<_, _>>()?;
        reader.end_of_padded()?;
        Ok(AccessPlain { token, scopes })
    }

    /// Seals a refresh token for one row and generation, under the lock of the session's custody.
    pub fn seal_refresh(
        &self,
        at: PairBinding<'_>,
        lock: RefreshLock<'_>,
        token: &RefreshToken,
        nonce: Nonce,
    ) -> SealedBlob {
        let mut writer = Writer::with_room_for(std::iter::once(token.expose().len()));
        let plain = writer.text(token.expose()).pad().bytes();
        match lock {
            RefreshLock::Server => self.seal_row(Purpose::RefreshServer, at, plain, nonce),
            RefreshLock::Device(secret) => {
                let key = device_key(secret, at.session);
                let bound_to = bound_to(KeyId::NONE, Purpose::RefreshDevice, at);
                SealedBlob(envelope::seal(&key, KeyId::NONE, &bound_to, nonce, plain))
            }
        }
    }

    /// Opens what [`Keyring::seal_refresh`] sealed for the same row and generation, under the same
    /// lock.
    ///
    /// # Errors
    /// [`OpenError`]. For a device's blob it is always [`OpenError::Invalid`], since no key can be
    /// missing.
    pub fn open_refresh(
        &self,
        at: PairBinding<'_>,
        lock: RefreshLock<'_>,
        sealed: &SealedBlob,
    ) -> Result<RefreshToken, OpenError> {
        let plain = match lock {
            RefreshLock::Server => self.open_row(Purpose::RefreshServer, at, sealed)?,
            RefreshLock::Device(secret) if envelope::key_id(&sealed.0)? == KeyId::NONE => {
                let bound_to = bound_to(KeyId::NONE, Purpose::RefreshDevice, at);
                envelope::open(&device_key(secret, at.session), &bound_to, copy(sealed))?
            }
            RefreshLock::Device(_) => return Err(OpenError::Invalid),
        };
        let mut reader = Reader::new(&plain);
        let token = RefreshToken::new(reader.text()?);
        reader.end_of_padded()?;
        Ok(token)
    }

    fn seal_row(&self, purpose: Purpose, at: PairBinding<'_>, plain: &[u8], nonce: Nonce) -> SealedBlob {
        let keys = self.seals_with();
        let key = envelope::derive(&keys.rows, purpose, at.session.as_bytes());
        SealedBlob(envelope::seal(&key, keys.id, &bound_to(keys.id, purpose, at), nonce, plain))
    }

    fn open_row(
        &self,
        purpose: Purpose,
        at: PairBinding<'_>,
        sealed: &SealedBlob,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let keys = self.keys_of_row(&sealed.0)?;
        let key = envelope::derive(&keys.rows, purpose, at.session.as_bytes());
        envelope::open(&key, &bound_to(keys.id, purpose, at), copy(sealed))
    }
}

/// Derives the key from the device's secret alone, so that only the device's next request brings
/// it.
fn device_key(secret: &SessionSecret, session: SessionId) -> LessSafeKey {
    let root = Salt::new(HKDF_SHA256, DEVICE_SALT).extract(secret.expose());
    envelope::derive(&root, Purpose::RefreshDevice, session.as_bytes())
}

/// The associated data. The provider's name comes last, so that two places never read the same.
fn bound_to(key: KeyId, purpose: Purpose, at: PairBinding<'_>) -> Vec<u8> {
    let mut bound_to = envelope::binding(key, purpose).to_vec();
    bound_to.extend_from_slice(at.session.as_bytes());
    bound_to.extend_from_slice(&at.generation.0.to_be_bytes());
    bound_to.extend_from_slice(at.provider.0.as_bytes());
    bound_to
}

/// Copies a blob, since opening works in place and wipes its input.
fn copy(sealed: &SealedBlob) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(sealed.0.clone())
}

#[cfg(test)]
mod tests;
