//! The messages to webhooks: bodies, headers, signature (Twitch docs: handling webhook events).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::eventsub::subscriptions::{Subscription, SubscriptionBody, SubscriptionType, VERSION};
use crate::secret::{Mint, Secret};

const MESSAGE_ID: &str = "twitch-eventsub-message-id";
const MESSAGE_RETRY: &str = "twitch-eventsub-message-retry";
const MESSAGE_TYPE: &str = "twitch-eventsub-message-type";
const MESSAGE_SIGNATURE: &str = "twitch-eventsub-message-signature";
const MESSAGE_TIMESTAMP: &str = "twitch-eventsub-message-timestamp";
const SUBSCRIPTION_TYPE: &str = "twitch-eventsub-subscription-type";
const SUBSCRIPTION_VERSION: &str = "twitch-eventsub-subscription-version";

/// The kind of a message to a webhook (Twitch docs: handling webhook events).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageType {
    /// The challenge that the callback has to answer before the subscription is enabled.
    WebhookCallbackVerification,
    /// An event.
    Notification,
    /// The subscription has ended.
    Revocation,
}

impl MessageType {
    /// The name used in JSON and in the header `Twitch-Eventsub-Message-Type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebhookCallbackVerification => "webhook_callback_verification",
            Self::Notification => "notification",
            Self::Revocation => "revocation",
        }
    }
}

/// The body of a message. Each kind of message leaves some fields out.
#[derive(Serialize)]
pub(crate) struct MessageBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) challenge: Option<&'a str>,
    pub(crate) subscription: SubscriptionBody<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<&'a Value>,
}

/// The content of a message besides its subscription.
pub(crate) enum Content<'a> {
    Challenge(&'a str),
    Event { event: &'a Value, user_id: Option<&'a str> },
    Revoked,
}

/// A signed message. Each delivery of it has these headers and this body.
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) kind: MessageType,
    pub(crate) timestamp: String,
    /// The number of the subscription.
    pub(crate) subscription: u64,
    pub(crate) subscription_id: String,
    pub(crate) subscription_type: SubscriptionType,
    pub(crate) client_id: String,
    pub(crate) user_id: Option<String>,
    pub(crate) challenge: Option<String>,
    callback: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Message {
    pub(crate) fn new(
        subscription: &Subscription,
        id: String,
        timestamp: String,
        content: &Content<'_>,
    ) -> Self {
        let (kind, challenge, event, user_id) = match *content {
            Content::Challenge(text) => (MessageType::WebhookCallbackVerification, Some(text), None, None),
            Content::Event { event, user_id } => (MessageType::Notification, None, Some(event), user_id),
            Content::Revoked => (MessageType::Revocation, None, None, None),
        };
        let body = MessageBody { challenge, subscription: subscription.body(), event };
        let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
        let signature = sign(&subscription.secret, &id, &timestamp, &body);
        let headers = [
            (MESSAGE_ID, id.as_str()),
            (MESSAGE_TYPE, kind.name()),
            (MESSAGE_SIGNATURE, &signature),
            (MESSAGE_TIMESTAMP, &timestamp),
            (SUBSCRIPTION_TYPE, subscription.kind.name()),
            (SUBSCRIPTION_VERSION, VERSION),
            (CONTENT_TYPE.as_str(), "application/json"),
        ];
        // Only an id from the control API could be invalid in a header, and `Notice` checks that.
        let headers = headers.into_iter().filter_map(|(name, value)| {
            Some((http::HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
        });
        Self {
            kind,
            subscription: subscription.number,
            subscription_id: subscription.id.clone(),
            subscription_type: subscription.kind,
            client_id: subscription.client_id.clone(),
            user_id: user_id.map(str::to_owned),
            challenge: challenge.map(str::to_owned),
            callback: subscription.uri.clone(),
            headers: headers.collect(),
            body,
            id,
            timestamp,
        }
    }

    /// The request that delivers the message for the first time (`retry` 0) or again.
    pub(crate) fn request(&self, retry: u32) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.callback.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(MESSAGE_RETRY, HeaderValue::from(retry));
        request
    }
}

/// HMAC-SHA256 over id, timestamp and body, in lower-case hexadecimal.
fn sign(secret: &Secret, id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(id.as_bytes());
    context.update(timestamp.as_bytes());
    context.update(body);
    let tag = context.sign();
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// A message id. It is not a UUID, because Twitch does not promise one.
pub(crate) fn message_id(mint: &mut Mint) -> String {
    STANDARD.encode(mint.eventsub_bytes())
}

/// A challenge: 43 characters.
pub(crate) fn challenge(mint: &mut Mint) -> String {
    URL_SAFE_NO_PAD.encode(mint.eventsub_bytes())
}

/// A subscription id, in the shape of a random UUID (RFC 9562, section 5.4).
pub(crate) fn uuid(mint: &mut Mint) -> String {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = mint.eventsub_bytes();
    let bits =
        u128::from_be_bytes([a, b, c, d, e, f, (g & 0x0f) | 0x40, h, (i & 0x3f) | 0x80, j, k, l, m, n, o, p]);
    let hex = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// A time in RFC 3339 with nanoseconds; the digits below a millisecond come from the seed, so a
/// receiver that rewrites the timestamp computes another signature.
pub(crate) fn timestamp(mint: &mut Mint, at_ms: i64) -> String {
    let [a, b, c, d, ..] = mint.eventsub_bytes();
    let below = u32::from_be_bytes([a, b, c, d]) % 1_000_000;
    let nanos = i128::from(at_ms) * 1_000_000 + i128::from(below);
    // A time without a date becomes the last possible date.
    let farthest = if at_ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
    format!("{:.9}", Timestamp::from_nanosecond(nanos).unwrap_or(farthest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_another_implementation_computes() {
        let secret = Secret::new("a secret of some length");
        let signature = sign(&secret, "id-1", "2027-01-15T08:00:00.123456789Z", br#"{"event":{}}"#);
        assert_eq!(signature, "sha256=7492dc08013670b369eb631ac2469d930380e6837ce5c7e1774ea683ebdce1ba");
    }

    #[test]
    fn a_timestamp_has_nine_decimals_and_no_time_is_too_far() {
        let mut mint = Mint::new(1);
        let text = timestamp(&mut mint, 1_800_000_000_007);
        assert!(
            text.starts_with("2027-01-15T08:00:00.007") && text.ends_with('Z') && text.len() == 30,
            "{text}"
        );
        assert_ne!(text, timestamp(&mut mint, 1_800_000_000_007));
        for at_ms in [i64::MIN, -1, i64::MAX] {
            assert!(timestamp(&mut mint, at_ms).ends_with('Z'));
        }
    }

    #[test]
    fn ids_have_their_shapes() {
        let mut mint = Mint::new(1);
        let id = uuid(&mut mint);
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4');
        assert_eq!((message_id(&mut mint).len(), challenge(&mut mint).len()), (44, 43));
    }
}
