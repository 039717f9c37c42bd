//! A provider's answer to each kind of request. What cannot be read proves nothing: no token is
//! dead, nobody disconnected, and no pair is taken.
//!
//! An input is text like that of HTTP: the reader and the status, headers, an empty line, and the
//! body. `not-sent` and `no-answer` in place of a status are no answers. All readers read each
//! input. The first line names the one whose outcome counts.
//!
//! ```text
//! token 400
//! retry-after: 5
//!
//! {"status":400,"message":"Invalid refresh token"}
//! ```

use std::{fmt, fmt::Debug, time::Duration};

use bytes::Bytes;
use claviger_core::{
    ApiRefusal, ClientSecret, Connection, FailureKind, Lifespan, ProviderFailure, RevokeAnswer, Timestamp,
    TokenAnswer, ValidateAnswer,
};
use claviger_provider::{
    Answer, AppTokenAnswer, ConnectionsAnswer, CreateAnswer, DeleteAnswer, ListAnswer, Provider,
    Registration, Unanswered, twitch,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};

pub(crate) const OUTCOMES: [&str; 30] = [
    "token-issued",
    "token-rejected",
    "token-misconfigured",
    "token-unknown",
    "token-lost",
    "app-issued",
    "app-misconfigured",
    "app-unknown",
    "validate-valid",
    "validate-rejected",
    "validate-unknown",
    "revoke-done",
    "revoke-misconfigured",
    "revoke-unknown",
    "users-known",
    "users-app-token-dead",
    "users-misconfigured",
    "users-unknown",
    "list-page",
    "list-app-token-dead",
    "list-misconfigured",
    "list-unknown",
    "create-created",
    "create-exists",
    "create-refused",
    "create-unknown",
    "delete-done",
    "delete-unknown",
    "api-dead-token",
    "no-input",
];

const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_000);
const SECRET: &str = "canary-of-the-client";
const ASKED: [&str; 3] = ["1", "2", "3"];

/// An answer, beside what a plain reader of JSON sees in it.
struct Given {
    answer: Answer,
    status: u16,
    body: Option<Map<String, Value>>,
    raw: Bytes,
}

/// Reads an answer in every way, and checks what must hold of each verdict.
pub(crate) fn check(input: &[u8]) -> &'static str {
    let Some((reader, given)) = parse(input) else { return "no-input" };
    let registration =
        Registration::new("ours", ClientSecret::new(SECRET), "https://app.example/", Vec::new());
    let provider = twitch::PRESET.provider(registration);
    let outcomes = [
        ("token", token(&provider, &given)),
        ("app", app_token(&provider, &given)),
        ("validate", validate(&provider, &given)),
        ("revoke", revoke(&provider, &given)),
        ("users", users(&provider, &given)),
        ("list", list(&provider, &given)),
        ("create", create(&provider, &given)),
        ("delete", delete(&provider, &given)),
        ("api", api(&provider, &given)),
    ];
    outcomes.into_iter().find(|(name, _)| *name == reader).map_or("no-input", |(_, outcome)| outcome)
}

fn token(provider: &Provider, given: &Given) -> &'static str {
    let read = provider.client.read_token(given.answer.clone(), NOW);
    given.shows_no_secret(&read);
    match read {
        TokenAnswer::Issued(pair) => {
            assert_eq!(given.status, 200);
            let body = given.body.as_ref().unwrap();
            let text = |name: &str| body.get(name).and_then(Value::as_str);
            assert_eq!(Some(pair.access.expose()), text("access_token"));
            assert_eq!(pair.refresh.as_ref().map(|token| token.expose()), text("refresh_token"));
            for token in [text("access_token"), text("refresh_token")].into_iter().flatten() {
                assert!(HeaderValue::from_str(token).is_ok() && !token.contains(' ') && !token.is_empty());
            }
            check_lifespan(pair.lifespan);
            "token-issued"
        }
        TokenAnswer::Rejected => {
            assert!(matches!(given.status, 400 | 401), "{}", given.status);
            let dead = ["invalid_grant", "invalid refresh token", "invalid authorization code"];
            assert!(given.says(&dead), "a dead token is named in known words");
            assert!(!given.says(&["invalid_client", "invalid client", "invalid client secret"]));
            "token-rejected"
        }
        TokenAnswer::Misconfigured => {
            assert!(matches!(given.status, 400 | 401 | 403) && given.body.is_some());
            "token-misconfigured"
        }
        TokenAnswer::Unknown(failure) => {
            given.check_failure(failure);
            assert!(!(200..300).contains(&given.status), "what was sent may be spent");
            assert_ne!(failure.kind, FailureKind::NoAnswer, "what was sent may be spent");
            "token-unknown"
        }
        TokenAnswer::Lost(failure) => {
            given.check_failure(failure);
            assert!((200..300).contains(&given.status) || failure.kind == FailureKind::NoAnswer);
            "token-lost"
        }
    }
}

