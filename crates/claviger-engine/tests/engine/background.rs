//! The background work: it runs, stops, and survives failures.

use std::sync::Arc;

use claviger_core::{Assurance, EndReason, ReturnTo, limits};
use claviger_engine::{Denied, Engine, LoginError, Parts, SettingsError, StartError};
use claviger_mock::{Endpoint, FaultKind};
use claviger_store::{Method, Store};
use tokio_util::sync::CancellationToken;

use crate::{
    faulty_store::{FaultyStore, Trick, unavailable},
    store_health::Log,
    world::{ADA, DAY, HOUR, Instance, MINUTE, SECOND, TOKEN_LIFE, World},
};

fn run(app: &Instance) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let (stop, engine) = (CancellationToken::new(), app.engine.clone());
    let token = stop.clone();
    (stop, tokio::spawn(async move { engine.run(token).await }))
}

#[tokio::test(start_paused = true)]
async fn a_logout_revokes_at_the_provider_at_once() {
    let (world, app) = World::start().await;
    let (stop, running) = run(&app);
    let browser = world.sign_in(&app, ADA).await;
    let token = world.access_token(browser.session).await;
    app.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    world.run_for(SECOND / 10).await;
    assert!(!world.twitch.lives(&token), "CASCADE: nobody waits for a timer");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_revocation_is_retried() {
    let (world, app) = World::start().await;
    let (stop, running) = run(&app);
    let browser = world.sign_in(&app, ADA).await;
    let token = world.access_token(browser.session).await;
    world.twitch.mock().add_fault(claviger_mock::Fault::times(3, Endpoint::Revoke, FaultKind::status(503)));
    app.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    app.faulty_store.down(true);
    world.run_for(MINUTE).await;
    app.faulty_store.down(false);
    world.run_for(limits::REVOCATION_LEASE + MINUTE).await;
    assert!(!world.twitch.lives(&token), "CASCADE");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn uses_and_overdue_sessions_are_written_within_a_minute() {
    let (world, app) = World::start().await;
    let (stop, running) = run(&app);
    let (used, unused) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
    world.pass(world.settings.lifetimes.idle - HOUR);
    used.asks_with(&app, Assurance::Cookie).await.unwrap();
    let used_at = world.now();
    world.run_for(6 * SECOND).await;
    assert_eq!(world.row(used.session).await.last_seen_at, used_at);
    world.pass(HOUR);
    world.run_for(MINUTE).await;
    assert_eq!(world.end_reason(unused.session).await, Some(EndReason::Idle));
    assert_eq!(world.end_reason(used.session).await, None);
    stop.cancel();
    running.await.unwrap();
}

/// A stop finishes a refresh in flight.
#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_a_refresh_in_flight() {
    let (world, app) = World::start().await;
    let (stop, running) = run(&app);
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    world.twitch.once(Endpoint::Token, FaultKind::delay(8 * SECOND));
    let gate = world.twitch.hold(Endpoint::Token);
    tokio::select! {
        biased;
        () = gate.arrived() => {}
        _ = browser.asks(&app) => panic!("the answer is held"),
    }
    stop.cancel();
    gate.open();
    running.await.unwrap();
    let row = world.row(browser.session).await;
    assert!(row.active().unwrap().claim.is_none(), "STRAND");
    assert!(world.twitch.lives(&world.token_of(&row)), "STRAND");
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_bounded_and_leaves_the_claim() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    let gate = world.twitch.hold(Endpoint::Token);
    tokio::select! {
        biased;
        () = gate.arrived() => {}
        _ = browser.asks(&app) => panic!("the answer is held"),
    }
    let began = world.now();
    app.drain().await;
    assert!(world.now().since(began) <= limits::SHUTDOWN_DRAIN + SECOND);
    assert!(world.row(browser.session).await.active().unwrap().claim.is_some(), "STRAND: visibly in flight");
    world.pass(limits::CLAIM_LEASE);
    assert!(world.row(browser.session).await.ambiguous(world.now()));
}

#[tokio::test(start_paused = true)]
async fn tombstones_outlive_their_cookies() {
    let (world, app) = World::start().await;
    let (ended, live) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
    let born = world.now();
    app.end_own(&ended.cookie, EndReason::SignedOut).await.unwrap();
    let absolute = world.settings.lifetimes.absolute;
    world.clock.jump_to(born.after(absolute - SECOND / 1000));
    app.purge().await.unwrap();
    assert_eq!(ended.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::SignedOut));
    world.clock.jump_to(born.after(absolute));
    app.purge().await.unwrap();
    let restarted = world.instance().await;
    for app in [&app, &restarted] {
        for assurance in [Assurance::Cookie, Assurance::Session] {
            let denied = ended.asks_with(app, assurance).await.unwrap_err();
            assert!(matches!(denied, Denied::NoSession | Denied::Ended(_)), "ENDED");
        }
    }
    assert!(world.memory.load(ended.session).await.unwrap().is_none());
    assert!(world.memory.load(live.session).await.unwrap().is_some(), "only tombstones are purged");
}

