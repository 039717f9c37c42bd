//! Clocks that are wrong or jump: no stored time of theirs counts, and they end nobody's session.

use std::{sync::atomic::Ordering, time::Duration};

use claviger_core::{AttemptId, Claim, EndReason, Fingerprint, ReturnTo, State, limits};
use claviger_engine::{Denied, LoginError, Target};
use claviger_mock::{Endpoint, FaultKind};
use claviger_store::{Applied, Leftover, Method, Store as _};

use crate::world::{
    ADA, Browser, DAY, HOUR, Instance, MINUTE, ONE_TIME, ROTATES, SECOND, TOKEN_LIFE, World, habits, subject,
};

const UNCONFIRMED: Denied = Denied::ClockUnconfirmed { retry_after: limits::RETRY_AFTER };

/// The world after a claim was written that nobody will release.
async fn claimed(world: &World, browser: &Browser) {
    let row = world.row(browser.session).await;
    let now = world.now();
    let claim = Claim {
        attempt: AttemptId([9; 16]),
        taken_at: now,
        lease_until: now.after(limits::CLAIM_LEASE),
        fingerprint: Fingerprint([9; 16]),
        replay: false,
        answer_lost: false,
    };
    assert_eq!(world.memory.apply(&row.claim(claim).unwrap()).await, Ok(Applied::Done));
}

/// A token that was proven a while ago, and lives for a few seconds more.
async fn almost_expired(world: &World, app: &Instance, browser: &Browser) {
    world.pass(TOKEN_LIFE - HOUR / 2);
    browser.asks(app).await.unwrap();
    world.pass(HOUR / 2 - 20 * SECOND);
}

/// TRANSIENT: at a start, a clock 15 days ahead and 15 days off look alike.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_at_a_start_ends_nobody() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.clock.set_wrong(15 * DAY);
    let app = world.instance().await;
    world.twitch.unplug();
    assert_eq!(browser.asks(&app).await.unwrap_err(), UNCONFIRMED);
    app.end_overdue().await.unwrap();
    world.mend();
    browser.asks(&app).await.expect("the provider says that the clock is ahead");
    app.end_overdue().await.unwrap();
    assert_eq!(world.end_reason(browser.session).await, None);
    assert!(world.row(browser.session).await.pair().is_some(), "nothing is erased");
    let shown = app.report().await.clock;
    let ahead_ms = shown.provider_ahead_ms.unwrap();
    assert_eq!(
        Duration::from_millis(ahead_ms.unsigned_abs()).as_secs().div_ceil(60),
        15 * 24 * 60,
        "{shown:?}"
    );
    world.clock.set_wrong(Duration::ZERO);
    browser.asks(&app).await.expect("the clock is right again");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_idle_ends_once_the_provider_has_confirmed_the_clock() {
    let (world, app) = World::start().await;
    let (browser, other) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
    world.pass(15 * DAY);
    let app = world.instance().await;
    world.twitch.unplug();
    assert_eq!(browser.asks(&app).await.unwrap_err(), UNCONFIRMED);
    app.end_overdue().await.unwrap();
    app.purge().await.unwrap();
    assert_eq!(world.memory.calls(Method::Purge(Leftover::Tombstones)), 0, "nothing is deleted");
    world.mend();
    assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::Idle));
    app.end_overdue().await.unwrap();
    assert_eq!(world.end_reason(other.session).await, Some(EndReason::Idle));
    app.purge().await.unwrap();
    assert_eq!(world.memory.calls(Method::Purge(Leftover::Tombstones)), 1);
}

/// TRANSIENT: a jump makes the provider name its time again.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ends_nobody_and_is_shown() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    assert!(app.report().await.clock.confirmed, "by the sign-in's answers");
    for jump in [365 * DAY, 20 * DAY] {
        world.clock.set_wrong(jump);
        world.twitch.unplug();
        app.end_overdue().await.unwrap();
        assert_eq!(browser.asks(&app).await.unwrap_err(), UNCONFIRMED);
        let shown = app.report().await.clock;
        assert!(!shown.confirmed && shown.last_jump.is_some());
        world.clock.set_wrong(Duration::ZERO);
        world.mend();
        app.end_overdue().await.unwrap();
        browser.asks(&app).await.expect("the clock is right again");
    }
    // Nobody looked between the first way back and the second way ahead.
    assert_eq!(app.report().await.clock.jumps, 3);
}

