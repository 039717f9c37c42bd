//! Sign-ins that fail after the provider issued a token: no session begins, and the token is
//! revoked.

use claviger_core::{EndReason, ReturnTo};
use claviger_engine::LoginError;
use claviger_mock::{DEMO_CLIENT_ID, Endpoint, FaultKind, RetryAfter};
use claviger_seal::KeyId;
use claviger_store::Method;

use crate::{
    faulty_store::{Trick, unavailable},
    world::{ADA, Instance, SECOND, World, subject},
};

/// Checks that there is no session, no live token after the outbox has run, and that the next
/// sign-in works.
async fn assert_no_trace(world: &World, app: &Instance) {
    world.rest().await;
    assert_eq!(app.devices(&subject(ADA)).await.unwrap(), [], "no session began");
    assert!(world.owed().await > 0, "the revocation is owed");
    world.mend();
    app.carry_out_revocations().await.unwrap();
    assert_eq!(world.owed().await, 0);
    assert_eq!(world.twitch.mock().live_access_tokens(ADA), 0, "CASCADE");
    world.sign_in(app, ADA).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_for_another_app_or_no_user_begins_no_session() {
    for field in ["client_id", "user_id"] {
        let (world, app) = World::start().await;
        world.twitch.rewrite(Endpoint::Validate, move |body| {
            body[field] = if field == "client_id" { "other".into() } else { serde_json::Value::Null };
        });
        let checks = world.memory.calls(Method::Check);
        let outcome = world.sign_in_again(&app, ADA, None).await;
        assert_eq!(outcome.unwrap_err(), LoginError::NotOurToken, "{field}");
        world.rest().await;
        assert_eq!(world.memory.calls(Method::Check), checks, "no write of a row has to be waited for");
        assert_no_trace(&world, &app).await;
    }
}

fn not_known() -> FaultKind {
    let body = r#"{"status":401,"message":"invalid access token"}"#.to_owned();
    FaultKind::Status { status: 401, body, retry_after: None }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_dead_on_arrival_begins_no_session() {
    let (world, app) = World::start().await;
    world.twitch.always(Endpoint::Validate, not_known());
    let error = world.sign_in_again(&app, ADA, None).await.unwrap_err();
    assert!(matches!(error, LoginError::ProviderUnavailable { .. }), "{error}");
    assert_no_trace(&world, &app).await;
}

/// L3: the part of the provider that answers may not know the token yet.
#[tokio::test(start_paused = true)]
async fn a_token_that_the_provider_does_not_know_yet_is_asked_about_again() {
    let (world, app) = World::start().await;
    for _ in 0..2 {
        world.twitch.once(Endpoint::Validate, not_known());
    }
    world.sign_in(&app, ADA).await;
}

#[tokio::test(start_paused = true)]
async fn an_unconfirmed_token_begins_no_session() {
    let kinds = [
        FaultKind::too_many_requests(Some(RetryAfter::Seconds(7))),
        FaultKind::status(500),
        FaultKind::status(404),
        FaultKind::CloseBefore,
        FaultKind::CloseAfter,
        FaultKind::Malformed { body: claviger_mock::MalformedBody::Html },
        FaultKind::delay(60 * SECOND),
    ];
    for kind in kinds {
        let (world, app) = World::start().await;
        world.twitch.always(Endpoint::Validate, kind.clone());
        let error = world.sign_in_again(&app, ADA, None).await.unwrap_err();
        let LoginError::ProviderUnavailable { retry_after } = error else { panic!("{kind:?}: {error}") };
        if matches!(kind, FaultKind::Status { status: 429, .. }) {
            assert_eq!(retry_after, 7 * SECOND);
        }
        assert_eq!(world.twitch.calls(Endpoint::Validate), 2, "{kind:?}: asked twice at most");
        assert_no_trace(&world, &app).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_answer_is_asked_again() {
    let (world, app) = World::start().await;
    world.twitch.once(Endpoint::Validate, FaultKind::status(502));
    world.sign_in(&app, ADA).await;
}

#[tokio::test(start_paused = true)]
async fn fewer_scopes_than_asked_for_begin_no_session() {
    let (world, app) = World::start().await;
    world.twitch.rewrite(Endpoint::Validate, |body| body["scopes"] = serde_json::json!(["chat:read"]));
    assert_eq!(world.sign_in_again(&app, ADA, None).await.unwrap_err(), LoginError::ScopesMissing);
    assert_no_trace(&world, &app).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_sign_in_keeps_the_browsers_session() {
    let (world, app) = World::start().await;
    let old = world.sign_in(&app, ADA).await;
    world.twitch.always(Endpoint::Validate, FaultKind::status(500));
    world.sign_in_again(&app, ADA, Some(&old.cookie)).await.unwrap_err();
    old.asks(&app).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn wrong_credentials_are_misconfigured() {
    let (world, app) = World::with(|setup| {
        setup.provider.client.secret = claviger_core::ClientSecret::new("wrong");
    })
    .await;
    assert_eq!(world.sign_in_again(&app, ADA, None).await.unwrap_err(), LoginError::Misconfigured);
}

#[tokio::test(start_paused = true)]
async fn a_dead_code_is_reported() {
    let (world, app) = World::start().await;
    let started = app.begin_login(ReturnTo::root(), false);
    let callback = world.agree(ADA, &started);
    world.twitch.mock().disconnect(ADA, DEMO_CLIENT_ID);
    let outcome = app.finish_login(callback, Some(&started.cookie), None, "").await;
    assert_eq!(outcome.unwrap_err(), LoginError::CodeRejected);
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_with_a_missing_key_names_the_key() {
    let (world, app) = World::start().await;
    let rotated = world.instance_with(&[2]).await;
    let started = app.begin_login(ReturnTo::root(), false);
    let callback = world.agree(ADA, &started);
    let outcome = rotated.finish_login(callback.clone(), Some(&started.cookie), None, "").await;
    assert_eq!(outcome.unwrap_err(), LoginError::UnknownKey(KeyId(1)));
    app.finish_login(callback, Some(&started.cookie), None, "").await.expect("its state was not used up");
}

#[tokio::test(start_paused = true)]
async fn without_the_store_no_code_is_sent() {
    let (world, app) = World::start().await;
    app.faulty_store.down(true);
    let outcome = world.sign_in_again(&app, ADA, None).await;
    assert_eq!(outcome.unwrap_err(), LoginError::Store(unavailable()));
    assert_eq!(world.twitch.calls(Endpoint::Token), 0);
}

/// CASCADE: whether or not the row was written, no browser will have its cookie.
#[tokio::test(start_paused = true)]
async fn a_failed_insert_leaves_neither_session_nor_token() {
    for trick in [Trick::Fail, Trick::FailAfter] {
        let (world, app) = World::start().await;
        app.faulty_store.next(Method::Insert, trick);
        app.faulty_store.next(Method::Load, Trick::Fail);
        let outcome = world.sign_in_again(&app, ADA, None).await;
        assert_eq!(outcome.unwrap_err(), LoginError::Store(unavailable()));
        world.run_for(SECOND).await;
        assert_no_trace(&world, &app).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_stored_when_the_store_is_back() {
    let (world, app) = World::start().await;
    let gate = app.faulty_store.hold_before(Method::Insert);
    let attempt = world.sign_in_again(&app, ADA, None);
    let outage = async {
        gate.arrived().await;
        app.faulty_store.down(true);
        app.faulty_store.next(Method::Insert, Trick::Pass);
        gate.open();
    };
    // The insert under way succeeds; what follows it does not matter here.
    let (outcome, ()) = tokio::join!(attempt, outage);
    outcome.unwrap();

    app.faulty_store.down(false);
    let held = world.twitch.hold(Endpoint::Validate);
    world.twitch.always(Endpoint::Validate, FaultKind::status(500));
    let outage = async {
        held.arrived().await;
        app.faulty_store.down(true);
        held.open();
    };
    let attempt = tokio::time::timeout(5 * SECOND, world.sign_in_again(&app, ADA, None));
    let (outcome, ()) = tokio::join!(attempt, outage);
    let error = outcome.expect("the user is not kept waiting for the store").unwrap_err();
    assert!(matches!(error, LoginError::ProviderUnavailable { .. }), "{error}");
    world.run_for(60 * SECOND).await;
    assert_eq!(world.owed().await, 0);
    app.faulty_store.down(false);
    world.run_for(10 * SECOND).await;
    assert_eq!(world.owed().await, 1, "CASCADE");
}

/// O22: the browser's old session must not stay behind without a cookie.
#[tokio::test(start_paused = true)]
async fn an_unreadable_old_session_fails_the_sign_in() {
    let (world, app) = World::start().await;
    let old = world.sign_in(&app, ADA).await;
    app.faulty_store.next(Method::Load, Trick::Fail);
    let outcome = world.sign_in_again(&app, ADA, Some(&old.cookie)).await;
    world.run_for(SECOND).await;
    if outcome.is_ok() {
        assert_eq!(world.end_reason(old.session).await, Some(EndReason::ReplacedBySignIn));
    } else {
        old.asks(&app).await.expect("nothing ended");
        assert_eq!(app.devices(&subject(ADA)).await.unwrap().len(), 1, "nothing began");
    }
}

/// An insert with an unknown outcome may have ended the browser's old session, so this process must
/// not serve it.
#[tokio::test(start_paused = true)]
async fn a_session_that_an_insert_may_have_ended_is_not_served_from_memory() {
    let (world, app) = World::start().await;
    let old = world.sign_in(&app, ADA).await;
    old.asks(&app).await.unwrap();
    world.pass(SECOND);
    app.faulty_store.next(Method::Insert, Trick::FailAfter);
    let new = world.sign_in_again(&app, ADA, Some(&old.cookie)).await.expect("the row stands after all");
    world.run_for(SECOND).await;
    new.asks(&app).await.expect("TRANSIENT");
    assert_eq!(world.end_reason(old.session).await, Some(EndReason::ReplacedBySignIn));
    for assurance in [claviger_core::request::Assurance::Cookie, claviger_core::request::Assurance::Session] {
        assert!(old.asks_with(&app, assurance).await.is_err(), "ENDED with {assurance:?}");
    }
}
