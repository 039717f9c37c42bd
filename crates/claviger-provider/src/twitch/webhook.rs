//! Messages that Twitch posts to us (Twitch docs, "Getting Events Using Webhook Callbacks").
//!
//! Anybody can post to that address, so nothing of a message is read before its signature is
//! proven. The signature covers the id, the time and the body, and not the header that says what
//! kind of message it is: the body has to agree.

use std::time::Duration;

use claviger_core::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;
use sha2::Sha256;
use url::{Host, Url};

use super::subscriptions::{Described, EventSubSubscriptions, REVOKE, VERSION};
use crate::{
    body::{self, Object, is_id},
    capabilities::{Subscriptions, WebhookEvents},
    client::Client,
    rfc3339,
    subscriptions::Subscription,
    webhook::{MESSAGE_BYTES, Message, MessageKind, Refused, WebhookSecret},
    words::text_or_none,
};

/// The greatest age of a message. Because clocks differ, it is also how far a message may lie in
/// the future (Twitch docs, "Getting Events Using Webhook Callbacks": older ones may be replays).
pub const MESSAGE_AGE: Duration = Duration::from_secs(10 * 60);
/// At most this many bytes of each header are read. Twitch's have less than one hundred.
const HEADER_BYTES: usize = 255;
/// A longer challenge is not answered. Twitch's have less than one hundred bytes.
const CHALLENGE_BYTES: usize = 1024;

const ID: &str = "twitch-eventsub-message-id";
const TIMESTAMP: &str = "twitch-eventsub-message-timestamp";
const SIGNATURE: &str = "twitch-eventsub-message-signature";
const TYPE: &str = "twitch-eventsub-message-type";

/// A user connected our client (Twitch docs, "User Authorization Grant").
const GRANT: &str = "user.authorization.grant";

/// EventSub with the transport `webhook`.
#[derive(Debug)]
pub(super) struct EventSub;

impl WebhookEvents for EventSub {
    fn read(
        &self,
        client: &Client,
        secret: &WebhookSecret,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Message, Refused> {
        Receiver { secret, client_id: &client.id }.read(headers, body, now)
    }

    fn reaches(&self, callback: &Url) -> Result<(), &'static str> {
        let here = match callback.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => true,
        };
        let https = callback.scheme() == "https" && callback.port_or_known_default() == Some(443);
        if https && !here { Ok(()) } else { Err("https on port 443 of a public address only") }
    }

    fn subscriptions(&self) -> Option<&'static dyn Subscriptions> {
        Some(&EventSubSubscriptions)
    }
}

/// The receiving end of the messages to one client.
struct Receiver<'a> {
    secret: &'a WebhookSecret,
    client_id: &'a str,
}

/// What surrounds an event.
#[derive(Deserialize)]
struct Envelope {
    subscription: Option<Object<Described>>,
    #[serde(default, deserialize_with = "text_or_none")]
    challenge: Option<String>,
    event: Option<IgnoredAny>,
}

/// The event itself: a user connected or disconnected a client.
#[derive(Deserialize)]
struct Notification {
    event: Object<Event>,
}

#[derive(Deserialize)]
struct Event {
    client_id: String,
    user_id: String,
    #[serde(rename = "user_login", default, deserialize_with = "is_null")]
    nameless: bool,
}

impl Receiver<'_> {
    /// Lengths are looked at first, then the signature, then the time, and only then the body.
    fn read(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Message, Refused> {
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

    /// Compares in constant time. Where one part ends and the next begins is not signed. The strict
    /// form of the timestamp, which stands in the middle, leaves only one way to cut.
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
            (b"notification", None, Some(_)) => self.event(&subscription()?, body, at),
            (b"revocation", None, None) => {
                let Subscription { id: subscription_id, status, .. } = subscription()?;
                Some(MessageKind::SubscriptionEnded { subscription_id, status })
            }
            _ => None,
        }
    }

    fn event(&self, subscription: &Subscription, body: &[u8], at: Timestamp) -> Option<MessageKind> {
        let is_known = subscription.version.as_deref() == Some(VERSION)
            && [REVOKE, GRANT].contains(&subscription.kind.as_str());
        if !is_known {
            return Some(MessageKind::Other);
        }
        let Notification { event: Object(event) } = body::object(body)?;
        if event.client_id != self.client_id || subscription.client_id.as_deref() != Some(self.client_id) {
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

/// The value of a header that stands there once. Of two, a proxy before us may have read either.
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

/// Reads `sha256=` and 64 small hexadecimal digits, as Twitch writes it: no signature has two
/// forms.
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

/// Whether a `null` stands there, which is not the same as nothing.
fn is_null<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Value::deserialize(value).map(|value| value.is_null())
}

#[cfg(test)]
mod tests;