/// CLOCK: what was proven while the clock was ahead is proven again.
#[tokio::test(start_paused = true)]
async fn a_proof_from_the_future_is_asked_for_again() {
    for sweeps in [false, true] {
        let (world, app) = World::start().await;
        let browser = world.sign_in(&app, ADA).await;
        world.clock.set_wrong(DAY);
        browser.asks(&app).await.expect("its token seems to have expired, so it is refreshed");
        world.clock.set_wrong(Duration::ZERO);
        let asked = world.twitch.calls(Endpoint::Validate);
        if sweeps {
            app.sweep_due().await.unwrap();
        } else {
            browser.asks(&app).await.unwrap();
        }
        assert_eq!(world.twitch.calls(Endpoint::Validate), asked + 1, "sweep {sweeps}");
        let State::Live(active) = world.row(browser.session).await.state else { panic!("it lives") };
        assert!(active.proven_at <= world.now(), "sweep {sweeps}");
        browser.asks(&app).await.unwrap();
        assert_eq!(world.twitch.calls(Endpoint::Validate), asked + 1, "once");
    }
}

/// CLOCK, SPENT: a claim that was taken while the clock was ahead holds nobody up, and its token is
/// not sent again, since nobody knows how long ago it was sent.
#[tokio::test(start_paused = true)]
async fn a_claim_from_the_future_neither_holds_nor_allows_a_replay() {
    for habit in [ROTATES, ONE_TIME] {
        let (world, app) = World::with(habits(habit)).await;
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        world.clock.set_wrong(HOUR);
        claimed(&world, &browser).await;
        world.clock.set_wrong(Duration::ZERO);
        let app_after = world.instance().await;
        for app in [&app, &app_after] {
            assert_eq!(browser.asks(app).await.unwrap_err(), Denied::SignInAgain);
        }
        assert_eq!(world.twitch.refreshes(), 0);
    }
}

/// SPENT: a clock that jumps ahead does not take over the claim of a refresh in flight.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_takes_over_no_claim() {
    let (world, app) = World::with(habits(ROTATES)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    claimed(&world, &browser).await;
    world.clock.set_wrong(MINUTE);
    let denied = browser.asks(&app).await.unwrap_err();
    assert!(matches!(denied, Denied::ProviderUnavailable { .. }), "{denied:?}");
    assert_eq!(world.twitch.refreshes(), 0);
    world.pass(limits::CLAIM_LEASE);
    world.run_for(2 * limits::ADOPTION_POLL).await;
    browser.asks(&app).await.expect("the lease is over by the provider's clock too");
    assert_eq!(world.twitch.refreshes(), 1);
}

/// Where one process owns the store, each claim that it finds is an orphan.
#[tokio::test(start_paused = true)]
async fn an_orphan_of_an_exclusive_store_is_ambiguous_at_once() {
    for exclusive in [true, false] {
        let (world, app) = World::with(habits(ROTATES)).await;
        let browser = world.sign_in(&app, ADA).await;
        almost_expired(&world, &app, &browser).await;
        claimed(&world, &browser).await;
        let app = world.instance().await;
        app.faulty_store.exclusive.store(exclusive, Ordering::Relaxed);
        let begun = world.now();
        browser.asks(&app).await.unwrap();
        assert_eq!(world.twitch.refreshes(), u64::from(exclusive), "exclusive {exclusive}");
        let waited = world.now().since(begun);
        let longest = if exclusive { SECOND / 2 } else { limits::REFRESH_PATIENCE + SECOND / 2 };
        assert!(waited < longest, "the old token is good: {waited:?}");
    }
}

/// Where an orphan may not be replayed, its user is led to the provider at once, for the same
/// session.
#[tokio::test(start_paused = true)]
async fn an_orphan_of_an_exclusive_store_can_be_repaired_at_once() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    claimed(&world, &browser).await;
    app.faulty_store.exclusive.store(true, Ordering::Relaxed);
    assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::SignInAgain);
    let repair = app.begin_repair(&browser.cookie, ReturnTo::root()).await.unwrap();
    assert!(repair.is_some(), "a sign-in would end the session");
}

/// A good token is served while the provider takes its time over the next one.
#[tokio::test(start_paused = true)]
async fn a_slow_refresh_delays_nobody_whose_token_is_good() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    almost_expired(&world, &app, &browser).await;
    world.twitch.always(Endpoint::Token, FaultKind::delay(8 * SECOND));
    let mut waited = Vec::new();
    for _ in 0..3 {
        let begun = world.now();
        browser.grant(&app).await.unwrap();
        waited.push(world.now().since(begun));
    }
    let longest = limits::REFRESH_PATIENCE + SECOND / 2;
    assert!(waited.iter().all(|waited| *waited < longest), "{waited:?}");
    assert_eq!(world.twitch.refreshes(), 1);
}