/// A purge forgets states of sign-ins only after their cookies have expired.
#[tokio::test(start_paused = true)]
async fn a_used_callback_stays_used_after_every_purge() {
    let (world, app) = World::start().await;
    let started = app.begin_login(ReturnTo::root(), false);
    let callback = world.agree(ADA, &started);
    let first = app.finish_login(callback.clone(), Some(&started.cookie), None, "").await.unwrap();
    for minute in 0..30 {
        app.purge().await.unwrap();
        let again = app.finish_login(callback.clone(), Some(&started.cookie), None, "").await;
        match again {
            Ok(again) => assert!(minute <= 1 && again.session == first.session, "{minute}: {again:?}"),
            Err(error) => {
                assert!(minute >= 1, "{minute}: {error}");
                assert!(matches!(error, LoginError::AlreadyUsed | LoginError::Stale), "{error}");
            }
        }
        world.pass(MINUTE);
    }
    assert_eq!(world.twitch.calls(Endpoint::Token), 1);
}

#[tokio::test(start_paused = true)]
async fn the_engine_does_not_start_without_its_store() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    app.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    let faulty_store = Arc::new(FaultyStore::new(Arc::clone(&world.memory)));
    faulty_store.next(Method::Denylist, Trick::Fail);
    let outcome = Engine::start(world.parts(faulty_store, &[1])).await;
    assert_eq!(outcome.err(), Some(StartError::Store(unavailable())), "it must know who was signed out");
    let checks = world.memory.calls(Method::Check);
    world.instance().await;
    assert_eq!(world.memory.calls(Method::Check), checks, "a start need not write");
}

#[tokio::test(start_paused = true)]
async fn the_engine_refuses_settings_that_it_cannot_work_with() {
    use SettingsError::{ClientId, IdleTooLong, KeepAliveWithoutCustody, PeriodTooLong, Scope, Zero};
    let (world, _app) = World::start().await;
    type Fault = (fn(&mut Parts), SettingsError);
    let table: [Fault; 6] = [
        (|parts| parts.settings.sweep.period = DAY, PeriodTooLong),
        (|parts| parts.settings.sweep.keep_alive = true, KeepAliveWithoutCustody),
        (|parts| parts.settings.lifetimes.idle = 1000 * DAY, IdleTooLong),
        (|parts| parts.settings.refreshes_per_second = 0, Zero("refreshes_per_second")),
        (|parts| parts.provider.client.id.clear(), ClientId),
        (|parts| parts.provider.client.scopes = vec!["two scopes".to_owned()], Scope),
    ];
    for (change, expected) in table {
        let mut parts = world.parts(Arc::new(FaultyStore::new(Arc::clone(&world.memory))), &[1]);
        change(&mut parts);
        assert_eq!(Engine::start(parts).await.err(), Some(StartError::Settings(expected)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_forgets_the_background_jobs_is_warned_once() {
    // With a single subscriber, a call site that another thread reaches first would count as
    // disabled.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let (log, _captured) = Log::begin();
    let (world, app) = World::start().await;
    world.sign_in(&app, ADA).await;
    world.sign_in(&app, ADA).await;
    assert_eq!(log.lines_with("the background jobs do not run").len(), 1);

    let diligent = world.instance().await;
    let (stop, running) = run(&diligent);
    world.run_for(SECOND).await;
    world.sign_in(&diligent, ADA).await;
    assert_eq!(log.lines_with("the background jobs do not run").len(), 1);
    stop.cancel();
    running.await.unwrap();
}

/// LIVE over a week: a session in daily use continues through every kind of outage.
#[tokio::test(start_paused = true)]
async fn a_session_in_use_survives_a_week_of_outages() {
    let (world, app) = World::start().await;
    let (stop, running) = run(&app);
    let browser = world.sign_in(&app, ADA).await;
    let begun = world.now();
    let mut served = 0;
    for hour in 0..24 * 7 {
        world.clock.jump_to(begun.after(hour * HOUR));
        match hour % 5 {
            0 => world.twitch.unplug(),
            1 => world.mend(),
            2 => world.twitch.always(Endpoint::Validate, FaultKind::status(502)),
            3 => {
                world.mend();
                app.faulty_store.down(true);
            }
            _ => app.faulty_store.down(false),
        }
        served += u32::from(browser.asks(&app).await.is_ok());
        browser.asks_with(&app, Assurance::Cookie).await.expect("TRANSIENT");
        world.run_for(10 * SECOND).await;
    }
    assert!(served > 60, "{served} of 168");
    world.mend();
    app.faulty_store.down(false);
    world.run_for(MINUTE).await;
    browser.grant(&app).await.expect("LIVE");
    world.assert_nothing_spent_twice();
    assert!(world.now().since(begun) > 6 * DAY && TOKEN_LIFE < DAY);
    stop.cancel();
    running.await.unwrap();
}
