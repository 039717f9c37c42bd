//! What is logged of a request that the provider does not grant.

use claviger_core::{AuthorizationCode, ReturnTo};
use claviger_engine::{Callback, LoginError};
use claviger_mock::{Endpoint, FaultKind};

use crate::{
    store_health::Log,
    world::{ADA, MINUTE, World},
};

const SAID: &str = r#"{"status":400,"message":"Such words"}"#;

fn refusal(status: u16) -> FaultKind {
    FaultKind::Status { status, body: SAID.to_owned(), retry_after: None }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sign_in_is_one_line_with_endpoint_status_and_words() {
    // With a single subscriber, a call site that another thread reaches first would count as
    // disabled.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let table = [
        (Endpoint::Token, refusal(503), "endpoint=\"mock.test/oauth2/token\" status=503 said=\"Such words\""),
        (Endpoint::Token, refusal(403), "endpoint=\"mock.test/oauth2/token\" status=403 said=\"Such words\""),
        (
            Endpoint::Validate,
            refusal(401),
            "endpoint=\"mock.test/oauth2/validate\" status=401 said=\"Such words\"",
        ),
        (
            Endpoint::Validate,
            FaultKind::status(502),
            "endpoint=\"mock.test/oauth2/validate\" status=502 left_out=0",
        ),
        (
            Endpoint::Token,
            FaultKind::CloseAfter,
            "endpoint=\"mock.test/oauth2/token\" said=\"the request was sent, and no whole answer came\"",
        ),
    ];
    for (endpoint, kind, expected) in table {
        let (log, _captured) = Log::begin();
        let (world, app) = World::start().await;
        world.twitch.always(endpoint, kind);
        world.sign_in_again(&app, ADA, None).await.unwrap_err();
        let lines = log.lines_with("mock.test");
        assert!(matches!(&lines[..], [line] if line.contains(expected)), "{expected}: {lines:?}");
    }
}

/// Anybody can send a code that buys nothing.
#[tokio::test(start_paused = true)]
async fn failed_sign_ins_are_logged_once_a_minute_and_counted() {
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let (log, _captured) = Log::begin();
    let (world, app) = World::start().await;
    for wait in [0, 0, 0, 1] {
        world.pass(wait * MINUTE);
        let started = app.begin_login(ReturnTo::root(), false);
        let code = Some(AuthorizationCode::new("bogus"));
        let callback = Callback { code, ..world.agree(ADA, &started) };
        let failed = app.finish_login(callback, Some(&started.cookie), None, "").await;
        assert_eq!(failed.unwrap_err(), LoginError::CodeRejected);
    }
    let lines = log.lines_with("a sign-in failed");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("status=400 said=\"Invalid authorization code\" left_out=0"), "{lines:?}");
    assert!(lines[1].contains("left_out=2"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_one_line_with_endpoint_status_and_words() {
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let table = [
        (refusal(429), "a refresh has to wait", "status=429 said=\"Such words\""),
        (refusal(500), "the answer to a refresh is lost", "status=500 said=\"Such words\""),
        (refusal(403), "refuses this app's client id or secret", "status=403 said=\"Such words\""),
    ];
    for (kind, message, expected) in table {
        let (log, _captured) = Log::begin();
        let (world, app) = World::start().await;
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        world.twitch.always(Endpoint::Token, kind);
        browser.asks(&app).await.unwrap_err();
        let lines = log.lines_with("mock.test/oauth2/token");
        let right = |line: &String| line.contains(message) && line.contains(expected);
        assert!(matches!(&lines[..], [line] if right(line)), "{expected}: {lines:?}");
    }
}
