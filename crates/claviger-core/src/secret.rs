//! Secret types that cannot be printed: `Debug` redacts, there is no `Display`, and memory is wiped
//! on drop.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Declares types of secret texts.
macro_rules! secret_strings {
    ($($(#[$doc:meta])* $name:ident,)+) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SecretString);

        impl $name {
            /// Wraps a value, which cannot be printed by accident from here on.
            pub fn new(value: impl Into<String>) -> Self {
                Self(SecretString::from(value.into()))
            }

            /// Returns the plain value. Review each call.
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    )+};
}

secret_strings! {
    /// A token for calls of the provider's API (RFC 6749 section 1.4).
    AccessToken,
    /// A token that is exchanged for the next pair (RFC 6749 section 1.5).
    RefreshToken,
    /// The code of a callback, good for one exchange (RFC 6749 section 4.1.2).
    AuthorizationCode,
    /// The app's credential at the provider.
    ClientSecret,
    /// Binds a code to the sign-in that asked for it (RFC 7636 section 4.1).
    CodeVerifier,
}

/// The 256-bit secret of a session. The browser has it in its sealed cookie; the store has only its
/// hash.
#[derive(Clone)]
pub struct SessionSecret(Zeroizing<[u8; 32]>);

impl SessionSecret {
    /// Wraps 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the plain bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the hash for the store. SHA-256 is enough for 256 random bits (OWASP ASVS 5.0,
    /// 11.4).
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0.as_slice()).into())
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(redacted)")
    }
}

/// SHA-256 of a [`SessionSecret`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Compares in constant time.
    pub fn matches(&self, secret: &SessionSecret) -> bool {
        self.0.ct_eq(&secret.hash().0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// A keyed hash of a refresh token. It distinguishes tokens in a journal without revealing them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!(
            "{:?} {:?} {:?} {:?}",
            AccessToken::new("canary"),
            SessionSecret::new([7; 32]),
            SessionSecret::new([7; 32]).hash(),
            Fingerprint([7; 16]),
        );
        assert!(!shown.contains("canary") && !shown.contains('7'), "{shown}");
    }

    #[test]
    fn a_hash_matches_only_its_secret() {
        let hash = SessionSecret::new([1; 32]).hash();
        assert!(hash.matches(&SessionSecret::new([1; 32])));
        assert!(!hash.matches(&SessionSecret::new([2; 32])));
    }
}
