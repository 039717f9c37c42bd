//! Unused pairs in the server's custody: kept alive if configured, and parked otherwise.

use std::time::Duration;

use claviger_core::{Cascade, Custody, EndReason, State};
use claviger_mock::{Endpoint, Fault, FaultKind, Rotation};

use crate::{
    crowd::slot,
    world::{ADA, DAY, GRACE, HOUR, Instance, MINUTE, SECOND, Setup, TOKEN_LIFE, World, habits},
};

fn kept(custody: Custody, keep_alive: bool) -> impl FnOnce(&mut Setup) {
    move |setup| {
        setup.settings.custody = custody;
        setup.settings.sweep.keep_alive = keep_alive;
        setup.mock.live_token_limit = claviger_mock::LiveTokenLimit::Off;
    }
}

async fn after_a_day(setup: impl FnOnce(&mut Setup)) -> (World, Instance, State) {
    let (world, app) = World::with(setup).await;
    let id = world.sign_in(&app, ADA).await.session;
    let seen_at = world.row(id).await.last_seen_at;
    let running = app.run();
    world.run_hourly(DAY).await;
    running.stop().await;
    let row = world.row(id).await;
    assert_eq!(row.last_seen_at, seen_at, "IDLE");
    (world, app, row.state)
}

#[tokio::test(start_paused = true)]
async fn a_kept_pair_lives_through_a_day_without_a_request() {
    let (world, _, state) = after_a_day(kept(Custody::Server, true)).await;
    let State::Live(active) = state else { panic!("{state:?}") };
    assert!(!active.pair.unwrap().expiry.passed(world.now()));
    let refreshes = world.twitch.refreshes();
    assert!((6..=9).contains(&refreshes), "{refreshes} refreshes of tokens that live for {TOKEN_LIFE:?}");
    world.assert_nothing_spent_twice();
}

#[tokio::test(start_paused = true)]
async fn other_pairs_are_parked_when_their_token_expires() {
    for custody in [Custody::Server, Custody::Device] {
        let (world, _, state) = after_a_day(kept(custody, false)).await;
        assert!(matches!(state, State::Parked(_)), "{custody:?}: {state:?}");
        assert_eq!(world.twitch.refreshes(), 0);
    }
}

/// The custody of a session is that of its begin.
#[tokio::test(start_paused = true)]
async fn a_pair_that_only_its_device_can_open_is_parked_while_others_are_kept() {
    let (mut world, app) = World::with(kept(Custody::Device, false)).await;
    let id = world.sign_in(&app, ADA).await.session;
    world.settings.custody = Custody::Server;
    world.settings.sweep.keep_alive = true;
    let running = world.instance().await.run();
    world.run_hourly(DAY).await;
    running.stop().await;
    let state = world.row(id).await.state;
    assert!(matches!(state, State::Parked(_)), "{state:?}");
    assert_eq!(world.twitch.refreshes(), 0);
}

/// Refreshes fail while validations work: each row is tried again and again, the others are proven
/// as before, and in the end every pair lives.
#[tokio::test(start_paused = true)]
async fn an_outage_of_refreshes_does_not_stop_validations() {
    // After two answers of 502 the token's state is unknown, and only the device could recover
    // (SPENT).
    for status in [429, 503] {
        let (world, app) = World::with(|setup| {
            kept(Custody::Server, true)(setup);
            // A lost answer can be recovered from, as at the real provider.
            habits(crate::world::ROTATES)(setup);
            setup.mock.rotation = Rotation::Rotates;
        })
        .await;
        for number in 0..12 {
            world.plant_in(slot(number * 80), ADA, |_| {}).await;
        }
        let running = app.run();
        world.run_hourly(HOUR).await;
        world.twitch.always(Endpoint::Token, FaultKind::status(status));
        // Until the tokens expire and beyond: while they live they are proven.
        world.run_hourly(TOKEN_LIFE - HOUR - 10 * MINUTE).await;
        let fresh = world.plant(GRACE, |_| {}).await;
        world.run_for(3 * HOUR).await;
        let row = world.row(fresh).await;
        let age = world.now().since(row.active().unwrap().proven_at);
        assert!(age <= HOUR, "HOURLY {status}: {age:?}");
        assert_eq!(world.open_rows().await.len(), 13, "TRANSIENT");
        let asked = world.twitch.refreshes();
        assert!(asked < 13 * 60, "it is left alone meanwhile: {asked} tries");
        world.twitch.mend();
        world.run_for(20 * MINUTE).await;
        for row in world.open_rows().await {
            assert!(matches!(row.state, State::Live(_)), "LIVE {status}: {:?}", row.state);
            assert!(!row.pair().unwrap().expiry.passed(world.now()), "LIVE {status}");
        }
        world.assert_nothing_spent_twice();
        running.stop().await;
    }
}

/// Validations are down for longer than the tokens live, but a refresh still saves each pair.
#[tokio::test(start_paused = true)]
async fn an_outage_of_validations_parks_no_kept_pair() {
    let (world, app) = World::with(kept(Custody::Server, true)).await;
    for number in 0..12 {
        world.plant_in(slot(number * 80), ADA, |_| {}).await;
    }
    let running = app.run();
    world.run_hourly(HOUR).await;
    world.twitch.always(Endpoint::Validate, FaultKind::status(503));
    world.run_for(5 * HOUR).await;
    world.twitch.mend();
    world.run_for(HOUR).await;
    for row in world.open_rows().await {
        assert!(matches!(row.state, State::Live(_)), "{:?}", row.state);
        assert!(!row.pair().unwrap().expiry.passed(world.now()));
    }
    running.stop().await;
}

