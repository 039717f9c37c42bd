//! The keys that sign assertions: signatures as JWTs (RFC 7515), public halves as JWKs (RFC 7517),
//! and all keys sealed for the store.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    digest::{SHA256, digest},
    error::Unspecified,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{SealedBlob, SigningKeys, Since, Timestamp};
use zeroize::Zeroizing;

use crate::{
    encoding::{Reader, Writer},
    envelope::{self, KeyId, Nonce, OpenError, Purpose},
    keyring::{Keyring, Keys},
};

const SCALAR_BYTES: usize = 32;
/// A role, a time and a private key.
const SEALED_BYTES: usize = 1 + size_of::<i64>() + SCALAR_BYTES;
/// Roles as they are stored. A number never changes.
const SIGNS: u8 = 1;
const NEXT: u8 = 2;
const RETIRED: u8 = 3;

/// A key that signs with ES256: ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4).
pub struct SigningKey {
    scalar: Zeroizing<[u8; SCALAR_BYTES]>,
    pair: EcdsaKeyPair,
    id: String,
    x: String,
    y: String,
}

impl SigningKey {
    /// Makes a key of 32 random bytes. `None` if they are no key, which happens once in four
    /// billion times.
    pub fn new(random: [u8; SCALAR_BYTES]) -> Option<Self> {
        let scalar = Zeroizing::new(random);
        let private = PrivateKey::from_private_key(&ECDH_P256, scalar.as_slice()).ok()?;
        let public = private.compute_public_key().ok()?;
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair =
            EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar.as_slice(), public.as_ref());
        // An uncompressed point is the octet 4 and both coordinates (SEC 1 section 2.3.3).
        let (x, y) = public.as_ref().strip_prefix(&[4])?.split_at_checked(SCALAR_BYTES)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // The thumbprint of the public key (RFC 7638).
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        Some(Self { scalar, pair: pair.ok()?, id, x, y })
    }

    /// Returns the key's id, `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the public half as a JWK.
    pub fn jwk(&self) -> String {
        let Self { id, x, y, .. } = self;
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","kid":"{id}","use":"sig","alg":"ES256"}}"#)
    }

    /// Signs claims, which are a JSON object, as a JWT of this type. The type needs no escaping in
    /// JSON.
    ///
    /// # Errors
    /// [`NotSigned`].
    pub fn sign(&self, typ: &str, claims: &[u8]) -> Result<String, NotSigned> {
        let header = format!(r#"{{"alg":"ES256","typ":"{typ}","kid":"{}"}}"#, self.id);
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature =
            self.pair.sign(&SystemRandom::new(), token.as_bytes()).map_err(|Unspecified| NotSigned)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, redacted)", self.id)
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for SigningKey {}

/// The cryptographic library could not sign, as without memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an assertion could not be signed")]
pub struct NotSigned;

impl Keyring {
    /// Seals the keys that sign assertions, padded to 64 bytes.
    pub fn seal_signing_keys(&self, keys: &SigningKeys<Arc<SigningKey>>, nonce: Nonce) -> SealedBlob {
        let SigningKeys { signs, next, retired } = keys;
        let all = std::iter::once((SIGNS, signs))
            .chain(next.iter().map(|held| (NEXT, held)))
            .chain(retired.iter().map(|held| (RETIRED, held)));
        let count = 1 + usize::from(next.is_some()) + retired.len();
        let mut writer = Writer::with_room_for(std::iter::repeat_n(SEALED_BYTES, count));
        writer.number(count);
        for (role, held) in all {
            let since = held.since.as_millis().to_be_bytes();
            writer.fixed(&[role]).fixed(&since).fixed(held.key.scalar.as_slice());
        }
        let keys = self.seals_with();
        let bound_to = envelope::binding(keys.id, Purpose::SigningKeys);
        SealedBlob(envelope::seal(&key(keys), keys.id, &bound_to, nonce, writer.pad().bytes()))
    }

    /// Opens what [`Keyring::seal_signing_keys`] sealed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_signing_keys(&self, sealed: &[u8]) -> Result<SigningKeys<Arc<SigningKey>>, OpenError> {
        let keys = self.keys_of_row(sealed)?;
        let bound_to = envelope::binding(keys.id, Purpose::SigningKeys);
        let plain = envelope::open(&key(keys), &bound_to, Zeroizing::new(sealed.to_vec()))?;
        let mut reader = Reader::new(&plain);
        let (mut signs, mut next, mut retired) = (None, None, Vec::new());
        for _ in 0..reader.number()? {
            let [role] = reader.fixed()?;
            let since = Timestamp::from_millis(i64::from_be_bytes(reader.fixed()?));
            let key = Arc::new(SigningKey::new(reader.fixed()?).ok_or(OpenError::Invalid)?);
            let held = Since { key, since };
            match role {
                SIGNS if signs.is_none() => signs = Some(held),
                NEXT if next.is_none() => next = Some(held),
                RETIRED => retired.push(held),
                _ => return Err(OpenError::Invalid),
            }
        }
        reader.end_of_padded()?;
        Ok(SigningKeys { signs: signs.ok_or(OpenError::Invalid)?, next, retired })
    }

    /// Returns whether an older key than the one that seals now sealed this.
    pub fn is_sealed_by_older(&self, sealed: &[u8]) -> bool {
        envelope::key_id(sealed).is_ok_and(|id: KeyId| self.is_older(id))
    }
}