fn app_token(provider: &Provider, given: &Given) -> &'static str {
    let read = provider.client.read_app_token(given.answer.clone(), NOW);
    given.shows_no_secret(&read);
    match read {
        AppTokenAnswer::Issued { token, lifespan } => {
            let body = given.body.as_ref().unwrap();
            assert_eq!(given.status, 200);
            assert_eq!(Some(token.expose()), body.get("access_token").and_then(Value::as_str));
            check_lifespan(lifespan);
            "app-issued"
        }
        AppTokenAnswer::Misconfigured => "app-misconfigured",
        AppTokenAnswer::Unknown(failure) => {
            given.check_failure(failure);
            "app-unknown"
        }
    }
}

fn validate(provider: &Provider, given: &Given) -> &'static str {
    match provider.identity.read(&provider.client, given.answer.clone(), NOW) {
        ValidateAnswer::Valid(proof) => {
            assert_eq!(given.status, 200);
            let body = given.body.as_ref().unwrap();
            assert_eq!(Some(proof.client_id.as_str()), body.get("client_id").and_then(Value::as_str));
            assert_eq!(proof.subject_id.as_deref(), body.get("user_id").and_then(Value::as_str));
            assert!(is_id(&proof.client_id) && proof.subject_id.as_deref().is_none_or(is_id));
            let name = proof.display_name.unwrap_or_default();
            assert!(name.chars().all(claviger_core::display::shows_itself), "{name:?}");
            check_lifespan(proof.lifespan);
            "validate-valid"
        }
        ValidateAnswer::Rejected => {
            assert_eq!(given.status, 401);
            assert!(given.raw.is_empty() || given.body.is_some(), "the provider itself answered");
            assert!(!given.says(&["missing authorization token"]), "it saw the token");
            "validate-rejected"
        }
        ValidateAnswer::Unknown(failure) => {
            given.check_failure(failure);
            "validate-unknown"
        }
    }
}

fn revoke(provider: &Provider, given: &Given) -> &'static str {
    match provider.client.read_revoke(given.answer.clone(), NOW) {
        RevokeAnswer::Done => {
            assert!((200..300).contains(&given.status) || matches!(given.status, 400 | 401));
            "revoke-done"
        }
        RevokeAnswer::Misconfigured => "revoke-misconfigured",
        RevokeAnswer::Unknown(failure) => {
            given.check_failure(failure);
            "revoke-unknown"
        }
    }
}