/// Whether the refresh token is spent is unknown, and no second attempt is allowed. The old access
/// token is validated while it lives, and then the row is parked.
#[tokio::test(start_paused = true)]
async fn a_pair_that_no_refresh_saves_is_validated_until_it_expires() {
    let (world, app) = World::with(|setup| {
        kept(Custody::Server, true)(setup);
        habits(crate::world::ONE_TIME)(setup);
    })
    .await;
    let id = world.plant(ADA, |_| {}).await;
    world.twitch.always(Endpoint::Token, FaultKind::CloseAfter);
    let running = app.run();
    world.run_hourly(TOKEN_LIFE - MINUTE).await;
    assert!(matches!(world.row(id).await.state, State::Live(_)));
    world.run_for(HOUR).await;
    assert!(matches!(world.row(id).await.state, State::Parked(_)));
    assert_eq!(world.twitch.refreshes(), 1, "SPENT");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_in_the_servers_custody_is_replaced_at_once() {
    let (world, app) = World::with(kept(Custody::Server, false)).await;
    let id = world.sign_in(&app, ADA).await.session;
    world.pass(HOUR);
    world.twitch.mock().expire_access_tokens(ADA);
    app.sweep_due().await.unwrap();
    let row = world.row(id).await;
    assert!(matches!(row.state, State::Live(_)), "{:?}", row.state);
    assert!(world.twitch.lives(&world.token_of(&row)));
    assert_eq!(world.twitch.refreshes(), 1);
    assert_eq!(world.look_into_suspicions(&app).await, 0, "nothing is wrong with the user");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_that_cannot_be_replaced_delays_no_other() {
    let (world, app) = World::with(kept(Custody::Server, true)).await;
    let id = world.sign_in(&app, ADA).await.session;
    let other = world.sign_in(&app, GRACE).await.session;
    world.pass(HOUR);
    world.twitch.mock().expire_access_tokens(ADA);
    world
        .twitch
        .mock()
        .add_fault(Fault::always(Endpoint::Token, FaultKind::status(503)).grant_type("refresh_token"));
    let asked = world.twitch.calls(Endpoint::Validate);
    tokio::time::timeout(5 * MINUTE, app.sweep_due()).await.expect("it comes to its end").unwrap();
    assert_eq!(world.twitch.calls(Endpoint::Validate), asked + 2, "a dead token is asked about once");
    assert!(matches!(world.row(id).await.state, State::Suspect(_)));
    assert_eq!(world.row(other).await.version.0, 2);
    world.twitch.mend();
    world.look_into_suspicions(&app).await;
    assert_eq!(world.end_reason(id).await, None, "the user is still connected");
}

#[tokio::test(start_paused = true)]
async fn a_dead_refresh_token_ends_its_row_and_checks_the_siblings() {
    for (cascade, others_end) in [(Cascade::Confirm, false), (Cascade::Always, true), (Cascade::Never, false)]
    {
        let (world, app) = World::with(|setup| {
            kept(Custody::Server, true)(setup);
            setup.settings.cascade = cascade;
        })
        .await;
        let devices = world.sign_in_on(&app, 2).await;
        let bystander = world.sign_in(&app, GRACE).await;
        let row = world.row(devices[0].session).await;
        let (access, refresh) = (world.token_of(&row), world.refresh_token_of(&row));
        world.pass(Duration::from_secs(60 * 60));
        world.twitch.mock().kill_token(&access);
        world.twitch.mock().kill_token(&refresh);
        app.sweep_due().await.unwrap();
        world.look_into_suspicions(&app).await;
        assert_eq!(world.end_reason(devices[0].session).await, Some(EndReason::RefreshTokenRejected));
        let expected = others_end.then_some(EndReason::Administrator);
        assert_eq!(world.end_reason(devices[1].session).await, expected, "{cascade:?}");
        assert_eq!(world.end_reason(bystander.session).await, None, "BLAST");
        world.run_for(SECOND).await;
        let asked = world.twitch.calls(Endpoint::HelixAuthorizationUsers);
        assert_eq!(asked, u64::from(cascade == Cascade::Confirm), "{cascade:?}");
    }
}

/// After an outage all pairs expire at once. They are refreshed as fast as the budget allows, and a
/// request waits for only a few of them.
#[tokio::test(start_paused = true)]
async fn many_expiring_pairs_delay_no_request_for_long() {
    let (world, app) = World::with(|setup| {
        crate::crowd::crowded(setup);
        kept(Custody::Server, true)(setup);
        setup.mock.token_lifetime_secs = 4 * 60 * 60;
        setup.settings.refreshes_per_second = 20;
    })
    .await;
    world.populate(40);
    for number in 0..1_600 {
        world.plant_in(slot(10 * (number % 100)), &crate::crowd::user(number % 40), |_| {}).await;
    }
    let mut browsers = Vec::new();
    for _ in 0..12 {
        browsers.push(world.sign_in(&app, ADA).await);
    }
    world.pass(5 * HOUR);
    world.twitch.slow(SECOND / 10);
    let begun = world.now();
    let running = app.run();
    let mut waits = Vec::new();
    for browser in &browsers {
        world.run_for(3 * SECOND).await;
        let asked = world.now();
        let outcome = browser.asks(&app).await;
        waits.push((world.now().since(asked), outcome.map(drop)));
    }
    while world.twitch.refreshes() < 1_612 && world.now().since(begun) < 20 * MINUTE {
        world.run_for(SECOND).await;
    }
    let took = world.now().since(begun);
    running.stop().await;
    assert!(waits.iter().all(|(wait, outcome)| outcome.is_ok() && *wait < 5 * SECOND), "{waits:?}");
    assert!(took < 2 * MINUTE, "1,600 at 20 a second: {took:?}");
}
