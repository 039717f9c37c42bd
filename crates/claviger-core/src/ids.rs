//! Identifiers: sessions, versions, attempts, users at a provider.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::{Builder, Uuid};

use crate::Timestamp;

/// The id of a device's session: a UUID of version 7 (RFC 9562 section 5.7), so ids sort by the
/// time of sign-in.
///
/// It identifies and never authorizes: that takes the
/// [`SessionSecret`](crate::SessionSecret).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Uuid);

impl SessionId {
    /// Creates an id from the time of sign-in and ten random bytes.
    pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
        Self(Builder::from_unix_timestamp_millis(at.as_millis().max(0).unsigned_abs(), &random).into_uuid())
    }

    /// Creates an id from its sixteen bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the sixteen bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Returns when the session began, in milliseconds: the first 48 bits of the id.
    pub fn created_at(&self) -> Timestamp {
        let millis = self.0.as_u128() >> 80;
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    /// Returns a number from 0 to 1 for this session, evenly spread over all sessions: the last 32
    /// random bits of the id.
    pub fn fraction(&self) -> f64 {
        f64::from(self.spread()) / f64::from(u32::MAX)
    }

    /// Returns the last 32 random bits of the id.
    pub(crate) fn spread(&self) -> u32 {
        let [.., a, b, c, d] = *self.as_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        text.parse().map(Self).map_err(|_| MalformedId)
    }
}

/// The error for a text that is no session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a session id")]
pub struct MalformedId;

/// The number of committed changes of a row. Every write is a compare-and-set on it, and adds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The version of a row that was just inserted.
    pub const FIRST: Self = Self(1);

    /// Returns the next version.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// An attempt to refresh a pair, or to carry out a revocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptId(pub [u8; 16]);

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// The configured name of a provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderName(pub String);

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user at a provider. Never an e-mail address or a login name: both can pass to another person
/// (OpenID Connect Core section 5.7).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The provider.
    pub provider: ProviderName,
    /// The provider's stable id of the user.
    pub id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_has_its_creation_time() {
        let at = Timestamp::from_millis(1_790_000_000_123);
        let id = SessionId::new(at, [0xff; 10]);
        assert_eq!(id.created_at(), at);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(SessionId::from_bytes(*id.as_bytes()), id);
    }

    #[test]
    fn ids_sort_by_time() {
        let earlier = SessionId::new(Timestamp::from_millis(1), [0xff; 10]);
        let later = SessionId::new(Timestamp::from_millis(2), [0; 10]);
        assert!(earlier < later);
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "1", "../..", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"] {
            assert_eq!(text.parse::<SessionId>(), Err(MalformedId), "{text}");
        }
    }
}
