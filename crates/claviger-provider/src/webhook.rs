//! Messages that the provider sends to us (Twitch docs, "Getting Events Using Webhook Callbacks").
//!
//! Anybody can send to that address, so nothing of a message is looked into before its signature is proven. The signature
//! covers the id, the time and the body, and not the header that says what kind of message it is: the body has to agree.

use std::{fmt, time::Duration};

use claviger_core::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;
use sha2::Sha256;

use crate::{
    body::{self, Object, is_id},
    rfc3339,
    subscriptions::{Described, REVOKE, Subscription, VERSION},
    words::text_or_none,
};

/// A message is read up to so many bytes. Those we know have less than one thousand.
pub const MESSAGE_BYTES: usize = 64 * 1024;
/// A message may be so old, and for the sake of clocks that differ lie so far ahead (Twitch docs, "Getting Events Using
/// Webhook Callbacks": older ones may be replays).
pub const MESSAGE_AGE: Duration = Duration::from_secs(10 * 60);
/// Each of the headers that are read has at most so many bytes. Twitch's have less than one hundred.
const HEADER_BYTES: usize = 255;
/// A challenge that is longer is not answered. Twitch's have less than one hundred bytes.
const CHALLENGE_BYTES: usize = 1024;
/// How long a secret may be (Twitch docs, "Create EventSub Subscription", `transport.secret`).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 10..=100;

const ID: &str = "twitch-eventsub-message-id";
const TIMESTAMP: &str = "twitch-eventsub-message-timestamp";
const SIGNATURE: &str = "twitch-eventsub-message-signature";
const TYPE: &str = "twitch-eventsub-message-type";

/// The news that a user connected our client (Twitch docs, "User Authorization Grant").
const GRANT: &str = "user.authorization.grant";

/// What the provider signs its messages with.
#[derive(Clone)]
pub struct WebhookSecret(SecretString);

/// Text that cannot be such a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret has 10 to 100 visible ASCII characters")]
pub struct UnfitSecret;

impl WebhookSecret {
    /// Takes the value in; from here on it cannot be printed by accident.
    ///
    /// # Errors
    /// If it is not as the provider wants it: ASCII, 10 to 100 characters. Spaces and line ends are ASCII as well, but more
    /// often come from a file than from an intention.
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

/// The receiving end of the provider's messages.
#[derive(Clone, Debug)]
pub struct Webhook {
    secret: WebhookSecret,
    client_id: String,
}

/// A message that the provider certainly sent, and not long ago. It may come twice, with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id; a message that is sent again keeps it.
    pub id: String,
    /// What it says.
    pub kind: MessageKind,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// The provider asks whether this address wants the messages. The answer is this text alone, as `text/plain`; it is
    /// visible ASCII, and not safe in HTML.
    Challenge(String),
    /// A user disconnected our client, or is gone. It does not say which tokens died: whoever acts on it asks first.
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
        /// Why, in the provider's word (Twitch docs, "Revoking your subscription").
        status: String,
    },
    /// A user connected or disconnected a client that is not ours. Nothing follows for anybody; perhaps the operator changed
    /// the client id.
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
    /// It was sent too long ago, or is of the future.
    #[error("the message is of another time")]
    Stale,
}

/// What surrounds the news.
#[derive(Deserialize)]
struct Envelope {
    subscription: Option<Object<Described>>,
    #[serde(default, deserialize_with = "text_or_none")]
    challenge: Option<String>,
    event: Option<IgnoredAny>,
}

/// The news itself, of a user who connected or disconnected a client.
#[derive(Deserialize)]
struct News {
    event: Object<Event>,
}

#[derive(Deserialize)]
struct Event {
    client_id: String,
    user_id: String,
    #[serde(rename = "user_login", default, deserialize_with = "is_null")]
    nameless: bool,
}

impl Webhook {
    /// Receives the messages to this client that are signed with this secret.
    pub fn new(secret: WebhookSecret, client_id: impl Into<String>) -> Self {
        Self { secret, client_id: client_id.into() }
    }