/// A session begins by the provider's time, so that it compares with the time of a disconnect.
#[tokio::test(start_paused = true)]
async fn a_session_begins_by_the_providers_time() {
    for wrong in [5 * SECOND, 5 * MINUTE, 365 * DAY] {
        let (world, app) = World::start().await;
        world.clock.set_wrong(wrong);
        let browser = world.sign_in(&app, ADA).await;
        let (created_at, now) = (world.row(browser.session).await.created_at, world.clock.true_now());
        let apart = now.since(created_at).max(created_at.since(now));
        assert!(apart <= limits::CLOCK_SKEW, "{wrong:?}: {apart:?}");
        browser.asks(&app).await.unwrap();
        world.clock.set_wrong(Duration::ZERO);
        browser.asks(&app).await.expect("TRANSIENT");
    }
}

/// The others began by the provider's time, so what ends them goes by it too.
#[tokio::test(start_paused = true)]
async fn other_devices_are_signed_out_right_after_the_clock_was_set_back() {
    for (behind, plugged) in [(HOUR, true), (HOUR, false), (365 * DAY, true), (365 * DAY, false)] {
        let (world, app) = World::start().await;
        let (browser, other) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
        world.clock.set_back(behind);
        if !plugged {
            world.twitch.unplug();
        }
        let others = Target::Others(subject(ADA), browser.session);
        app.end(others, EndReason::SignedOutFromAnotherDevice).await.unwrap();
        let reason = world.end_reason(other.session).await;
        assert_eq!(reason, Some(EndReason::SignedOutFromAnotherDevice), "OTHERS: {behind:?} {plugged}");
    }
}

/// The age of a new session is measured by the clock by which it began.
#[tokio::test(start_paused = true)]
async fn a_repeated_callback_finds_its_session_by_the_providers_time() {
    for wrong in [Duration::ZERO, 5 * MINUTE, 365 * DAY] {
        let (world, app) = World::start().await;
        world.clock.set_wrong(wrong);
        let started = app.begin_login(ReturnTo::root(), false);
        let callback = world.agree(ADA, &started);
        let first = app.finish_login(callback.clone(), Some(&started.cookie), None, "").await.unwrap();
        let again = app.finish_login(callback.clone(), Some(&started.cookie), None, "").await;
        assert_eq!(again.unwrap().session, first.session, "{wrong:?}");
        world.pass(limits::CALLBACK_REPEATS + limits::CLOCK_SKEW);
        let late = app.finish_login(callback, Some(&started.cookie), None, "").await;
        assert_eq!(late.unwrap_err(), LoginError::AlreadyUsed, "{wrong:?}");
    }
}

/// A sign-in of a clock that was ahead is over, and one that began a moment ago is not.
#[tokio::test(start_paused = true)]
async fn a_sign_in_from_the_future_is_over() {
    let (world, app) = World::start().await;
    let mut finished = Vec::new();
    for ahead in [5 * SECOND, HOUR] {
        world.clock.set_wrong(ahead);
        let started = app.begin_login(claviger_core::ReturnTo::root(), false);
        world.clock.set_wrong(Duration::ZERO);
        let callback = world.agree(ADA, &started);
        finished.push(app.finish_login(callback, Some(&started.cookie), None, "curl/8").await.is_ok());
    }
    assert_eq!(finished, [true, false]);
}

/// CASCADE: a token that has expired by a wrong clock is revoked all the same.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_skips_no_revocation() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let token = world.access_token(browser.session).await;
    app.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    world.clock.set_wrong(DAY);
    world.assert_revoked(&app, &token).await;
}

/// A token that lives for less than the margin is used, and not refreshed at each request.
#[tokio::test(start_paused = true)]
async fn a_short_lived_token_is_used_for_most_of_its_life() {
    let (world, app) = World::with(|setup| setup.mock.token_lifetime_secs = 24).await;
    let browser = world.sign_in(&app, ADA).await;
    for _ in 0..10 {
        browser.grant(&app).await.unwrap();
        world.pass(SECOND);
    }
    assert_eq!(world.twitch.refreshes(), 0);
    world.pass(10 * SECOND);
    browser.grant(&app).await.unwrap();
    assert_eq!(world.twitch.refreshes(), 1, "once");
}
