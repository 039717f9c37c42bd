//! `POST /auth/webhook`.

use axum::body::{Body, Bytes};
use claviger_provider::MESSAGE_BYTES;
use futures_util::stream;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    answer::Answer,
    browser::Browser,
    secrets::captured,
    site::{App, MINUTE, ORIGIN, WEBHOOK_SECRET},
    twitch::ADA,
};

const PATH: &str = "/auth/webhook";
const ID: &str = "Twitch-Eventsub-Message-Id";
const TIMESTAMP: &str = "Twitch-Eventsub-Message-Timestamp";
const SIGNATURE: &str = "Twitch-Eventsub-Message-Signature";
const TYPE: &str = "Twitch-Eventsub-Message-Type";
/// [`crate::site::START`].
const WHEN: &str = "2027-01-15T08:00:00.000000000Z";

/// A message as sent.
#[derive(Clone)]
struct Message {
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Message {
    fn signed_with(secret: &str, kind: &str, when: &str, body: &str) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("id-1{when}{body}").as_bytes());
        let signature: String =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let signature = format!("sha256={signature}");
        let fields =
            [(ID, "id-1"), ("Twitch-Eventsub-Message-Retry", "0"), (TYPE, kind), (SIGNATURE, &signature)];
        let fields = fields.into_iter().chain([(TIMESTAMP, when), ("Content-Type", "application/json")]);
        let fields = fields.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
        Self { fields, body: body.as_bytes().to_vec() }
    }

    fn new(kind: &str, body: &str) -> Self {
        Self::signed_with(WEBHOOK_SECRET, kind, WHEN, body)
    }

    fn revoked(user: &str) -> Self {
        Self::new("notification", &news("user.authorization.revoke", user))
    }

    fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self
    }

    fn in_place_of(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).with(name, value)
    }

    fn saying(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Changes the letters of the names, and reverses the order of the fields.
    fn rewritten(mut self, change: fn(&str) -> String) -> Self {
        self.fields.reverse();
        for (name, _) in &mut self.fields {
            *name = change(name);
        }
        self
    }

    async fn arrives(&self, app: &App) -> Answer {
        let mut request = Request::post(PATH);
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request = request.header(name, HeaderValue::from_bytes(value).unwrap());
        }
        app.send(request.body(Body::from(self.body.clone())).unwrap()).await
    }
}

fn subscription(kind: &str, status: &str) -> Value {
    json!({
        "id": "f1c2a387", "status": status, "type": kind, "version": "1", "cost": 0,
        "condition": { "client_id": claviger_mock::DEMO_CLIENT_ID },
        "transport": { "method": "webhook", "callback": format!("{ORIGIN}{PATH}") },
        "created_at": "2027-01-01T00:00:00.634234626Z",
    })
}

fn news(kind: &str, user: &str) -> String {
    let event = json!({
        "client_id": claviger_mock::DEMO_CLIENT_ID,
        "user_id": user, "user_login": "ada_builds", "user_name": "Ada_Builds",
    });
    json!({ "subscription": subscription(kind, "enabled"), "event": event }).to_string()
}