    /// Reads a message, from its headers and from its body as it was received, byte for byte.
    ///
    /// Who calls keeps the ids of the last messages and passes over one that came before, for longer than
    /// [`MESSAGE_AGE`] on both sides of now.
    ///
    /// # Errors
    /// If it is not certain that the provider sent this, now and to us. Lengths are looked at first, then the signature,
    /// then the time, and only then the body.
    pub fn read(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Message, Refused> {
        if body.len() > MESSAGE_BYTES {
            return Err(Refused::TooLarge);
        }
        let [id, timestamp, signature, word] =
            [ID, TIMESTAMP, SIGNATURE, TYPE].map(|name| the_only(headers, name));
        let (id, timestamp, signature, word) = (id?, timestamp?, signature?, word?);
        self.verify(&[id, timestamp, body], signature)?;
        let at = text(timestamp).and_then(rfc3339::read).ok_or(Refused::Malformed)?;
        if now.since(at) > MESSAGE_AGE || at.since(now) > MESSAGE_AGE {
            return Err(Refused::Stale);
        }
        let id = text(id).filter(|id| is_id(id)).ok_or(Refused::Malformed)?;
        let kind = self.kind(word, body, at).ok_or(Refused::Malformed)?;
        Ok(Message { id: id.to_owned(), kind })
    }

    /// Compares in constant time. Where one part ends and the next begins is not signed; the strict form of the timestamp,
    /// which stands in the middle, leaves only one way to cut.
    fn verify(&self, parts: &[&[u8]], signature: &[u8]) -> Result<(), Refused> {
        let signature = read_signature(signature).ok_or(Refused::Forged)?;
        let key = self.secret.expose().as_bytes();
        // A key of HMAC may have any length (RFC 2104 section 3).
        let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| Refused::Forged)?;
        for part in parts {
            mac.update(part);
        }
        mac.verify(&signature.into()).map_err(|_| Refused::Forged)
    }

    /// What a message says. None if its body is not what its kind has.
    fn kind(&self, word: &[u8], body: &[u8], at: Timestamp) -> Option<MessageKind> {
        if !matches!(word, b"webhook_callback_verification" | b"notification" | b"revocation") {
            return Some(MessageKind::Other);
        }
        let Envelope { subscription, challenge, event } = body::object(body)?;
        let subscription = || subscription.and_then(|described| described.0.read());
        match (word, challenge, event) {
            (b"webhook_callback_verification", Some(challenge), None) => {
                is_challenge(&challenge).then_some(MessageKind::Challenge(challenge))
            }
            (b"notification", None, Some(_)) => self.news(&subscription()?, body, at),
            (b"revocation", None, None) => {
                let Subscription { id: subscription_id, status, .. } = subscription()?;
                Some(MessageKind::SubscriptionEnded { subscription_id, status })
            }
            _ => None,
        }
    }

    fn news(&self, subscription: &Subscription, body: &[u8], at: Timestamp) -> Option<MessageKind> {
        let is_known = subscription.version.as_deref() == Some(VERSION)
            && [REVOKE, GRANT].contains(&subscription.kind.as_str());
        if !is_known {
            return Some(MessageKind::Other);
        }
        let News { event: Object(event) } = body::object(body)?;
        if event.client_id != self.client_id || subscription.client_id.as_ref() != Some(&self.client_id) {
            return Some(MessageKind::OtherClient);
        }
        let user_id = is_id(&event.user_id).then_some(event.user_id)?;
        Some(if subscription.kind == REVOKE {
            MessageKind::Revoked { user_id, gone: event.nameless, at }
        } else {
            MessageKind::Granted { user_id, at }
        })
    }
}

/// The value of a header that stands there once. Of two, nobody knows which one somebody before us looked at.
fn the_only<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a [u8], Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.len() > HEADER_BYTES => Err(Refused::TooLarge),
        (Some(value), None) if !value.is_empty() => Ok(value.as_bytes()),
        _ => Err(Refused::Malformed),
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Reads `sha256=` and 64 small hexadecimal digits, as Twitch writes it: no signature has two forms.
fn read_signature(text: &[u8]) -> Option<[u8; 32]> {
    let (pairs, []) = text.strip_prefix(b"sha256=")?.as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes?.try_into().ok()
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

fn is_challenge(text: &str) -> bool {
    (1..=CHALLENGE_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether there is a `null`, which is not the same as nothing.
fn is_null<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Value::deserialize(value).map(|value| value.is_null())
}

#[cfg(test)]
mod tests;
