//! A provider that lacks a capability: its endpoint is never called, and what follows is decided
//! without it.

use claviger_core::{Assurance, Custody, EndReason, State, limits};
use claviger_engine::{Denied, WebhookError};
use claviger_mock::{Endpoint, FaultKind};

use crate::{
    crowd::{crowded, parked},
    webhook_events::subscribed,
    world::{ADA, DAY, GRACE, HOUR, MINUTE, NOW, SECOND, Setup, TOKEN_LIFE, World},
};

fn without_validation(setup: &mut Setup) {
    setup.provider.capabilities.validation = None;
}

fn without_revocation(setup: &mut Setup) {
    setup.provider.capabilities.revocation = None;
}

fn without_connection_check(setup: &mut Setup) {
    setup.provider.capabilities.connection_check = None;
}

impl World {
    fn validations(&self) -> u64 {
        self.twitch.calls(Endpoint::Validate)
    }
}

#[tokio::test(start_paused = true)]
async fn without_validation_a_refresh_is_the_proof() {
    let (world, app) = World::with(without_validation).await;
    let device = world.sign_in(&app, ADA).await;
    assert_eq!(world.validations(), 1, "the sign-in asks whose its token is");
    device.asks(&app).await.unwrap();
    assert_eq!(world.twitch.refreshes(), 0, "the sign-in is a proof for an hour");
    world.pass(HOUR);
    device.asks(&app).await.unwrap();
    assert_eq!(world.twitch.refreshes(), 1);
    device.asks_with(&app, NOW).await.unwrap();
    assert_eq!(world.twitch.refreshes(), 2, "the route asks for the provider's word now");
    let recent = Assurance::Provider { max_age: MINUTE };
    device.asks_with(&app, recent).await.unwrap();
    assert_eq!(world.twitch.refreshes(), 2, "a refresh is a proof for this route too");
    assert_eq!(world.validations(), 1);
    world.assert_nothing_spent_twice();
}

