//! Secrets that cannot be printed, and secrets made from a seed.

use std::fmt;

use sha2::{Digest, Sha256};

/// A client secret. `Debug` shows nothing of it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for a request that must carry it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

/// The purpose of a generated string; two kinds never collide.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    AccessToken,
    RefreshToken,
    Code,
    ClientSecret,
}

/// Generates tokens from a seed and a counter, so the same calls give the same tokens.
pub(crate) struct Mint {
    seed: u64,
    counter: u64,
    eventsub_counter: u64,
}

impl Mint {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, counter: 0, eventsub_counter: 0 }
    }

    /// The next access token: 30 characters of `a-z0-9`, as Twitch's are.
    pub(crate) fn access_token(&mut self) -> String {
        self.next(Kind::AccessToken, 30)
    }

    /// The next refresh token: 50 characters, or with `awkward` a tail that needs URL-encoding in a
    /// form body.
    ///
    /// Twitch's documentation says that refresh tokens have to be URL-encoded (Twitch docs:
    /// refreshing access tokens).
    pub(crate) fn refresh_token(&mut self, awkward: bool) -> String {
        let token = self.next(Kind::RefreshToken, 50);
        if awkward { format!("{token}%2F+/=") } else { token }
    }

    /// The next authorization code: 30 characters of `a-z0-9`.
    pub(crate) fn code(&mut self) -> String {
        self.next(Kind::Code, 30)
    }

    /// The next client secret: 30 characters of `a-z0-9`.
    pub(crate) fn client_secret(&mut self) -> String {
        self.next(Kind::ClientSecret, 30)
    }

    /// Bytes for the ids, challenges and nanoseconds of EventSub; with a counter of their own, so
    /// that tokens do not depend on them.
    pub(crate) fn eventsub_bytes(&mut self) -> [u8; 32] {
        self.eventsub_counter += 1;
        self.digest(b"eventsub", &self.eventsub_counter.to_be_bytes())
    }

    /// Twelve hexadecimal characters that name a token in the log without revealing it.
    pub(crate) fn fingerprint(&self, token: &str) -> String {
        let digest = self.digest(b"fingerprint", token.as_bytes());
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    fn next(&mut self, kind: Kind, chars: usize) -> String {
        self.counter += 1;
        let mut text = String::with_capacity(chars);
        for block in 0u8.. {
            let input: Vec<u8> = [&self.counter.to_be_bytes()[..], &[kind as u8, block]].concat();
            let digest = self.digest(b"token", &input);
            text.extend(digest.iter().map(|byte| character(*byte)));
            if text.len() >= chars {
                break;
            }
        }
        text.truncate(chars);
        text
    }

    fn digest(&self, purpose: &[u8], input: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"claviger-mock ");
        hash.update(self.seed.to_be_bytes());
        hash.update(purpose);
        hash.update(input);
        hash.finalize().into()
    }
}

fn character(byte: u8) -> char {
    match byte % 36 {
        letter @ 0..26 => char::from(b'a' + letter),
        digit => char::from(b'0' + (digit - 26)),
    }
}
