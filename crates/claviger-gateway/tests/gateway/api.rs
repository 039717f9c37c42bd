//! Calls of the provider's API in the caller's name.

use claviger_mock::{DEMO_CLIENT_ID, Endpoint, Fault, FaultKind};
use http::{StatusCode, header};
use serde_json::Value;

use crate::world::{ADA, World, echo, status_of};

const USERS: &str = "/api/twitch/users";

impl World {
    async fn call(&self, path: &str, cookie: &str) -> reqwest::Response {
        self.get(path).header(header::COOKIE, cookie).send().await.unwrap()
    }

    fn refreshes(&self) -> u64 {
        self.mock.with(|mock| mock.token_calls("refresh_token"))
    }

    fn api_calls(&self) -> u64 {
        self.mock.with(|mock| mock.calls(Endpoint::HelixUsers) + mock.calls(Endpoint::HelixSubscriptions))
    }

    fn validations(&self) -> u64 {
        self.mock.with(|mock| mock.calls(Endpoint::Validate))
    }

    /// Sets the API's answer to the next call, whatever its token.
    fn next_call_is_refused(&self, status: u16, body: &str) {
        let kind = FaultKind::Status { status, body: body.to_owned(), retry_after: None };
        self.mock.with(|mock| mock.add_fault(Fault::once(Endpoint::HelixUsers, kind)));
    }
}

/// A refusal in Twitch's format.
fn refusal(status: u16, message: &str) -> String {
    format!(r#"{{"error":"Unauthorized","status":{status},"message":"{message}"}}"#)
}

#[tokio::test]
async fn a_call_is_made_in_the_callers_name() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    let answer = world.call(&format!("{USERS}?first=1"), &cookie).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers()["cross-origin-resource-policy"], "same-origin");
    assert_eq!(answer.headers()["ratelimit-limit"], "800");
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body["data"][0]["id"], ADA);
    assert_eq!(world.refreshes(), 0);
    let client = world.mock.with(|mock| mock.log().last().unwrap().client_id.clone());
    assert!(client.is_none_or(|client| client == DEMO_CLIENT_ID));
}

#[tokio::test]
async fn without_a_session_no_call_is_made() {
    let world = World::echoing().await;
    let answer = world.get(USERS).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.api_calls(), 0);
}

#[tokio::test]
async fn without_stored_tokens_every_call_is_refused() {
    let world = World::new(echo(), "session.custody = \"none\"").await;
    let cookie = world.sign_in(ADA).await;
    for path in [USERS, "/api/twitch", "/api/twitch/subscriptions"] {
        for cookie in [cookie.as_str(), ""] {
            let asked = world.get(path).header(header::COOKIE, cookie).header(header::ACCEPT, "text/html");
            let answer = asked.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
            let told = answer.text().await.unwrap();
            assert!(told.contains("no_tokens_kept") && told.contains("keeps no tokens"), "{told}");
        }
    }
    assert_eq!(world.api_calls(), 0);
    assert_eq!(world.call("/app", &cookie).await.status(), StatusCode::OK, "nobody is signed out");
}

