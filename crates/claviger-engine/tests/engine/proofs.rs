//! What a validation proves, and how long a session lives on answers that prove nothing.

use claviger_core::{Assurance, EndReason, State};
use claviger_engine::Denied;
use claviger_mock::{Endpoint, FaultKind, MalformedBody, RetryAfter};

use crate::world::{ADA, GRACE, HOUR, MINUTE, NOW, SECOND, World, passing};

/// Every failure that proves nothing (TRANSIENT).
pub(crate) fn troubles() -> Vec<FaultKind> {
    vec![
        FaultKind::too_many_requests(None),
        FaultKind::too_many_requests(Some(RetryAfter::DateInSeconds(30))),
        FaultKind::status(404),
        FaultKind::status(408),
        FaultKind::status(500),
        FaultKind::status(502),
        FaultKind::status(503),
        FaultKind::status(403),
        FaultKind::CloseBefore,
        FaultKind::CloseAfter,
        FaultKind::delay(MINUTE),
        FaultKind::Malformed { body: MalformedBody::Garbage },
        FaultKind::Malformed { body: MalformedBody::Truncated },
        FaultKind::Malformed { body: MalformedBody::Html },
        FaultKind::Malformed { body: MalformedBody::OtherShape },
        FaultKind::Status { status: 401, body: "<html>proxy login</html>".to_owned(), retry_after: None },
        FaultKind::Status {
            status: 401,
            body: r#"{"status":401,"message":"missing authorization token"}"#.to_owned(),
            retry_after: None,
        },
    ]
}

#[tokio::test(start_paused = true)]
async fn a_proof_lasts_an_hour() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let at_sign_in = world.twitch.calls(Endpoint::Validate);
    world.pass(HOUR - MINUTE / 60_000);
    browser.asks(&app).await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::Validate), at_sign_in);
    world.pass(MINUTE / 60_000);
    for _ in 0..5 {
        browser.asks(&app).await.unwrap();
    }
    assert_eq!(world.twitch.calls(Endpoint::Validate), at_sign_in + 1);
    assert_eq!(world.row(browser.session).await.active().unwrap().proven_at, world.now());
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_one_validation() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let at_sign_in = world.twitch.calls(Endpoint::Validate);
    world.pass(HOUR);
    let outcomes = futures_util::future::join_all((0..50).map(|_| browser.asks(&app))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(world.twitch.calls(Endpoint::Validate), at_sign_in + 1);
    assert_eq!(world.row(browser.session).await.version.0, 2, "MONO: one change");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_proves_nothing_signs_nobody_out() {
    for kind in troubles() {
        let (world, app) = World::start().await;
        let browser = world.sign_in(&app, ADA).await;
        world.twitch.always(Endpoint::Validate, kind.clone());
        for hours in 1..=3 {
            world.pass(HOUR);
            browser.asks(&app).await.unwrap_or_else(|denied| panic!("{kind:?} after {hours} h: {denied}"));
            browser.grant(&app).await.unwrap();
            browser.asks_with(&app, Assurance::Cookie).await.unwrap();
            assert!(passing(&browser.asks_with(&app, NOW).await), "{kind:?}");
        }
        let row = world.row(browser.session).await;
        assert!(matches!(row.state, State::Live(_)), "TRANSIENT {kind:?}: {:?}", row.state);
        assert_eq!(world.twitch.refreshes(), 0);
        world.mend();
        browser.asks_with(&app, NOW).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_may_be_unproven_for_a_day() {
    let (world, app) = World::with(|setup| setup.mock.token_lifetime_secs = 60 * 24 * 60 * 60).await;
    let browser = world.sign_in(&app, ADA).await;
    let born = world.now();
    let bound = world.settings.lifetimes.max_unverified;
    world.twitch.always(Endpoint::Validate, FaultKind::status(503));
    world.twitch.always(Endpoint::Token, FaultKind::status(503));
    world.clock.jump_to(born.after(bound - SECOND / 1000));
    browser.asks(&app).await.expect("a millisecond before the bound");
    world.clock.jump_to(born.after(bound));
    assert!(passing(&browser.asks(&app).await), "TRANSIENT");
    assert!(matches!(world.row(browser.session).await.state, State::Parked(_)));
    world.mend();
    browser.asks(&app).await.expect("refreshed");
    let row = world.row(browser.session).await;
    assert!(matches!(row.state, State::Live(_)));
    assert_eq!(world.twitch.mock().token_calls("refresh_token"), 2);
    world.assert_nothing_spent_twice();
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_user_ends_only_its_row() {
    for value in [serde_json::json!(GRACE), serde_json::Value::Null] {
        let (world, app) = World::start().await;
        let devices = world.sign_in_on(&app, 3).await;
        let token = world.access_token(devices[1].session).await;
        world.twitch.rewrite(Endpoint::Validate, move |body| body["user_id"] = value.clone());
        let outcome = devices[1].asks_with(&app, NOW).await;
        assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::TokenOfAnotherSubject));
        world.mend();
        world.rest().await;
        for (index, device) in devices.iter().enumerate() {
            let expected = (index == 1).then_some(EndReason::TokenOfAnotherSubject);
            assert_eq!(world.end_reason(device.session).await, expected, "BLAST");
        }
        devices[0].asks_with(&app, NOW).await.unwrap();
        world.assert_revoked(&app, &token).await;
    }
}

/// The operator changed the client id: every stored token belongs to another client, and no session
/// ends.
#[tokio::test(start_paused = true)]
async fn a_token_of_another_client_signs_nobody_out() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 2).await;
    world.twitch.rewrite(Endpoint::Validate, |body| body["client_id"] = "other".into());
    world.pass(HOUR);
    for device in &devices {
        device.asks(&app).await.expect("TRANSIENT");
        assert!(passing(&device.asks_with(&app, NOW).await), "but the provider does not vouch");
        assert!(matches!(world.row(device.session).await.state, State::Live(_)), "TRANSIENT");
    }
    world.mend();
    devices[0].asks_with(&app, NOW).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rejected_access_token_is_refreshed_unnoticed() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 2).await;
    let token = world.access_token(devices[0].session).await;
    world.twitch.mock().kill_token(&token);
    world.pass(HOUR);
    devices[0].asks(&app).await.unwrap();
    assert_ne!(world.access_token(devices[0].session).await, token);
    assert_eq!(world.row(devices[1].session).await.version.0, 1, "BLAST");
    assert_eq!(world.twitch.refreshes(), 1);
}

