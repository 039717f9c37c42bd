//! A message to the webhook. Only what the provider signed is believed, and what it may bring is
//! bounded.
//!
//! An input is text like that of HTTP: a line with the mode, lines with headers, an empty line, and
//! the body.
//!
//! ```text
//! signed
//! twitch-eventsub-message-id: 1
//! twitch-eventsub-message-timestamp: 2026-11-20T00:00:00Z
//! twitch-eventsub-message-type: notification
//!
//! {"subscription":{},"event":{}}
//! ```
//!
//! In the mode `signed` the input is given the signature that it should have, so that the fuzzer
//! gets past it. In the mode `as-is` it stays as it stands.

use std::time::Duration;

use claviger_core::{ClientSecret, Timestamp};
use claviger_provider::{
    MESSAGE_BYTES, Message, MessageKind, Refused, Registration, WebhookSecret,
    twitch::{self, MESSAGE_AGE},
};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

pub(crate) const OUTCOMES: [&str; 11] = [
    "challenge",
    "revoked",
    "granted",
    "ended",
    "other-client",
    "other",
    "too-large",
    "malformed",
    "forged",
    "stale",
    "no-input",
];

/// When every input is read: 2026-11-20T00:00:00Z.
const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_000);
const SECRET: &str = "s3cRe7-of-the-hook";
const CLIENT_ID: &str = "ours";

const ID: &str = "twitch-eventsub-message-id";
const TIMESTAMP: &str = "twitch-eventsub-message-timestamp";
const SIGNATURE: &str = "twitch-eventsub-message-signature";
const TYPE: &str = "twitch-eventsub-message-type";

/// Reads a message and checks what must hold.
pub(crate) fn check(input: &[u8]) -> &'static str {
    match read(input) {
        None => "no-input",
        Some(Ok(message)) => match message.kind {
            MessageKind::Challenge(_) => "challenge",
            MessageKind::Revoked { .. } => "revoked",
            MessageKind::Granted { .. } => "granted",
            MessageKind::SubscriptionEnded { .. } => "ended",
            MessageKind::OtherClient => "other-client",
            MessageKind::Other => "other",
        },
        Some(Err(Refused::TooLarge)) => "too-large",
        Some(Err(Refused::Malformed)) => "malformed",
        Some(Err(Refused::Forged)) => "forged",
        Some(Err(Refused::Stale)) => "stale",
    }
}

/// None if the bytes are no input.
fn read(input: &[u8]) -> Option<Result<Message, Refused>> {
    let (signed, headers, body) = parse(input)?;
    let client_secret = ClientSecret::new("s");
    let registration = Registration::new(CLIENT_ID, client_secret, "https://app.example/", Vec::new());
    let provider = twitch::PRESET.provider(registration);
    let (events, secret) = (twitch::PRESET.webhook_events?, WebhookSecret::new(SECRET).ok()?);
    let read_at = |body: &[u8], now| events.read(&provider.client, &secret, &headers, body, now);
    let read = read_at(body, NOW);
    assert_eq!(read, read_at(body, NOW), "the same message is read in the same way");
    match &read {
        Ok(message) => {
            check_contents(message);
            assert!(body.len() <= MESSAGE_BYTES);
            let expected = signature(&headers, body)?;
            assert_eq!(headers.get(SIGNATURE)?, &expected, "only what is signed is believed");
            let longer = [body, b" "].concat();
            let changed = if longer.len() > MESSAGE_BYTES { Refused::TooLarge } else { Refused::Forged };
            assert_eq!(read_at(&longer, NOW), Err(changed), "every byte is signed");
            let later = NOW.after(MESSAGE_AGE * 2 + Duration::from_millis(1));
            assert_eq!(read_at(body, later), Err(Refused::Stale), "no message lasts");
        }
        Err(Refused::Forged) => assert!(!signed, "the signature is right"),
        Err(Refused::TooLarge | Refused::Malformed | Refused::Stale) => {}
    }
    Some(read)
}

/// What a message may bring is bounded and can be written anywhere but into HTML.
fn check_contents(message: &Message) {
    let is_word = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    assert!(is_word(&message.id, 255));
    match &message.kind {
        MessageKind::Challenge(text) => assert!(is_word(text, 1024)),
        MessageKind::Revoked { user_id, at, .. } | MessageKind::Granted { user_id, at } => {
            assert!(is_word(user_id, 255));
            assert!(at.since(NOW) <= MESSAGE_AGE && NOW.since(*at) <= MESSAGE_AGE);
        }
        MessageKind::SubscriptionEnded { subscription_id, status } => {
            assert!(is_word(subscription_id, 255) && is_word(status, 255));
        }
        MessageKind::OtherClient | MessageKind::Other => {}
    }
}

/// Whether the input was signed here, its headers and its body.
fn parse(input: &[u8]) -> Option<(bool, HeaderMap, &[u8])> {
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = match end.and_then(|end| input.split_at_checked(end)) {
        Some((head, rest)) => (head, rest.strip_prefix(b"\n\n")?),
        None => (input, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let wants_signature = match lines.next()? {
        b"signed" => true,
        b"as-is" => false,
        _ => return None,
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let value = value.strip_prefix(b":")?.trim_ascii();
        let name = HeaderName::from_bytes(name).ok()?;
        headers.try_append(name, HeaderValue::from_bytes(value).ok()?).ok()?;
    }
    let signature = if wants_signature { signature(&headers, body) } else { None };
    let signed = signature.is_some();
    if let Some(signature) = signature {
        headers.insert(SIGNATURE, signature);
    }
    Some((signed, headers, body))
}

/// The signature that a message should have. None if it has nothing to sign.
fn signature(headers: &HeaderMap, body: &[u8]) -> Option<HeaderValue> {
    headers.get(TYPE)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).ok()?;
    mac.update(headers.get(ID)?.as_bytes());
    mac.update(headers.get(TIMESTAMP)?.as_bytes());
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("sha256={hex}")).ok()
}