#[tokio::test]
async fn only_listed_calls_pass() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    for path in ["/api/twitch/subscriptions", "/api/twitch/users/blocks", "/api/twitch/Users"] {
        assert_eq!(world.call(path, &cookie).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
    let post = world.post(USERS).header(header::COOKIE, &cookie).send().await.unwrap();
    assert_eq!(post.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.api_calls(), 0);
}

#[tokio::test]
async fn an_ambiguous_api_path_is_refused() {
    let settings =
        "api.allow = [{ method = \"GET\", path = \"/users\" }, { method = \"GET\", path = \"/users/*\" }]";
    let world = World::new(echo(), settings).await;
    let cookie = world.sign_in(ADA).await;
    let paths = [
        "/api/twitch//users",
        "/api/twitch/users/",
        "/api/twitch/users//x",
        "/api/twitch/./users",
        "/api/twitch/users/../../oauth2/validate",
        "/api/twitch/%2e%2e/oauth2/validate",
        "/api/twitch/users%2f..",
        "/api/twitch/users%2fx",
        "/api/twitch/%75sers",
        "/api/twitch/users/@evil.example",
        "/api/twitch/@evil.example",
        "/api/twitch/users\\x",
        "/api/twitch/users/%5cx",
        "/api/twitch/users;x",
        "/api/twitch/users/http://evil.example",
        "/api/twitch/users%00",
        "/api/twitch/users%0d%0ax",
        "/api/twitch/users.json",
        "/api/twitch/users:80",
    ];
    for path in paths {
        assert_eq!(world.raw_status(path, &cookie).await, 400, "{path}");
    }
    for (host, status) in [("evil.example", 421), ("localhost", 200)] {
        let absolute = format!(
            "GET http://{host}{USERS} HTTP/1.1\r\nhost: evil.example\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(status_of(&world.raw(absolute).await), status, "{host}: only its path is the provider's");
    }
    assert_eq!(world.api_calls(), 1);
}

#[tokio::test]
async fn a_dead_token_is_refreshed_once_for_all_calls() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    world.mock.with(|mock| mock.expire_access_tokens(ADA));
    let calls = (0..8).map(|_| world.call(USERS, &cookie));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(world.refreshes(), 1);
    assert!(world.api_calls() <= 16, "each call is repeated once at most: {}", world.api_calls());
}

#[tokio::test]
async fn a_refusal_for_scope_is_passed_on() {
    let settings = "api.allow = [{ method = \"GET\", path = \"/subscriptions\" }]";
    let world = World::new(echo(), settings).await;
    let cookie = world.sign_in(ADA).await;
    let answer = world.call("/api/twitch/subscriptions", &cookie).await;
    assert!([StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status()));
    assert!(answer.text().await.unwrap().to_lowercase().contains("scope"));
    assert_eq!((world.refreshes(), world.api_calls()), (0, 1));
    let session = world.call("/auth/session", &cookie).await;
    assert_eq!(session.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_refusal_for_another_reason_is_passed_on() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    let validated = world.validations();
    for (status, message) in [
        (401, "Client ID and OAuth token do not match"),
        (401, "Missing scope: user:read:email"),
        (400, "Invalid OAuth token"),
        (403, "Invalid OAuth token"),
        (404, "nobody of this name"),
    ] {
        let body = refusal(status, message);
        world.next_call_is_refused(status, &body);
        let answer = world.call(USERS, &cookie).await;
        assert_eq!(answer.status().as_u16(), status, "{message}");
        for header in [&header::SET_COOKIE, &http::HeaderName::from_static("x-claviger-not-retried")] {
            assert_eq!(answer.headers().get(header), None, "{status} {message}");
        }
        assert_eq!(answer.text().await.unwrap(), body);
    }
    let asked = (world.api_calls(), world.refreshes(), world.validations() - validated);
    assert_eq!(asked, (5, 0, 0), "each call was made once, and nobody asked about its token");
    assert_eq!(world.call("/auth/session", &cookie).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_refusal_is_decided_by_a_validation() {
    let unclear = ["unauthorized", "jwt expired"].map(|message| refusal(401, message));
    for body in unclear.iter().map(String::as_str).chain(["", "<html>no</html>", "{}"]) {
        let world = World::echoing().await;
        let cookie = world.sign_in(ADA).await;
        let validated = world.validations();

        world.next_call_is_refused(401, body);
        let good = world.call(USERS, &cookie).await;
        assert_eq!(
            good.status(),
            StatusCode::UNAUTHORIZED,
            "the token is good, so the refusal is the caller's"
        );
        assert_eq!(good.text().await.unwrap(), body);
        let asked = (world.api_calls(), world.validations() - validated, world.refreshes());
        assert_eq!(asked, (1, 1, 0), "{body:?}");

        world.mock.with(|mock| mock.expire_access_tokens(ADA));
        world.next_call_is_refused(401, body);
        let dead = world.call(USERS, &cookie).await;
        assert_eq!(
            dead.status(),
            StatusCode::OK,
            "the token was dead: renewed, and the call repeated, {body:?}"
        );
        let asked = (world.api_calls(), world.validations() - validated, world.refreshes());
        assert_eq!(asked, (3, 2, 1), "{body:?}");
    }
}

#[tokio::test]
async fn an_unknown_refusal_without_a_validation_is_passed_on() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    world.mock.with(|mock| mock.add_fault(Fault::always(Endpoint::Validate, FaultKind::status(503))));
    world.next_call_is_refused(401, &refusal(401, "unauthorized"));
    let answer = world.call(USERS, &cookie).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers().get(header::SET_COOKIE), None, "TRANSIENT");
    assert_eq!((world.api_calls(), world.refreshes()), (1, 0));
    assert_eq!(world.call(USERS, &cookie).await.status(), StatusCode::OK, "nobody is signed out");
}

#[tokio::test]
async fn a_lasting_refusal_is_passed_on_after_one_repetition() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    world.mock.with(|mock| {
        let dead = r#"{"error":"Unauthorized","status":401,"message":"Invalid OAuth token"}"#.to_owned();
        mock.add_fault(Fault::always(
            Endpoint::HelixUsers,
            FaultKind::Status { status: 401, body: dead, retry_after: None },
        ));
    });
    assert_eq!(world.call(USERS, &cookie).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((world.refreshes(), world.api_calls()), (1, 2));
}

#[tokio::test]
async fn a_large_body_is_not_sent_twice() {
    let settings = "api.allow = [{ method = \"POST\", path = \"/users\" }]\napi.max_body_bytes = 60000";
    let world = World::new(echo(), settings).await;
    let cookie = world.sign_in(ADA).await;
    let send = async |bytes: usize| {
        world.mock.with(|mock| {
            mock.clear_faults();
            let dead = r#"{"error":"Unauthorized","status":401,"message":"Invalid OAuth token"}"#.to_owned();
            mock.add_fault(Fault::once(
                Endpoint::HelixUsers,
                FaultKind::Status { status: 401, body: dead, retry_after: None },
            ));
        });
        let before = world.api_calls();
        let answer =
            world.post(USERS).header(header::COOKIE, &cookie).body("x".repeat(bytes)).send().await.unwrap();
        let why =
            answer.headers().get("x-claviger-not-retried").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), why, world.api_calls() - before)
    };
    // The mock has no POST there, so a repetition gets 404.
    assert_eq!(send(10).await, (404, None, 2));
    assert_eq!(send(50_000).await, (401, Some("body-too-large".to_owned()), 1));
    assert_eq!(send(60_001).await, (413, None, 0));
    assert_eq!(world.refreshes(), 2);
    // The token is fresh by now, so the caller's own repetition reaches the provider's API, which
    // has no POST there.
    world.mock.with(claviger_mock::MockTwitch::clear_faults);
    let repeated =
        world.post(USERS).header(header::COOKIE, &cookie).body("x".repeat(50_000)).send().await.unwrap();
    assert_eq!((repeated.status().as_u16(), world.refreshes()), (404, 2));

    let pieces = futures_util::stream::iter((0..61).map(|_| Ok::<_, std::io::Error>("x".repeat(1_000))));
    let endless = reqwest::Body::wrap_stream(pieces);
    let answer = world.post(USERS).header(header::COOKIE, &cookie).body(endless).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text().await.unwrap().contains("body_too_large"));
}