/// A suspect session without a refresh token: the user has to sign in, and the row stays.
#[tokio::test(start_paused = true)]
async fn a_suspect_session_without_a_refresh_token_asks_for_a_sign_in() {
    let (world, app) = World::start().await;
    world.twitch.rewrite(Endpoint::Token, |body| drop(body.as_object_mut().unwrap().remove("refresh_token")));
    let browser = world.sign_in(&app, ADA).await;
    world.twitch.mock().expire_access_tokens(ADA);
    for _ in 0..2 {
        assert_eq!(browser.asks_with(&app, NOW).await.unwrap_err(), Denied::SignInAgain);
    }
    assert_eq!(world.end_reason(browser.session).await, None);
}

/// A proof that was requested before the pair changed does not count for the new pair.
#[tokio::test(start_paused = true)]
async fn an_answer_about_an_older_pair_changes_nothing() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    // This instance validates the expired token and gets 401 while the other refreshes.
    world.clock.jump(MINUTE);
    let old = world.row(browser.session).await;
    world.twitch.mock().settings_mut().token_lifetime_secs = 50_000;
    let gate = world.twitch.hold(Endpoint::Validate);
    let grant = claviger_engine::Grant {
        token: claviger_core::AccessToken::new(world.token_of(&old)),
        generation: old.pair().unwrap().generation,
        expiry: old.pair().unwrap().expiry,
    };
    let unclear = claviger_core::verdict::ApiRefusal::Unclear;
    let asking = app.grant_after_refusal(&browser.cookie, &grant, unclear);
    let refresh = async {
        gate.arrived().await;
        browser.asks(&elsewhere).await.unwrap();
        gate.open();
    };
    let (outcome, ()) = tokio::join!(asking, refresh);
    let row = world.row(browser.session).await;
    assert!(matches!(row.state, State::Live(_)), "{:?}", row.state);
    assert_eq!(outcome.unwrap().unwrap().token.expose(), world.token_of(&row));
    assert_eq!(world.twitch.refreshes(), 1, "the newer pair is adopted");
}

/// Found by a random story: an adopted pair that another instance got hours ago is not a proof of
/// now.
#[tokio::test(start_paused = true)]
async fn an_adopted_pair_is_no_new_proof() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    browser.asks(&app).await.unwrap();
    world.expire_tokens();
    browser.asks(&elsewhere).await.unwrap();
    world.pass(MINUTE);
    world.twitch.mock().expire_access_tokens(ADA);
    browser.asks_with(&app, NOW).await.expect("refreshed, since the adopted token is dead");
    assert!(world.twitch.lives(&world.access_token(browser.session).await));
    assert_eq!(world.twitch.refreshes(), 2);
}

/// A request that asks for a proof now is not answered with an earlier question's answer.
#[tokio::test(start_paused = true)]
async fn an_answer_under_way_is_no_new_proof() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let gate = world.twitch.hold(Endpoint::Validate);
    let late = async {
        gate.arrived().await;
        world.twitch.mock().disconnect(ADA, claviger_mock::DEMO_CLIENT_ID);
        world.pass(SECOND);
        let late = browser.asks_with(&app, NOW);
        let open = async { gate.open() };
        tokio::join!(late, open).0
    };
    let (early, late) = tokio::join!(browser.asks_with(&app, NOW), late);
    assert!(matches!(late, Err(Denied::Ended(_))), "{late:?}");
    drop(early);
}

/// One request finds the provider unavailable. The others do not wait for it one by one.
#[tokio::test(start_paused = true)]
async fn retry_after_applies_to_every_request() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 3).await;
    world.pass(HOUR);
    let asked = world.twitch.calls(Endpoint::Validate);
    world.twitch.once(Endpoint::Validate, FaultKind::too_many_requests(Some(RetryAfter::Seconds(20))));
    for _ in 0..5 {
        for device in &devices {
            device.asks(&app).await.expect("TRANSIENT: served meanwhile");
        }
    }
    assert_eq!(world.twitch.calls(Endpoint::Validate), asked + 1);
    let outcome = devices[0].asks_with(&app, NOW).await;
    assert_eq!(outcome.unwrap_err(), Denied::ProviderUnavailable { retry_after: 20 * SECOND });
    world.pass(20 * SECOND);
    for device in &devices {
        device.asks_with(&app, NOW).await.expect("LIVE");
    }
    assert_eq!(world.twitch.calls(Endpoint::Validate), asked + 4);
}