fn challenge(text: &str) -> String {
    let pending = subscription("user.authorization.revoke", "webhook_callback_verification_pending");
    json!({ "challenge": text, "subscription": pending }).to_string()
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_answered_with_its_text() {
    let app = App::start().await;
    let text = "pogchamp-kappa-360noscope-vohiyo";
    let answer = Message::new("webhook_callback_verification", &challenge(text)).arrives(&app).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, text));
    let expected = [
        (header::CONTENT_TYPE, "text/plain"),
        (header::CONTENT_LENGTH, "32"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in expected {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    answer.assert_sets_no_cookie();
}

#[tokio::test(start_paused = true)]
async fn events_are_noted_and_answered_with_204() {
    let app = App::start().await;
    let ended = subscription("user.authorization.revoke", "notification_failures_exceeded");
    let table = [
        Message::revoked(ADA),
        Message::new("notification", &news("user.authorization.grant", ADA)),
        Message::new("notification", &news("channel.update", ADA)),
        Message::new("revocation", &json!({ "subscription": ended }).to_string()),
        Message::new("something_new", "{}"),
        Message::revoked(ADA).rewritten(str::to_lowercase),
        Message::revoked(ADA).rewritten(str::to_uppercase),
        Message::revoked(ADA).with("Sec-Fetch-Site", "cross-site").with("Origin", "https://evil.example"),
        Message::revoked(ADA).with("Cookie", "__Host-claviger=x; __Host-claviger=y"),
        Message::revoked(ADA).in_place_of("Content-Type", "text/html"),
        Message::revoked(ADA).without("Content-Type"),
        Message::revoked(ADA).without("Twitch-Eventsub-Message-Retry"),
        Message::revoked(ADA).with("Accept", "text/html"),
    ];
    for (case, message) in table.iter().enumerate() {
        let answer = message.arrives(&app).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::NO_CONTENT, ""), "{case}");
        answer.assert_sets_no_cookie();
    }
}

#[tokio::test(start_paused = true)]
async fn bad_messages_are_refused_without_a_reason() {
    let app = App::start().await;
    let good = || Message::revoked(ADA);
    let big = "x".repeat(300);
    let (bad, forbidden, large) =
        (StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN, StatusCode::PAYLOAD_TOO_LARGE);
    let table = [
        ("no id", good().without(ID), bad),
        ("no time", good().without(TIMESTAMP), bad),
        ("no signature", good().without(SIGNATURE), bad),
        ("no kind", good().without(TYPE), bad),
        ("two ids", good().with(ID, "id-1"), bad),
        ("two times", good().with(TIMESTAMP, WHEN), bad),
        ("two signatures", good().with(SIGNATURE, "sha256=00"), bad),
        ("two kinds", good().with(TYPE, "revocation"), bad),
        ("an empty id", good().in_place_of(ID, ""), bad),
        ("a long id", good().in_place_of(ID, &big), large),
        ("a long signature", good().in_place_of(SIGNATURE, &big), large),
        ("another id", good().in_place_of(ID, "id-2"), forbidden),
        ("another time", good().in_place_of(TIMESTAMP, "2027-01-15T08:00:01.000000000Z"), forbidden),
        ("a short signature", good().in_place_of(SIGNATURE, "sha256=abcd"), forbidden),
        ("another hash", good().in_place_of(SIGNATURE, "sha1=abcd"), forbidden),
        ("bytes", good().in_place_of(SIGNATURE, b"sha256=\xff\xfe"), forbidden),
        ("another body", good().saying(news("user.authorization.revoke", "1")), forbidden),
        ("half a body", good().saying(&good().body[..good().body.len() / 2]), forbidden),
        ("no body", good().saying(""), forbidden),
        ("another secret", Message::signed_with("another-secret", "notification", WHEN, "{}"), forbidden),
        (
            "too old",
            Message::signed_with(WEBHOOK_SECRET, "notification", "2027-01-15T07:49:59.999Z", "{}"),
            forbidden,
        ),
        (
            "of the future",
            Message::signed_with(WEBHOOK_SECRET, "notification", "2027-01-15T08:10:30Z", "{}"),
            forbidden,
        ),
        ("no time at all", Message::signed_with(WEBHOOK_SECRET, "notification", "soon", "{}"), bad),
        ("garbage that is signed", Message::new("notification", "\u{0}garbage"), bad),
        ("news without an event", Message::new("notification", "{}"), bad),
        ("a body of another kind", good().in_place_of(TYPE, "revocation"), bad),
        (
            "a challenge that is none",
            Message::new("webhook_callback_verification", &challenge("two words")),
            bad,
        ),
        ("the largest", good().saying(vec![b'x'; MESSAGE_BYTES]), forbidden),
        ("too large", good().saying(vec![b'x'; MESSAGE_BYTES + 1]), large),
    ];
    for (case, message, expected) in table {
        let answer = message.arrives(&app).await;
        answer.assert_error(expected, "message_refused");
        assert_eq!(
            answer.json(),
            json!({ "error": "message_refused", "message": "This message is not accepted." })
        );
        answer.assert_sets_no_cookie();
        assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE), "{case}");
    }
    assert!(app.signed_in(ADA).await.is_signed_in(&app).await);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_times_out() {
    let app = App::start().await;
    let endless = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let answer = app.send(Request::post(PATH).body(endless).unwrap()).await;
    answer.assert_error(StatusCode::REQUEST_TIMEOUT, "message_refused");
    let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1024])));
    let answer = app.send(Request::post(PATH).body(Body::from_stream(chunks)).unwrap()).await;
    answer.assert_error(StatusCode::PAYLOAD_TOO_LARGE, "message_refused");
    let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("broken"))]);
    let answer = app.send(Request::post(PATH).body(Body::from_stream(broken)).unwrap()).await;
    answer.assert_error(StatusCode::BAD_REQUEST, "message_refused");
}