#[tokio::test]
async fn a_failing_api_signs_nobody_out() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    for (fault, expected) in [
        (FaultKind::status(503), 503),
        (FaultKind::too_many_requests(None), 429),
        (FaultKind::CloseBefore, 502),
        (FaultKind::CloseAfter, 502),
    ] {
        world.mock.with(|mock| mock.add_fault(Fault::once(Endpoint::HelixUsers, fault)));
        let answer = world.call(USERS, &cookie).await;
        assert_eq!(answer.status().as_u16(), expected);
        assert!(answer.headers().get(header::SET_COOKIE).is_none());
    }
    assert_eq!(world.call(USERS, &cookie).await.status(), StatusCode::OK);
    assert_eq!(world.refreshes(), 0);
}

#[tokio::test]
async fn no_token_or_client_secret_reaches_browser_or_app() {
    let world = World::new(echo(), "session.carry_access_token = true").await;
    let cookie = world.sign_in(ADA).await;
    let answer = world.call(USERS, &cookie).await;
    let hint = crate::world::cookies_of(answer.headers());
    assert!(hint.contains("claviger-insecure-hint="), "{hint}");
    let both = format!("{cookie}; {hint}");
    let again = world.call(USERS, &both).await;
    assert_eq!(again.status(), StatusCode::OK);
    assert!(again.headers().get(header::SET_COOKIE).is_none(), "a hint that is good is left alone");
    let told = world.call("/echo", &both).await.text().await.unwrap();
    assert!(!told.contains("claviger-insecure") && !told.to_lowercase().contains("bearer"), "{told}");
}