fn key(keys: &Keys) -> aws_lc_rs::aead::LessSafeKey {
    envelope::derive(&keys.rows, Purpose::SigningKeys, &[])
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use claviger_core::KeyStep;

    use super::*;
    use crate::RootKey;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn key_of(n: u8) -> Arc<SigningKey> {
        Arc::new(SigningKey::new([n; 32]).unwrap())
    }

    fn ring(ids: &[u32]) -> Keyring {
        Keyring::new(ids.iter().map(|id| RootKey::new(KeyId(*id), [*id as u8; 32])).collect()).unwrap()
    }

    /// The private key 1 has the generator as its public half (SEC 2 section 2.4.2).
    #[test]
    fn a_jwk_holds_the_public_half_and_its_thumbprint() {
        let one = SigningKey::new(std::array::from_fn(|at| u8::from(at == 31))).unwrap();
        let (x, y) =
            ("axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU");
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        let jwk = format!(
            r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","kid":"{thumbprint}","use":"sig","alg":"ES256"}}"#
        );
        assert_eq!((one.jwk(), one.id()), (jwk, thumbprint.as_str()));
        assert_eq!(format!("{one:?}"), format!("SigningKey({thumbprint}, redacted)"));
        assert!(SigningKey::new([0; 32]).is_none(), "zero is no key");
        assert!(SigningKey::new([0xff; 32]).is_none(), "it is beyond the order of the curve");
    }

    #[test]
    fn a_token_verifies_with_the_public_half_alone() {
        let key = key_of(7);
        let token = key.sign("example+jwt", br#"{"sub":"a"}"#).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let expected = format!(r#"{{"alg":"ES256","typ":"example+jwt","kid":"{}"}}"#, key.id());
        assert_eq!(decode(header), expected.as_bytes());
        assert_eq!(decode(claims), br#"{"sub":"a"}"#);
        let point = |key: &SigningKey| [vec![4], decode(&key.x), decode(&key.y)].concat();
        let verify = |key: &SigningKey, signed: &str| {
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(key));
            public.verify(signed.as_bytes(), &decode(signature)).is_ok()
        };
        assert!(verify(&key, signed));
        assert!(!verify(&key_of(8), signed), "another key");
        assert!(!verify(&key, &signed.replace("eyJzdWIiOiJhIn0", "eyJzdWIiOiJiIn0")), "another user");
    }

    #[test]
    fn keys_open_only_as_they_were_sealed() {
        let first = SigningKeys::first(key_of(1), NOW);
        let next = first.after(KeyStep::Publish, NOW, || key_of(2));
        let promoted = next.after(KeyStep::Promote, NOW, || key_of(3));
        for keys in [first, next, promoted] {
            let SealedBlob(sealed) = ring(&[1]).seal_signing_keys(&keys, [7; 12]);
            assert_eq!(ring(&[2, 1]).open_signing_keys(&sealed), Ok(keys.clone()), "any key opens");
            assert_eq!(ring(&[2]).open_signing_keys(&sealed), Err(OpenError::UnknownKey(KeyId(1))));
            assert!(!sealed.windows(32).any(|part| part == [1; 32]), "the key is readable");
            for at in 5..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(ring(&[1]).open_signing_keys(&changed), Err(OpenError::Invalid), "{at}");
                assert_eq!(ring(&[1]).open_signing_keys(&sealed[..at]), Err(OpenError::Invalid), "{at}");
            }
            assert!(ring(&[2, 1]).is_sealed_by_older(&sealed));
            assert!(!ring(&[1, 2]).is_sealed_by_older(&sealed));
        }
    }
}
