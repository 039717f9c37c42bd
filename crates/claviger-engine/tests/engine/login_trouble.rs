//! Sign-ins that fail after the provider issued a token: no session begins, and the token is owed a revocation.

use claviger_core::{return_to::ReturnTo, session::EndReason};
use claviger_engine::LoginError;
use claviger_mock::{DEMO_CLIENT_ID, Endpoint, FaultKind, RetryAfter};
use claviger_seal::KeyId;
use claviger_store::Method;

use crate::{
    shelf::{Trick, unavailable},
    world::{ADA, Instance, SECOND, World, subject},
};

/// No session, no live token once what is owed was carried out, and the next sign-in works.
async fn assert_no_trace(world: &World, app: &Instance) {
    world.rest().await;
    assert_eq!(app.devices(&subject(ADA)).await.unwrap(), [], "no session began");
    assert!(world.owed().await > 0, "the revocation is owed");
    world.mend();
    app.settle_owed().await.unwrap();
    assert_eq!(world.owed().await, 0);
    assert_eq!(world.twitch.mock().live_access_tokens(ADA), 0, "CASCADE");
    world.sign_in(app, ADA).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_for_another_app_or_for_no_user_begins_no_session() {
    for field in ["client_id", "user_id"] {
        let (world, app) = World::start().await;
        world.twitch.rewrite(Endpoint::Validate, move |body| {
            body[field] = if field == "client_id" { "other".into() } else { serde_json::Value::Null };
        });
        let outcome = world.sign_in_again(&app, ADA, None).await;
        assert_eq!(outcome.unwrap_err(), LoginError::NotOurToken, "{field}");
        assert_no_trace(&world, &app).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_dead_on_arrival_begins_no_session() {
    let (world, app) = World::start().await;
    world.twitch.once(
        Endpoint::Validate,
        FaultKind::Status {
            status: 401,
            body: r#"{"status":401,"message":"invalid access token"}"#.to_owned(),
            retry_after: None,
        },
    );
    assert_eq!(world.sign_in_again(&app, ADA, None).await.unwrap_err(), LoginError::NotOurToken);
    assert_no_trace(&world, &app).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_provider_cannot_confirm_begins_no_session() {
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
        let LoginError::ProviderTrouble { retry_after } = error else { panic!("{kind:?}: {error}") };
        if matches!(kind, FaultKind::Status { status: 429, .. }) {
            assert_eq!(retry_after, 7 * SECOND);
        }
        assert_eq!(world.twitch.calls(Endpoint::Validate), 2, "{kind:?}: asked twice at most");
        assert_no_trace(&world, &app).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_unknown_answer_is_asked_about_again() {
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
async fn a_sign_in_that_fails_ends_no_session_of_the_browser() {
    let (world, app) = World::start().await;
    let old = world.sign_in(&app, ADA).await;
    world.twitch.always(Endpoint::Validate, FaultKind::status(500));
    world.sign_in_again(&app, ADA, Some(&old.cookie)).await.unwrap_err();
    old.asks(&app).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn our_own_wrong_credentials_are_the_operators_matter() {
    let (world, app) = World::with(|setup| {
        setup.provider.client_secret = claviger_core::secret::ClientSecret::new("wrong");
    })
    .await;
    assert_eq!(world.sign_in_again(&app, ADA, None).await.unwrap_err(), LoginError::Misconfigured);
}

#[tokio::test(start_paused = true)]
async fn a_dead_code_is_told_as_such() {
    let (world, app) = World::start().await;
    let started = app.begin_login(ReturnTo::root(), false);
    let callback = world.agree(ADA, &started);
    world.twitch.mock().disconnect(ADA, DEMO_CLIENT_ID);
    let outcome = app.finish_login(callback, Some(&started.cookie), None, "").await;
    assert_eq!(outcome.unwrap_err(), LoginError::CodeRejected);
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_sealed_with_a_missing_key_is_the_operators_matter() {
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
    app.shelf.down(true);
    let outcome = world.sign_in_again(&app, ADA, None).await;
    assert_eq!(outcome.unwrap_err(), LoginError::Store(unavailable()));
    assert_eq!(world.twitch.calls(Endpoint::Token), 0);
}

/// CASCADE: whether the row was written or not, nobody will hold its cookie.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_the_insert_leaves_neither_session_nor_token() {
    for trick in [Trick::Fail, Trick::FailAfter] {
        let (world, app) = World::start().await;
        app.shelf.next(Method::Insert, trick);
        app.shelf.next(Method::Load, Trick::Fail);
        let outcome = world.sign_in_again(&app, ADA, None).await;
        assert_eq!(outcome.unwrap_err(), LoginError::Store(unavailable()));
        world.run_for(SECOND).await;
        assert_no_trace(&world, &app).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_owed_as_soon_as_the_store_is_back() {
    let (world, app) = World::start().await;
    let gate = app.shelf.hold_before(Method::Insert);
    let attempt = world.sign_in_again(&app, ADA, None);
    let outage = async {
        gate.arrived().await;
        app.shelf.down(true);
        app.shelf.next(Method::Insert, Trick::Pass);
        gate.open();
    };
    // The insert that was under way succeeds; what follows it does not matter here.
    let (outcome, ()) = tokio::join!(attempt, outage);
    outcome.unwrap();

    app.shelf.down(false);
    let held = world.twitch.hold(Endpoint::Validate);
    world.twitch.always(Endpoint::Validate, FaultKind::status(500));
    let outage = async {
        held.arrived().await;
        app.shelf.down(true);
        held.open();
    };
    let attempt = tokio::time::timeout(5 * SECOND, world.sign_in_again(&app, ADA, None));
    let (outcome, ()) = tokio::join!(attempt, outage);
    let error = outcome.expect("the user is not kept waiting for the store").unwrap_err();
    assert!(matches!(error, LoginError::ProviderTrouble { .. }), "{error}");
    world.run_for(60 * SECOND).await;
    assert_eq!(world.owed().await, 0);
    app.shelf.down(false);
    world.run_for(10 * SECOND).await;
    assert_eq!(world.owed().await, 1, "CASCADE");
}

/// O22: the browser's old session must not stay behind without a cookie.
#[tokio::test(start_paused = true)]
async fn an_old_session_that_cannot_be_read_is_not_left_behind() {
    let (world, app) = World::start().await;
    let old = world.sign_in(&app, ADA).await;
    app.shelf.next(Method::Load, Trick::Fail);
    let outcome = world.sign_in_again(&app, ADA, Some(&old.cookie)).await;
    world.run_for(SECOND).await;
    if outcome.is_ok() {
        assert_eq!(world.end_reason(old.session).await, Some(EndReason::ReplacedBySignIn));
    } else {
        old.asks(&app).await.expect("nothing ended");
        assert_eq!(app.devices(&subject(ADA)).await.unwrap().len(), 1, "nothing began");
    }
}

/// An insert whose outcome is unknown may have ended the browser's old session: this process must not go on with it.
#[tokio::test(start_paused = true)]
async fn what_an_insert_ended_unnoticed_is_not_served_from_memory() {
    let (world, app) = World::start().await;
    let old = world.sign_in(&app, ADA).await;
    old.asks(&app).await.unwrap();
    world.pass(SECOND);
    app.shelf.next(Method::Insert, Trick::FailAfter);
    let new = world.sign_in_again(&app, ADA, Some(&old.cookie)).await.expect("the row stands after all");
    world.run_for(SECOND).await;
    new.asks(&app).await.expect("TRANSIENT");
    assert_eq!(world.end_reason(old.session).await, Some(EndReason::ReplacedBySignIn));
    for assurance in [claviger_core::request::Assurance::Cookie, claviger_core::request::Assurance::Session] {
        assert!(old.asks_with(&app, assurance).await.is_err(), "ENDED with {assurance:?}");
    }
}
