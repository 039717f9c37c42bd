use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::twitch::tests::twitch;

/// 2026-11-20T00:00:00Z
const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_000);
const WHEN: &str = "2026-11-20T00:00:00.123456789Z";
const AT: Timestamp = Timestamp::from_millis(1_795_132_800_123);
const SECRET: &str = "s3cRe7-of-the-hook";

/// What the client `ours` with this secret makes of a message.
fn read_with(secret: &str, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Message, Refused> {
    EventSub.read(&twitch("ours", "s").client, &WebhookSecret::new(secret).unwrap(), headers, body, now)
}

fn read_at(headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Message, Refused> {
    read_with(SECRET, headers, body, now)
}

/// The signature of these parts, with the secret of the tests.
fn sign(id: &[u8], when: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    for part in [id, when, body] {
        mac.update(part);
    }
    let bytes = mac.finalize().into_bytes();
    format!("sha256={}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn headers<V: AsRef<[u8]>>(fields: &[(&str, V)]) -> HeaderMap {
    let field = |(name, value): &(&str, V)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_bytes(value.as_ref()).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        headers.append(name, value);
    }
    headers
}

fn signed(word: &str, when: &str, body: &[u8]) -> HeaderMap {
    headers(&[
        (ID, "id-1"),
        (TIMESTAMP, when),
        (SIGNATURE, &sign(b"id-1", when.as_bytes(), body)),
        (TYPE, word),
    ])
}

/// What a message of this kind with this body says, signed as it should be.
fn read(word: &str, body: &str) -> Result<MessageKind, Refused> {
    let message = read_at(&signed(word, WHEN, body.as_bytes()), body.as_bytes(), NOW)?;
    assert_eq!(message.id, "id-1");
    Ok(message.kind)
}

fn subscription(kind: &str, status: &str) -> Value {
    json!({
        "id": "f1c2a387-161a-49f9-a165-0f21d7a4e1c4", "status": status, "type": kind, "version": "1", "cost": 0,
        "condition": { "client_id": "ours" },
        "transport": { "method": "webhook", "callback": "https://app.example/hook" },
        "created_at": "2019-11-16T10:11:12.634234626Z",
    })
}

fn event(login: &Value) -> Value {
    json!({ "client_id": "ours", "user_id": "1337", "user_login": login, "user_name": login })
}

fn news(kind: &str, login: &Value) -> Value {
    json!({ "subscription": subscription(kind, "enabled"), "event": event(login) })
}

fn challenge(text: &str) -> String {
    json!({ "challenge": text, "subscription": subscription(REVOKE, "webhook_callback_verification_pending") })
        .to_string()
}

fn revoked(gone: bool) -> MessageKind {
    MessageKind::Revoked { user_id: "1337".to_owned(), gone, at: AT }
}

#[test]
fn a_signature_is_that_of_another_implementation() {
    let body = br#"{"challenge":"pogchamp-kappa-360noscope-vohiyo"}"#;
    let signature = "sha256=1ed28e843cbcecf95e4e87e7bc15840dfa00ae5292ffcfcc389d5f0d8fe89cca";
    let headers = headers(&[
        ("Twitch-Eventsub-Message-Signature", signature),
        ("TWITCH-EVENTSUB-MESSAGE-TYPE", "webhook_callback_verification"),
        ("twitch-eventsub-message-timestamp", WHEN),
        ("Twitch-Eventsub-Message-Id", "hNzMfPcu-1"),
        ("Twitch-Eventsub-Message-Retry", "0"),
        ("Twitch-Eventsub-Subscription-Type", REVOKE),
        ("Twitch-Eventsub-Subscription-Version", "1"),
    ]);
    let kind = MessageKind::Challenge("pogchamp-kappa-360noscope-vohiyo".to_owned());
    let message = Message { id: "hNzMfPcu-1".to_owned(), kind };
    assert_eq!(read_at(&headers, body, NOW), Ok(message));
}

#[test]
fn every_kind_of_message_is_read() {
    let changed = |path: &str, value: Value| {
        let mut news = news(REVOKE, &json!("cool_user"));
        *news.pointer_mut(path).unwrap() = value;
        news.to_string()
    };
    let without_login = json!({ "subscription": subscription(REVOKE, "enabled"), "event": { "client_id": "ours", "user_id": "1337" } });
    let ended = json!({ "subscription": subscription(REVOKE, "notification_failures_exceeded") });
    let ended_as = |status: &str| MessageKind::SubscriptionEnded {
        subscription_id: "f1c2a387-161a-49f9-a165-0f21d7a4e1c4".to_owned(),
        status: status.to_owned(),
    };
    let granted = MessageKind::Granted { user_id: "1337".to_owned(), at: AT };
    let notification = "notification";
    let table = [
        (
            "webhook_callback_verification",
            challenge("a-b_c.D+/="),
            MessageKind::Challenge("a-b_c.D+/=".to_owned()),
        ),
        (notification, news(REVOKE, &json!("cool_user")).to_string(), revoked(false)),
        (notification, news(REVOKE, &json!("")).to_string(), revoked(false)),
        (notification, without_login.to_string(), revoked(false)),
        (notification, news(REVOKE, &Value::Null).to_string(), revoked(true)),
        (notification, news(GRANT, &json!("cool_user")).to_string(), granted),
        ("revocation", ended.to_string(), ended_as("notification_failures_exceeded")),
        (
            "revocation",
            json!({ "subscription": subscription("x", "a_new_one") }).to_string(),
            ended_as("a_new_one"),
        ),
        // Of somebody else's users
        (notification, changed("/event/client_id", json!("another")), MessageKind::OtherClient),
        (notification, changed("/event/client_id", json!("OURS")), MessageKind::OtherClient),
        (
            notification,
            changed("/subscription/condition/client_id", json!("another")),
            MessageKind::OtherClient,
        ),
        (notification, changed("/subscription/condition", json!({})), MessageKind::OtherClient),
        // Not known, and acknowledged
        (notification, changed("/subscription/type", json!("stream.online")), MessageKind::Other),
        (notification, changed("/subscription/version", json!("2")), MessageKind::Other),
        (notification, changed("/subscription/version", json!(1)), MessageKind::Other),
        ("something_new", "no JSON".to_owned(), MessageKind::Other),
        ("Notification", news(REVOKE, &Value::Null).to_string(), MessageKind::Other),
    ];
    for (word, body, expected) in table {
        assert_eq!(read(word, &body), Ok(expected), "{word} {body}");
    }
}

#[test]
fn a_body_that_is_not_of_its_kind_is_refused() {
    let mixed = |field: &str, value: Value| {
        let mut news = news(REVOKE, &Value::Null);
        news[field] = value;
        news.to_string()
    };
    let news_of =
        |event: Value| json!({ "subscription": subscription(REVOKE, "enabled"), "event": event }).to_string();
    let ended = json!({ "subscription": subscription(REVOKE, "user_removed") }).to_string();
    let twice = format!(
        r#"{{"subscription":{},"event":{{"client_id":"ours","user_id":"1","user_id":"2"}}}}"#,
        subscription(REVOKE, "enabled")
    );
    let verification = "webhook_callback_verification";
    let notification = "notification";
    let table = [
        // The kind stands in a header that nobody signed
        (verification, news(REVOKE, &Value::Null).to_string()),
        (verification, ended.clone()),
        (verification, mixed("challenge", json!("c"))),
        (notification, challenge("c")),
        (notification, ended.clone()),
        (notification, mixed("challenge", json!("c"))),
        ("revocation", challenge("c")),
        ("revocation", news(REVOKE, &Value::Null).to_string()),
        // Challenges that are none
        (verification, challenge("")),
        (verification, challenge("a b")),
        (verification, challenge("a\r\nb")),
        (verification, challenge("ä")),
        (verification, challenge(&"x".repeat(CHALLENGE_BYTES + 1))),
        (verification, r#"{"challenge":1}"#.to_owned()),
        (verification, r#"{"challenge":"a","challenge":"b"}"#.to_owned()),
        // News without what it takes
        (notification, news_of(json!({ "client_id": "ours" }))),
        (notification, news_of(json!({ "user_id": "1" }))),
        (notification, news_of(json!({ "client_id": "ours", "user_id": 1337 }))),
        (notification, news_of(json!({ "client_id": "ours", "user_id": "" }))),
        (notification, news_of(json!({ "client_id": "ours", "user_id": "1\n2" }))),
        (notification, news_of(json!({ "client_id": "ours", "user_id": "1".repeat(256) }))),
        (notification, news_of(json!(["ours", "1337", null]))),
        (notification, news_of(Value::Null)),
        (notification, twice),
        (notification, json!({ "event": event(&Value::Null) }).to_string()),
        (notification, mixed("subscription", json!([]))),
        (notification, mixed("subscription", json!({ "id": "1" }))),
        ("revocation", json!({ "subscription": { "status": "user_removed", "type": REVOKE } }).to_string()),
        ("revocation", json!({ "subscription": subscription(REVOKE, "two words") }).to_string()),
        ("revocation", json!({ "subscription": subscription(REVOKE, &"x".repeat(256)) }).to_string()),
        // No JSON, or not all of it, or more than it
        (notification, String::new()),
        (notification, "null".to_owned()),
        (notification, "[]".to_owned()),
        (notification, "<html>".to_owned()),
        (notification, "[".repeat(10_000)),
        (notification, format!("{{\"event\":{}", "[".repeat(10_000))),
        ("revocation", ended[..ended.len() - 1].to_owned()),
        ("revocation", format!("{ended}{ended}")),
    ];
    for (word, body) in table {
        assert_eq!(read(word, &body), Err(Refused::Malformed), "{word} {body}");
    }
}

#[test]
fn what_is_not_exactly_a_signature_is_refused() {
    let body = challenge("c");
    let good = sign(b"id-1", WHEN.as_bytes(), body.as_bytes());
    let hex = good.strip_prefix("sha256=").unwrap();
    let check = |signature: &str, expected: Result<(), Refused>| {
        let mut headers = signed("webhook_callback_verification", WHEN, body.as_bytes());
        headers.insert(SIGNATURE, HeaderValue::from_str(signature).unwrap());
        let read = read_at(&headers, body.as_bytes(), NOW);
        assert_eq!(read.map(|_| ()), expected, "{signature}");
    };
    check(&good, Ok(()));
    let table = [
        "sha256=abcd".to_owned(),
        "sha256=".to_owned(),
        "sha256".to_owned(),
        "x".to_owned(),
        hex.to_owned(),
        format!("sha256={}", &hex[1..]),
        format!("sha256={}", &hex[2..]),
        format!("sha256={hex}0"),
        format!("sha256={hex}00"),
        format!("sha256={hex}{hex}"),
        format!("sha256= {hex}"),
        format!("sha256={hex} "),
        format!("sha256={}", hex.to_uppercase()),
        format!("SHA256={hex}"),
        format!("sha1={hex}"),
        format!("sha512={hex}"),
        format!("sha256:{hex}"),
        format!("sha256=sha256={hex}"),
        format!("sha256={}g", &hex[..63]),
        format!("sha256={}+{}", &hex[..2], &hex[3..]),
        format!("sha256={}", "0".repeat(64)),
        format!("sha256={}", "f".repeat(64)),
    ];
    for signature in table {
        check(&signature, Err(Refused::Forged));
    }
    check("", Err(Refused::Malformed));
    check(&"0".repeat(HEADER_BYTES + 1), Err(Refused::TooLarge));
}

#[test]
fn a_signature_with_another_secret_or_over_less_is_forged() {
    let body = challenge("c");
    let headers = signed("webhook_callback_verification", WHEN, body.as_bytes());
    let other = read_with("s3cRe7-of-the-hooK", &headers, body.as_bytes(), NOW);
    assert_eq!(other, Err(Refused::Forged));
    for (id, when, signed) in
        [("", WHEN, body.as_str()), ("id-1", "", &body), ("id-1", WHEN, ""), (WHEN, "id-1", &body)]
    {
        let mut headers = headers.clone();
        let signature = sign(id.as_bytes(), when.as_bytes(), signed.as_bytes());
        headers.insert(SIGNATURE, HeaderValue::from_str(&signature).unwrap());
        assert_eq!(read_at(&headers, body.as_bytes(), NOW), Err(Refused::Forged), "{id} {when} {signed}");
    }
}

#[test]
fn a_forged_body_is_not_looked_into() {
    let headers = signed("notification", WHEN, b"{}");
    for body in ["", "no JSON", "[[[[", &challenge("c")] {
        assert_eq!(read_at(&headers, body.as_bytes(), NOW), Err(Refused::Forged), "{body}");
    }
    let mut stale = signed("notification", "2020-01-01T00:00:00Z", b"{}");
    stale.insert(SIGNATURE, HeaderValue::from_static("sha256=abcd"));
    assert_eq!(read_at(&stale, b"{}", NOW), Err(Refused::Forged));
}

#[test]
fn headers_stand_there_once_each_in_any_case_and_order() {
    let body = challenge("c");
    let signature = sign(b"id-1", WHEN.as_bytes(), body.as_bytes());
    let good =
        [(ID, "id-1"), (TIMESTAMP, WHEN), (SIGNATURE, &signature), (TYPE, "webhook_callback_verification")];
    let check = |fields: &[(&str, &str)], expected: Result<(), Refused>| {
        let read = read_at(&headers(fields), body.as_bytes(), NOW);
        assert_eq!(read.map(|_| ()), expected, "{fields:?}");
    };
    for start in 0..good.len() {
        let mut turned = good;
        turned.rotate_left(start);
        check(&turned, Ok(()));
        turned.reverse();
        check(&turned, Ok(()));
        let loud = turned.map(|(name, value)| (name.to_uppercase(), value));
        check(&loud.each_ref().map(|(name, value)| (name.as_str(), *value)), Ok(()));
        // Without one, with one twice, with an empty one
        check(&turned[1..], Err(Refused::Malformed));
        let (name, value) = turned[0];
        check(&[&turned[..], &[(name, value)]].concat(), Err(Refused::Malformed));
        check(&[&turned[..], &[(name, "other")]].concat(), Err(Refused::Malformed));
        check(&[&[(name, "")], &turned[1..]].concat(), Err(Refused::Malformed));
        let long = "x".repeat(HEADER_BYTES + 1);
        check(&[&[(name, long.as_str())], &turned[1..]].concat(), Err(Refused::TooLarge));
    }
    check(&[], Err(Refused::Malformed));
}

#[test]
fn what_is_signed_has_to_be_an_id_and_a_time() {
    let body = challenge("c");
    let table: [(&[u8], &[u8], bool); 8] = [
        (b"id", WHEN.as_bytes(), true),
        (&[b'x'; HEADER_BYTES], WHEN.as_bytes(), true),
        (b"i d", WHEN.as_bytes(), false),
        (b"\xe4\xff", WHEN.as_bytes(), false),
        (b"id", b"soon", false),
        (b"id", b"2026-11-20T00:00:00", false),
        (b"id", b"1795132800", false),
        (b"id", b"2026-11-20T00:00:00Z\xff", false),
    ];
    for (id, when, good) in table {
        let expected = if good { Ok(()) } else { Err(Refused::Malformed) };
        let signature = sign(id, when, body.as_bytes());
        let word = b"webhook_callback_verification".as_slice();
        let headers =
            headers(&[(ID, id), (TIMESTAMP, when), (SIGNATURE, signature.as_bytes()), (TYPE, word)]);
        assert_eq!(read_at(&headers, body.as_bytes(), NOW).map(|_| ()), expected, "{id:?} {when:?}");
    }
}

#[test]
fn a_message_is_of_these_minutes() {
    let body = challenge("c");
    let table = [
        ("2026-11-20T00:00:00Z", true),
        ("2026-11-19T23:50:00Z", true),
        ("2026-11-20T00:10:00Z", true),
        ("2026-11-20T00:10:00.000999999Z", true),
        ("2026-11-19T23:49:59.999999999Z", false),
        ("2026-11-19T23:49:59Z", false),
        ("2026-11-20T00:10:00.001Z", false),
        ("2026-11-20T00:10:01Z", false),
        ("2026-11-19T00:00:00Z", false),
        ("2025-11-20T00:00:00Z", false),
        ("0000-01-01T00:00:00Z", false),
        ("9999-12-31T23:59:59Z", false),
    ];
    for (when, fresh) in table {
        let headers = signed("webhook_callback_verification", when, body.as_bytes());
        let read = read_at(&headers, body.as_bytes(), NOW).map(|_| ());
        assert_eq!(read, if fresh { Ok(()) } else { Err(Refused::Stale) }, "{when}");
    }
}

#[test]
fn a_message_that_was_recorded_is_of_no_use_later() {
    let body = news(REVOKE, &Value::Null).to_string();
    let headers = signed("notification", WHEN, body.as_bytes());
    let read = |now| read_at(&headers, body.as_bytes(), now).map(|message| message.kind);
    assert_eq!(read(AT.after(MESSAGE_AGE)), Ok(revoked(true)));
    assert_eq!(read(AT.after(MESSAGE_AGE + Duration::from_millis(1))), Err(Refused::Stale));
    assert_eq!(read(Timestamp::from_millis(i64::MAX)), Err(Refused::Stale));
    assert_eq!(read(Timestamp::from_millis(i64::MIN)), Err(Refused::Stale));
}

#[test]
fn a_body_has_a_limit() {
    let padded = |length: usize| {
        let news = news(REVOKE, &Value::Null).to_string();
        format!("{news}{}", " ".repeat(length - news.len()))
    };
    assert_eq!(read("notification", &padded(MESSAGE_BYTES)), Ok(revoked(true)));
    assert_eq!(read("notification", &padded(MESSAGE_BYTES + 1)), Err(Refused::TooLarge));
    // Before anything else is looked at
    assert_eq!(read_at(&HeaderMap::new(), &[0; MESSAGE_BYTES + 1], NOW), Err(Refused::TooLarge));
}

#[test]
fn a_secret_is_as_the_provider_wants_it_and_cannot_be_printed() {
    let table = [
        ("0123456789".to_owned(), true),
        ("!~".repeat(50), true),
        ("012345678".to_owned(), false),
        ("x".repeat(101), false),
        (String::new(), false),
        ("0123456789\n".to_owned(), false),
        ("01234 56789".to_owned(), false),
        ("ä".repeat(10), false),
    ];
    for (secret, fits) in table {
        assert_eq!(WebhookSecret::new(secret.clone()).is_ok(), fits, "{secret:?}");
    }
    let secret = WebhookSecret::new("canary-of-the-hook").unwrap();
    assert_eq!(secret.expose(), "canary-of-the-hook");
    let shown = format!("{secret:?}");
    assert!(!shown.contains("canary"), "{shown}");
}

/// One of the four things that a signature is about, with one bit turned. None if no header can
/// hold that.
fn turned(part: usize, place: prop::sample::Index, bit: u8) -> Option<(HeaderMap, Vec<u8>)> {
    let mut body = news(REVOKE, &Value::Null).to_string().into_bytes();
    let signature = sign(b"id-1", WHEN.as_bytes(), &body);
    let mut parts = [b"id-1".to_vec(), WHEN.into(), signature.into_bytes()];
    let changed = parts.get_mut(part).unwrap_or(&mut body);
    let at = place.index(changed.len());
    changed[at] ^= 1 << bit;
    if parts.iter().any(|value| HeaderValue::from_bytes(value).is_err()) {
        return None;
    }
    let [id, when, signature] = parts;
    let fields = [(ID, id), (TIMESTAMP, when), (SIGNATURE, signature), (TYPE, b"notification".to_vec())];
    Some((headers(&fields), body))
}

#[test]
fn messages_go_to_https_on_port_443_of_a_public_address() {
    let table = [
        ("https://app.example/hook", true),
        ("https://app.example:443/hook", true),
        ("https://8.8.8.8/hook", true),
        ("https://app.example:8443/hook", false),
        ("http://app.example:443/hook", false),
        ("http://app.example/hook", false),
        ("https://localhost/hook", false),
        ("https://app.localhost/hook", false),
        ("https://127.0.0.1/hook", false),
        ("https://[::1]/hook", false),
        ("data:text/plain,hook", false),
    ];
    for (callback, expected) in table {
        assert_eq!(EventSub.reaches(&Url::parse(callback).unwrap()).is_ok(), expected, "{callback}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]
    #[test]
    fn no_bit_can_be_turned(part in 0_usize..4, place: prop::sample::Index, bit in 0_u8..8) {
        if let Some((headers, body)) = turned(part, place, bit) {
            prop_assert_eq!(read_at(&headers, &body, NOW), Err(Refused::Forged));
        }
    }

    /// Where one part ends is not signed.
    #[test]
    fn no_byte_can_be_moved_from_one_part_to_another(first in 1_usize..40, second in 0_usize..90) {
        let body = news(REVOKE, &Value::Null).to_string();
        let all = format!("id-1{WHEN}{body}");
        let (id, rest) = all.split_at(first);
        let (when, moved) = rest.split_at(second);
        let signature = sign(b"id-1", WHEN.as_bytes(), body.as_bytes());
        let headers =
            headers(&[(ID, id), (TIMESTAMP, when), (SIGNATURE, &signature), (TYPE, "notification")]);
        let expected = if moved == body && id == "id-1" { Ok(()) } else { Err(Refused::Malformed) };
        prop_assert_eq!(read_at(&headers, moved.as_bytes(), NOW).map(|_| ()), expected);
    }

    #[test]
    fn no_signed_body_panics(
        word in "webhook_callback_verification|notification|revocation|[!-~]{1,9}",
        body in "\\PC{0,80}|[\\[{\"a:,}\\]]{0,40}|\\{\"(challenge|event|subscription)\":\\PC{0,20}\\}",
        millis: i64,
    ) {
        let headers = signed(&word, WHEN, body.as_bytes());
        let _ = read_at(&headers, body.as_bytes(), Timestamp::from_millis(millis));
        let read = read_at(&headers, body.as_bytes(), NOW);
        prop_assert!(!matches!(read, Err(Refused::Forged | Refused::Stale | Refused::TooLarge)), "{:?}", read);
    }

    #[test]
    fn no_unsigned_bytes_panic_and_none_are_believed(
        values in proptest::collection::vec(proptest::collection::vec(32_u8..=126, 0..80), 4),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let fields: Vec<_> = [ID, TIMESTAMP, SIGNATURE, TYPE].into_iter().zip(values).collect();
        prop_assert!(read_at(&headers(&fields), &body, NOW).is_err());
    }
}