#[tokio::test(start_paused = true)]
async fn without_validation_an_outage_signs_nobody_out() {
    let (world, app) = World::with(without_validation).await;
    let device = world.sign_in(&app, ADA).await;
    world.twitch.always(Endpoint::Token, FaultKind::status(503));
    world.pass(HOUR);
    device.asks(&app).await.expect("TRANSIENT: served while the access token lives");
    let denied = device.asks_with(&app, NOW).await.unwrap_err();
    assert!(matches!(denied, Denied::ProviderUnavailable { .. }), "TRANSIENT: {denied:?}");
    world.mend();
    device.asks_with(&app, NOW).await.expect("LIVE");
    assert_eq!(world.validations(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_validation_the_sweep_parks_and_keeps_alive_but_asks_nothing() {
    let (world, app) = World::with(|setup| {
        without_validation(setup);
        setup.settings.custody = Custody::Server;
        setup.settings.sweep.keep_alive = true;
    })
    .await;
    let kept = world.sign_in(&app, ADA).await;
    let broken = world.plant(GRACE, |row| {
        if let State::Live(active) = &mut row.state {
            active.pair.as_mut().unwrap().refresh = None;
        }
    });
    let broken = broken.await;
    let running = app.run();
    world.run_for(TOKEN_LIFE * 2).await;
    assert!(matches!(world.row(kept.session).await.state, State::Live(_)), "kept alive by refreshes");
    assert!(world.twitch.refreshes() >= 1);
    assert!(matches!(world.row(broken).await.state, State::Parked(_)), "its token expired");
    assert_eq!(world.validations(), 1, "the sign-in's own");
    let load = app.load().expect("it was measured");
    assert!(load.budget_suffices() && load.needed_per_second < f64::EPSILON, "{load:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_validation_word_of_a_disconnect_has_each_session_refreshed() {
    let (world, app, running) = subscribed(|setup| {
        without_validation(setup);
        without_connection_check(setup);
    })
    .await;
    let device = world.sign_in(&app, ADA).await;
    let bystander = world.sign_in(&app, GRACE).await;
    world.run_for(MINUTE).await;
    world.disconnect(ADA);
    world.deliver(&app).await;
    world.run_for(SECOND).await;
    assert!(matches!(world.row(device.session).await.state, State::Suspect(_)), "no proof of it yet");
    assert!(matches!(world.row(bystander.session).await.state, State::Live(_)), "BLAST");
    let denied = device.asks(&app).await.unwrap_err();
    assert!(matches!(denied, Denied::Ended(EndReason::RefreshTokenRejected)), "{denied:?}");
    bystander.asks(&app).await.expect("BLAST");
    world.run_for(DAY).await;
    assert_eq!(world.twitch.calls(Endpoint::HelixAuthorizationUsers), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_validation_a_lost_answer_is_replayed_as_the_habits_allow() {
    let (world, app) = World::with(|setup| {
        without_validation(setup);
        setup.mock.rotation = claviger_mock::Rotation::Rotates;
    })
    .await;
    let device = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    world.twitch.once(Endpoint::Token, FaultKind::CloseAfter);
    device.asks(&app).await.expect_err("the answer is lost");
    world.pass(limits::CLAIM_LEASE);
    world.wait_out();
    device.asks(&app).await.expect("LIVE");
    assert_eq!((world.validations(), world.twitch.refreshes()), (1, 2), "SPENT: sent once more");
}

#[tokio::test(start_paused = true)]
async fn without_revocation_nothing_stays_owed() {
    let (world, app) = World::with(without_revocation).await;
    let device = world.sign_in(&app, ADA).await;
    app.end_own(&device.cookie, EndReason::SignedOut).await.unwrap();
    app.carry_out_revocations().await.unwrap();
    assert_eq!(world.owed().await, 0, "CASCADE: not owed, the provider has none");
    assert_eq!(world.twitch.calls(Endpoint::Revoke), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_check_each_session_is_on_its_own() {
    let (world, app) = World::with(|setup| {
        crowded(setup);
        without_connection_check(setup);
    })
    .await;
    let away = world.plant_in(9, ADA, parked).await;
    app.check_due_connections().await.unwrap();
    let devices = world.sign_in_on(&app, 2).await;
    let token = world.access_token(devices[0].session).await;
    assert!(world.twitch.mock().kill_token(&token));
    devices[0].asks_with(&app, NOW).await.expect("its refresh token lives");
    world.disconnect(ADA);
    world.expire_tokens();
    world.pass(DAY * 10);
    devices[0].asks(&app).await.unwrap_err();
    assert_eq!(world.look_into_suspicions(&app).await, 1, "it is closed at once");
    assert_eq!(world.end_reason(devices[1].session).await, None, "BLAST");
    assert_eq!(world.end_reason(away).await, None);
    devices[1].asks(&app).await.unwrap_err();
    assert_eq!(world.end_reason(devices[1].session).await, Some(EndReason::RefreshTokenRejected));
    assert_eq!(world.twitch.calls(Endpoint::HelixAuthorizationUsers), 0);
    assert_eq!(world.twitch.mock().token_calls("client_credentials"), 0, "no app token is needed");
}

#[tokio::test(start_paused = true)]
async fn without_webhook_events_no_message_is_taken() {
    let (world, app, running) = subscribed(|_| {}).await;
    world.sign_in(&app, ADA).await;
    world.run_for(MINUTE).await;
    world.disconnect(ADA);
    running.stop().await;
    let mut without = World { provider: world.provider.clone(), ..world };
    without.provider.capabilities.webhook_events = None;
    let app = without.listening().await;
    assert!(!app.wants_webhook_events());
    assert_eq!(without.deliver(&app).await, [Err(WebhookError::Unwanted)]);
    let asked = without.twitch.calls(Endpoint::HelixEventsubSubscriptions);
    let running = app.run();
    without.run_for(HOUR).await;
    assert_eq!(without.twitch.calls(Endpoint::HelixEventsubSubscriptions), asked, "nothing is subscribed");
    running.stop().await;
}