/// Only the provider's own word about a user disconnects that user.
fn users(provider: &Provider, given: &Given) -> &'static str {
    let asked = ASKED.map(str::to_owned);
    let form = provider.capabilities.connection_check.unwrap();
    match form.read(&provider.client, given.answer.clone(), &asked, NOW) {
        ConnectionsAnswer::Known(known) => {
            assert_eq!(given.status, 200);
            let data = given.body.as_ref().and_then(|body| body.get("data")?.as_array());
            // Something is broken inside an entry, where nobody reads.
            let Some(data) = data else { return "users-known" };
            let said = |id: &str| -> Vec<_> {
                let entries =
                    data.iter().filter(|entry| entry.get("user_id").is_some_and(|named| named == id));
                entries.map(|entry| entry.get("has_authorized").and_then(Value::as_bool)).collect()
            };
            let ids: Vec<&str> = known.iter().map(|(id, _)| id.as_str()).collect();
            assert!(!ids.is_empty() && ids.iter().all(|id| ASKED.contains(id)));
            assert!(ids.windows(2).all(|two| two[0] < two[1]), "each once, as asked: {ids:?}");
            for (id, connection) in &known {
                let said = said(id);
                match connection {
                    Connection::Connected => assert!(said.iter().all(|word| *word == Some(true))),
                    Connection::Disconnected => {
                        assert!(!said.is_empty() && said.iter().all(|word| *word == Some(false)));
                    }
                    Connection::Gone => {
                        assert!(said.is_empty() && !data.is_empty(), "silence about all proves nothing");
                    }
                }
            }
            "users-known"
        }
        ConnectionsAnswer::TokenDead => "users-app-token-dead",
        ConnectionsAnswer::Misconfigured => "users-misconfigured",
        ConnectionsAnswer::Unknown(failure) => {
            given.check_failure(failure);
            "users-unknown"
        }
    }
}

fn list(provider: &Provider, given: &Given) -> &'static str {
    let subscriptions = provider.capabilities.webhook_events.unwrap().subscriptions().unwrap();
    match subscriptions.read_list(&provider.client, given.answer.clone(), NOW) {
        ListAnswer::Page { subscriptions: found, next } => {
            assert_eq!(given.status, 200);
            assert!(found.iter().all(|one| is_id(&one.id) && is_id(&one.status) && is_id(&one.kind)));
            assert!(next.is_none_or(|next| !next.is_empty() && HeaderValue::try_from(next).is_ok()));
            let ours = "https://app.example/auth/webhook".parse().unwrap();
            let plan = subscriptions.plan(&provider.client, &found, &ours, None);
            for id in plan.delete {
                let one = found.iter().find(|one| one.id == id).unwrap();
                assert_eq!(one.callback.as_deref(), Some(ours.as_str()), "another deployment's stays");
                assert_eq!(one.client_id.as_deref(), Some("ours"));
            }
            "list-page"
        }
        ListAnswer::TokenDead => "list-app-token-dead",
        ListAnswer::Misconfigured => "list-misconfigured",
        ListAnswer::Unknown(failure) => {
            given.check_failure(failure);
            "list-unknown"
        }
    }
}

fn create(provider: &Provider, given: &Given) -> &'static str {
    let subscriptions = provider.capabilities.webhook_events.unwrap().subscriptions().unwrap();
    match subscriptions.read_created(&provider.client, given.answer.clone(), NOW) {
        CreateAnswer::Created(id) => {
            assert!((200..300).contains(&given.status) && is_id(&id));
            "create-created"
        }
        CreateAnswer::Exists => "create-exists",
        CreateAnswer::TokenDead => "create-app-token-dead",
        CreateAnswer::Refused(reason) => {
            assert!((1..=300).contains(&reason.chars().count()), "{reason:?}");
            assert!(reason.chars().all(claviger_core::display::shows_itself), "{reason:?}");
            "create-refused"
        }
        CreateAnswer::Unknown(failure) => {
            given.check_failure(failure);
            "create-unknown"
        }
    }
}

fn delete(provider: &Provider, given: &Given) -> &'static str {
    let subscriptions = provider.capabilities.webhook_events.unwrap().subscriptions().unwrap();
    match subscriptions.read_deleted(&provider.client, given.answer.clone(), NOW) {
        DeleteAnswer::Done => {
            assert!(matches!(given.status, 204 | 404));
            "delete-done"
        }
        DeleteAnswer::TokenDead => "delete-app-token-dead",
        DeleteAnswer::Unknown(failure) => {
            given.check_failure(failure);
            "delete-unknown"
        }
    }
}

/// Only a 401 that names a dead token is worth a refresh.
fn api(provider: &Provider, given: &Given) -> &'static str {
    let Ok(answer) = &given.answer else { return "no-input" };
    let challenge = answer.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
    match provider.client.read_api_refusal(answer.status(), challenge, answer.body()) {
        ApiRefusal::DeadToken => {
            assert_eq!(given.status, 401);
            let named = given.says(&["invalid access token", "invalid oauth token"]);
            assert!(named || challenge.is_some_and(|challenge| challenge.contains("invalid_token")));
            "api-dead-token"
        }
        ApiRefusal::NotTheToken => "api-not-the-token",
        ApiRefusal::Unclear => {
            assert_eq!(given.status, 401);
            "api-unclear"
        }
    }
}

