//! The key that signs id_tokens, the only thing in the mock that does not come from the seed.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// The RSA key of one mock. It is generated at its first use, because that is slow.
#[derive(Default)]
pub(crate) struct Signing {
    key: Option<Key>,
    made: u32,
}

struct Key {
    id: String,
    encoding: EncodingKey,
}

/// The key could not be generated or used.
#[derive(Debug, thiserror::Error)]
#[error("the signing key failed")]
pub(crate) struct SigningFailed;

impl Signing {
    /// Signs claims as an RS256 JWT.
    pub(crate) fn sign(&mut self, claims: &impl Serialize) -> Result<String, SigningFailed> {
        let key = self.key()?;
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(key.id.clone());
        jsonwebtoken::encode(&header, claims, &key.encoding).map_err(|_| SigningFailed)
    }

    /// The public key as a JWK set.
    pub(crate) fn key_set(&mut self) -> Result<JwkSet, SigningFailed> {
        let key = self.key()?;
        let mut jwk = Jwk::from_encoding_key(&key.encoding, Algorithm::RS256).map_err(|_| SigningFailed)?;
        jwk.common.key_id = Some(key.id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_operations = None::<Vec<KeyOperations>>;
        Ok(JwkSet { keys: vec![jwk] })
    }

    /// Drops the key; the next use generates another one with another id.
    pub(crate) fn rotate(&mut self) {
        self.key = None;
    }

    fn key(&mut self) -> Result<&Key, SigningFailed> {
        if self.key.is_none() {
            // A second install fails because the same provider is installed already.
            let _already_there = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
            self.made += 1;
            self.key = Some(Key { id: self.made.to_string(), encoding: new_key()? });
        }
        self.key.as_ref().ok_or(SigningFailed)
    }
}

fn new_key() -> Result<EncodingKey, SigningFailed> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| SigningFailed)?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| SigningFailed)?;
    let base64 = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let label = "PRIVATE KEY";
    let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
    EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| SigningFailed)
}