#[tokio::test(start_paused = true)]
async fn other_methods_get_405_with_allow() {
    let app = App::start().await;
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let request = Request::builder().method(method.clone()).uri(PATH).body(Body::empty()).unwrap();
        let answer = app.send(request).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.header(header::ALLOW), Some("POST"), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_secret_the_route_does_not_exist() {
    let app = App::with(|setup| setup.webhook = false).await;
    let nothing = Browser::new().fetches(&app, "/auth/nothing").await;
    for answer in [Message::revoked(ADA).arrives(&app).await, Browser::new().fetches(&app, PATH).await] {
        answer.assert_error(StatusCode::NOT_FOUND, "not_found");
        assert_eq!((answer.json(), &answer.headers), (nothing.json(), &nothing.headers));
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_stored_gets_a_5xx() {
    let app = App::start().await;
    app.store_fails(true);
    Message::revoked(ADA).arrives(&app).await.assert_passing_failure();
    let forged = Message::signed_with("another-secret", "notification", WHEN, "{}").arrives(&app).await;
    forged.assert_error(StatusCode::FORBIDDEN, "message_refused");
    let text = Message::new("webhook_callback_verification", &challenge("x")).arrives(&app).await;
    assert_eq!(text.status, StatusCode::OK, "a challenge needs no store");
    app.store_fails(false);
    assert_eq!(Message::revoked(ADA).arrives(&app).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_ends_every_device_of_the_user() {
    let app = App::start().await;
    let devices = [app.signed_in(ADA).await, app.signed_in(ADA).await];
    app.pass(MINUTE);
    assert!(app.twitch.mock().disconnect(ADA, claviger_mock::DEMO_CLIENT_ID));
    let message = Message::signed_with(
        WEBHOOK_SECRET,
        "notification",
        "2027-01-15T08:01:00Z",
        &news("user.authorization.revoke", ADA),
    );
    for _ in 0..2 {
        assert_eq!(message.arrives(&app).await.status, StatusCode::NO_CONTENT, "it may come twice");
    }
    let younger = app.signed_in(ADA).await;
    app.claviger.engine().investigate_suspicions().await.unwrap();
    for device in &devices {
        let answer = device.clone().fetches(&app, "/auth/session").await;
        answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
        assert_eq!(answer.json()["reason"], "disconnected_at_provider");
    }
    assert!(younger.is_signed_in(&app).await, "BLAST: it is younger than the news");
}

#[tokio::test(start_paused = true)]
async fn refused_messages_are_logged_once_a_minute() {
    let app = App::start().await;
    let story = async {
        for _ in 0..3 {
            Message::revoked(ADA).in_place_of(ID, "canary-id").arrives(&app).await;
        }
        app.pass(MINUTE);
        Message::revoked(ADA).saying("canary-body").arrives(&app).await;
        Message::revoked(ADA).arrives(&app).await;
    };
    let (log, ()) = captured(story).await;
    assert_eq!(log.matches("refused a webhook message").count(), 2, "{log}");
    assert!(!log.contains("canary"), "SECRET: {log}");
}