impl Given {
    /// Whether the answer's own words are among these.
    fn says(&self, words: &[&str]) -> bool {
        let text = |name: &str| self.body.as_ref()?.get(name)?.as_str();
        let said = [text("error"), text("message")].into_iter().flatten();
        said.map(|said| said.trim().to_ascii_lowercase()).any(|said| words.contains(&said.as_str()))
    }

    fn check_failure(&self, failure: ProviderFailure) {
        let hour = Duration::from_secs(60 * 60);
        assert!(failure.retry_after.is_none_or(|wait| (Duration::from_secs(1)..=hour).contains(&wait)));
        match failure.kind {
            FailureKind::Status(status) => assert_eq!(status, self.status),
            FailureKind::NotSent | FailureKind::NoAnswer => assert!(self.answer.is_err()),
            FailureKind::Unreadable => assert!((200..300).contains(&self.status)),
        }
    }

    /// Neither tokens nor our own secret are printed (SECRET).
    fn shows_no_secret(&self, read: &impl Debug) {
        let shown = format!("{read:?}");
        let text = |name: &str| self.body.as_ref().and_then(|body| body.get(name)?.as_str());
        // A scope is no secret. An answer could repeat its token there.
        let scopes = self.body.as_ref().and_then(|body| body.get("scope")).map(Value::to_string);
        for token in [text("access_token"), text("refresh_token"), Some(SECRET)].into_iter().flatten() {
            let is_scope = scopes.as_ref().is_some_and(|scopes| scopes.contains(token));
            assert!(is_scope || !token.contains("canary") || !shown.contains(token), "{shown}");
        }
    }
}

fn check_lifespan(lifespan: Lifespan) {
    if let Lifespan::Lasts(span) = lifespan {
        assert!(span >= Duration::from_secs(1) && span <= Duration::from_secs(10 * 365 * 24 * 60 * 60));
    }
}

fn is_id(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The reader and the answer of an input.
fn parse(input: &[u8]) -> Option<(&str, Given)> {
    let (head, body) = match input.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &[][..]),
    };
    let mut lines = std::str::from_utf8(head).ok()?.split('\n');
    let (reader, status) = lines.next()?.split_once(' ')?;
    let raw = Bytes::copy_from_slice(body);
    let answer = match status {
        "not-sent" => Err(Unanswered::NotSent),
        "no-answer" => Err(Unanswered::NoAnswer),
        status => {
            let mut answer = Response::new(raw.clone());
            *answer.status_mut() = StatusCode::from_bytes(status.as_bytes()).ok()?;
            for line in lines {
                let (name, value) = line.split_once(':')?;
                let name = name.parse::<HeaderName>().ok()?;
                answer.headers_mut().try_append(name, value.trim().parse().ok()?).ok()?;
            }
            Ok(answer)
        }
    };
    let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
    let json = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let body = serde_json::from_slice(json).ok().map(|Fields(fields)| fields);
    Some((reader, Given { answer, status, body, raw }))
}

/// The fields of a JSON object that some reader reads. What is broken in others, such as text that
/// is no UTF-8, is passed over, as the readers do.
struct Fields(Map<String, Value>);

const FIELDS: [&str; 8] =
    ["access_token", "refresh_token", "scope", "error", "message", "client_id", "user_id", "data"];

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(body: D) -> Result<Self, D::Error> {
        struct OfObject;

        impl<'de> Visitor<'de> for OfObject {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut object: M) -> Result<Fields, M::Error> {
                let mut fields = Map::new();
                while let Some(name) = object.next_key::<String>()? {
                    if FIELDS.contains(&name.as_str()) {
                        fields.insert(name, object.next_value()?);
                    } else {
                        object.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Fields(fields))
            }
        }

        body.deserialize_map(OfObject)
    }
}
