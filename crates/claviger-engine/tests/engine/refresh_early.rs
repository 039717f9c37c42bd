//! Refreshes before they are due, and what spreads them: backoffs, breaker, budget.

use std::{collections::BTreeMap, time::Duration};

use claviger_core::{BreakerState, State, limits};
use claviger_engine::Denied;
use claviger_mock::{Endpoint, FaultKind};
use futures_util::future::join_all;

use crate::world::{
    ADA, Browser, GRACE, HOUR, Instance, MINUTE, ONE_TIME, ROTATES, SECOND, TOKEN_LIFE, World, habits,
    passing,
};

/// Users who signed in at the same moment.
async fn crowd(world: &World, app: &Instance, users: usize) -> Vec<Browser> {
    let mut browsers = Vec::new();
    for n in 0..users {
        let name = if n % 2 == 0 { ADA } else { GRACE };
        browsers.push(world.sign_in(app, name).await);
    }
    browsers
}

fn many_devices(setup: &mut crate::world::Setup) {
    setup.settings.devices_per_user = 1000;
    setup.mock.live_token_limit = claviger_mock::LiveTokenLimit::Off;
}

#[tokio::test(start_paused = true)]
async fn early_refreshes_are_spread() {
    let (world, app) = World::with(many_devices).await;
    let browsers = crowd(&world, &app, 60).await;
    let margin = world.settings.lifetimes.refresh_margin;
    world.pass(3 * HOUR);
    for browser in &browsers {
        browser.asks(&app).await.expect("the last proof of the pair");
    }
    world.pass(TOKEN_LIFE - margin - 11 * MINUTE - 3 * HOUR);
    let mut refreshed_in = BTreeMap::<u32, u64>::new();
    for minute in 0..11 {
        let before = world.twitch.refreshes();
        for browser in &browsers {
            browser.grant(&app).await.expect("the old token still works");
        }
        world.rest().await;
        refreshed_in.insert(minute, world.twitch.refreshes() - before);
        world.pass(MINUTE);
    }
    assert_eq!(refreshed_in[&0], 0, "not more than the spread before it must be");
    let busiest = refreshed_in.values().max().unwrap();
    assert!(refreshed_in.values().sum::<u64>() >= 50 && *busiest <= 15, "{refreshed_in:?}");
    world.assert_nothing_spent_twice();
}

#[tokio::test(start_paused = true)]
async fn an_early_refresh_delays_no_request() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.pass(TOKEN_LIFE - world.settings.lifetimes.refresh_margin - MINUTE / 60);
    browser.asks(&app).await.expect("a fresh proof, which keeps the proof out of what follows");
    let gate = world.twitch.hold(Endpoint::Token);
    let generation = world.row(browser.session).await.generation();
    while world.twitch.refreshes() == 0 {
        browser.asks(&app).await.expect("served with the old token");
        world.rest().await;
        world.pass(SECOND / 100);
    }
    assert!(world.row(browser.session).await.active().unwrap().claim.is_some(), "under way");
    browser.asks(&app).await.expect("served with the old token");
    gate.open();
    world.rest().await;
    assert!(world.row(browser.session).await.generation() > generation);
    assert_eq!(world.twitch.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_early_refresh_backs_off() {
    let (world, app) = World::with(habits(ROTATES)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.twitch.always(Endpoint::Token, FaultKind::status(404));
    world.pass(TOKEN_LIFE - world.settings.lifetimes.refresh_margin - SECOND);
    let requests = 100;
    for _ in 0..requests {
        browser.asks(&app).await.expect("TRANSIENT: the token lives");
        world.rest().await;
        world.pass(SECOND / 4);
    }
    let tries = world.twitch.refreshes();
    assert!((2..8).contains(&tries), "{tries} tries for {requests} requests in 25 seconds");
    world.mend();
    browser.asks(&app).await.expect("LIVE");
    assert!(matches!(world.row(browser.session).await.state, State::Live(_)));
}

#[tokio::test(start_paused = true)]
async fn the_breaker_closes_after_one_good_trial() {
    let (world, app) = World::with(|setup| {
        habits(ONE_TIME)(setup);
        many_devices(setup);
    })
    .await;
    let browsers = crowd(&world, &app, 20).await;
    world.expire_tokens();
    world.twitch.always(Endpoint::Token, FaultKind::status(429));
    for browser in browsers.iter().take(2) {
        assert!(passing(&browser.asks(&app).await));
    }
    assert_eq!(app.report().await.breakers.refreshes, BreakerState::Open);
    let asked = world.twitch.refreshes();
    for outcome in join_all(browsers.iter().map(|browser| browser.asks(&app))).await {
        assert!(
            matches!(outcome, Err(Denied::ProviderUnavailable { retry_after }) if retry_after <= limits::RETRY_AFTER)
        );
    }
    assert_eq!(world.twitch.refreshes(), asked, "left alone");
    world.pass(limits::RETRY_AFTER);
    assert_eq!(app.report().await.breakers.refreshes, BreakerState::HalfOpen);
    let outcomes = join_all(browsers.iter().map(|browser| browser.asks(&app))).await;
    assert!(outcomes.iter().all(passing));
    assert_eq!(world.twitch.refreshes(), asked + 1, "one to see whether it is back");
    world.twitch.mend();
    world.pass(limits::PROVIDER_PAUSE_MAX);
    let first = join_all(browsers.iter().map(|browser| browser.asks(&app))).await;
    assert_eq!(first.iter().filter(|outcome| outcome.is_ok()).count(), 1, "it is back");
    assert_eq!(app.report().await.breakers.refreshes, BreakerState::Closed);
    for outcome in join_all(browsers.iter().map(|browser| browser.asks(&app))).await {
        outcome.expect("LIVE");
    }
    world.assert_nothing_spent_twice();
}

#[tokio::test(start_paused = true)]
async fn many_refreshes_stay_within_the_budget() {
    let (world, app) = World::with(|setup| {
        habits(ONE_TIME)(setup);
        many_devices(setup);
        setup.settings.refreshes_per_second = 5;
    })
    .await;
    let browsers = crowd(&world, &app, 100).await;
    world.expire_tokens();
    world.twitch.mock().clear_log();
    let outcomes = join_all(browsers.iter().map(|browser| browser.asks(&app))).await;
    let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let most = 2 * 5 + 5 * usize::try_from(limits::ADOPTION_WAIT.as_secs()).unwrap();
    assert!((most - 5..=most).contains(&served), "{served}");
    for outcome in outcomes.iter().filter(|outcome| outcome.is_err()) {
        assert!(passing(outcome), "LOSER {outcome:?}");
    }
    let sent: Vec<i64> = world.twitch.refresh_times();
    for from in &sent {
        for window in [SECOND, 3 * SECOND] {
            let until = from + i64::try_from(window.as_millis()).unwrap();
            let count = sent.iter().filter(|at| (*from..until).contains(at)).count();
            let allowed = 10 + 5 * usize::try_from(window.as_secs()).unwrap();
            assert!(count <= allowed, "{count} refreshes in {window:?}");
        }
    }
    world.pass(Duration::from_secs(1));
    for _ in 0..3 {
        join_all(browsers.iter().map(|browser| browser.asks(&app))).await;
        world.pass(limits::ADOPTION_WAIT);
    }
    for outcome in join_all(browsers.iter().map(|browser| browser.asks(&app))).await {
        outcome.expect("LIVE");
    }
    world.assert_nothing_spent_twice();
}
