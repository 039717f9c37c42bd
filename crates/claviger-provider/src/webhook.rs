//! Messages that a provider posts to us: what they say, and the secret that they are signed with.

use std::fmt;

use claviger_core::Timestamp;
use secrecy::{ExposeSecret, SecretString};

/// At most this many bytes of a message are read. Known messages have less than one thousand.
pub const MESSAGE_BYTES: usize = 64 * 1024;
/// Length of a secret in bytes. No known provider allows a shorter or needs a longer one (Twitch
/// docs, "Create EventSub Subscription", `transport.secret`).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 10..=100;

/// A message that the provider certainly sent, and not long ago. It may come twice, with the same
/// id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id. A message that is sent again keeps it.
    pub id: String,
    /// What it says.
    pub kind: MessageKind,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// The provider asks whether this address wants the messages. The answer is this text alone, as
    /// `text/plain`. It is visible ASCII, and not safe in HTML.
    Challenge(String),
    /// A user disconnected our client, or is gone. It does not say which tokens died, so the caller
    /// asks before acting on it.
    Revoked {
        /// The user.
        user_id: String,
        /// Whether the provider no longer knows the user.
        gone: bool,
        /// When the message was sent. A user may have connected again since.
        at: Timestamp,
    },
    /// A user connected our client.
    Granted {
        /// The user.
        user_id: String,
        /// When the message was sent.
        at: Timestamp,
    },
    /// The provider ended a subscription.
    SubscriptionEnded {
        /// Which.
        subscription_id: String,
        /// Why, in the provider's word.
        status: String,
    },
    /// A user connected or disconnected a client that is not ours. Nothing follows for anybody.
    /// Perhaps the operator changed the client id.
    OtherClient,
    /// Something that we do not know. It is acknowledged, or it would be sent again.
    Other,
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The body, or one of the headers, is too long.
    #[error("the message is too large")]
    TooLarge,
    /// A header is missing or stands twice, or what the provider signed is not understood.
    #[error("the message is malformed")]
    Malformed,
    /// The signature is not ours, or is no signature.
    #[error("the signature of the message is wrong")]
    Forged,
    /// It was sent too long ago, or in the future.
    #[error("the message is too old or from the future")]
    Stale,
}

/// What the provider signs its messages with.
#[derive(Clone)]
pub struct WebhookSecret(SecretString);

/// Text that cannot be such a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret has 10 to 100 visible ASCII characters")]
pub struct UnfitSecret;

impl WebhookSecret {
    /// Takes the value in. From here on it cannot be printed by accident.
    ///
    /// # Errors
    /// If it does not have 10 to 100 visible ASCII characters. Spaces and line ends are refused
    /// because they more often come from a file than from an intention.
    pub fn new(value: impl Into<String>) -> Result<Self, UnfitSecret> {
        let value = SecretString::from(value.into());
        let text = value.expose_secret();
        let fits = SECRET_BYTES.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(value)) } else { Err(UnfitSecret) }
    }

    /// The plain value. Each call is a place that a review looks at.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(redacted)")
    }
}
