//! Calls that wait for a store that cannot be used for a moment, as in a failover.

use std::time::Duration;

use claviger_core::{Assurance, EndReason, ReturnTo, limits};
use claviger_engine::{Denied, EndError, Target};
use claviger_store::{Method, StoreError};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::{
    faulty_store::{Trick, unavailable},
    world::{ADA, Browser, Instance, MINUTE, SECOND, World, subject},
};

const WAIT: Duration = Duration::from_secs(5);
/// As long as the failover of a database takes.
const FAILOVER: Duration = Duration::from_secs(3);

fn unreachable_store() -> StoreError {
    StoreError::Unreachable("a test".to_owned())
}

/// A world whose instances wait for the store, a browser in it, and an instance that remembers
/// nothing.
async fn restarted() -> (World, Browser, Instance) {
    let (world, app) = World::with(|setup| setup.settings.store_wait = WAIT).await;
    let browser = world.sign_in(&app, ADA).await;
    let restarted = world.instance().await;
    (world, browser, restarted)
}

/// A request that runs beside the test.
fn asks(app: &Instance, browser: &Browser) -> JoinHandle<Result<(), Denied>> {
    let (engine, cookie) = (app.engine.clone(), browser.cookie.clone());
    tokio::spawn(async move { engine.authenticate(cookie, Assurance::Session).await.map(drop) })
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_a_pause_for_requests_sign_ins_and_sign_outs() {
    for error in [unreachable_store(), StoreError::ReadOnly("a standby".to_owned())] {
        let (world, browser, app) = restarted().await;
        let other = world.sign_in(&app, ADA).await;
        let fresh = world.instance().await;
        fresh.faulty_store.down_with(Some(error.clone()));
        let request = asks(&fresh, &browser);
        let engine = fresh.engine.clone();
        let sign_out = tokio::spawn(async move { engine.end_own(&other.cookie, EndReason::SignedOut).await });
        let started = fresh.begin_login(ReturnTo::root(), false);
        let (engine, callback) = (fresh.engine.clone(), world.agree(ADA, &started));
        let sign_in = tokio::spawn(async move {
            engine.finish_login(callback, Some(&started.cookie), None, "curl/8").await.map(drop)
        });
        world.run_for(FAILOVER).await;
        assert!(!request.is_finished() && !sign_out.is_finished() && !sign_in.is_finished(), "{error}");
        fresh.faulty_store.down_with(None);
        world.run_for(SECOND).await;
        assert!(request.is_finished() && sign_out.is_finished() && sign_in.is_finished(), "{error}");
        assert_eq!(request.await.unwrap(), Ok(()));
        assert_eq!(sign_out.await.unwrap(), Ok(1));
        assert_eq!(sign_in.await.unwrap(), Ok(()));
        assert_eq!(world.twitch.calls(claviger_mock::Endpoint::Authorize), 3, "no sign-in was repeated");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_long_enough_is_denied() {
    let (world, browser, app) = restarted().await;
    app.faulty_store.down_with(Some(unreachable_store()));
    let request = asks(&app, &browser);
    world.run_for(WAIT - limits::STORE_LOOK_EVERY).await;
    assert!(!request.is_finished());
    world.run_for(2 * limits::STORE_LOOK_EVERY).await;
    assert!(request.is_finished());
    assert_eq!(request.await.unwrap(), Err(Denied::Store(unreachable_store())));
}

/// It may have happened. So the caller learns that, and only a write that did not reach the store
/// is made again.
#[tokio::test(start_paused = true)]
async fn a_write_of_unknown_outcome_is_not_repeated() {
    let (world, browser, app) = restarted().await;
    app.faulty_store.next(Method::EndSessions, Trick::FailAfter);
    let all = Target::AllOf(subject(ADA), world.now().after(SECOND));
    let ended = app.end(all.clone(), EndReason::SignedOutEverywhere).await;
    assert_eq!(ended, Err(EndError::Store(unavailable())));
    assert_eq!(world.memory.calls(Method::EndSessions), 1);
    assert!(world.row(browser.session).await.ended());
    // The outage began with an unknown outcome, and the next write waits until it is over.
    let before = world.now();
    assert_eq!(app.end(all, EndReason::SignedOutEverywhere).await, Ok(0));
    assert!(world.now().since(before) < SECOND, "one look shows that the store works");
}

#[tokio::test(start_paused = true)]
async fn a_claim_waits_before_it_is_written_and_its_token_is_sent_once() {
    let (world, browser, app) = restarted().await;
    world.expire_tokens();
    // Only the claim meets the outage.
    let gate = app.faulty_store.hold_before(Method::Load);
    let request = asks(&app, &browser);
    gate.arrived().await;
    app.faulty_store.down_with(Some(unreachable_store()));
    gate.open();
    world.run_for(FAILOVER).await;
    assert_eq!(world.twitch.refreshes(), 0);
    let active = world.row(browser.session).await;
    assert!(active.active().is_some_and(|active| active.claim.is_none()), "nobody holds a claim");
    app.faulty_store.down_with(None);
    assert_eq!(request.await.unwrap(), Ok(()));
    assert_eq!((world.twitch.refreshes(), world.twitch.most_sends()), (1, 1));
    world.assert_nothing_spent_twice();
}

#[tokio::test(start_paused = true)]
async fn the_number_of_waiting_calls_is_bounded_and_one_of_them_looks() {
    let (world, browser, app) = restarted().await;
    app.faulty_store.down_with(Some(unreachable_store()));
    let waiting: Vec<_> = (0..limits::STORE_WAITERS).map(|_| asks(&app, &browser)).collect();
    world.rest().await;
    let calls = world.memory.calls(Method::Load);
    let before = world.now();
    let beyond = asks(&app, &browser).await.unwrap();
    assert_eq!(beyond, Err(Denied::Store(unreachable_store())));
    assert_eq!(world.now(), before, "it is denied at once");
    world.run_for(FAILOVER).await;
    assert!(waiting.iter().all(|request| !request.is_finished()));
    assert_eq!(world.memory.calls(Method::Load), calls, "the others make no calls");
    app.faulty_store.down_with(None);
    let answers = join_all(waiting).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == Ok(())));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_in_a_long_outage_or_where_the_operator_must_act() {
    let (world, browser, app) = restarted().await;
    app.faulty_store.down_with(Some(unreachable_store()));
    let _denied = asks(&app, &browser).await;
    world.pass(MINUTE);
    let before = world.now();
    assert_eq!(asks(&app, &browser).await.unwrap(), Err(Denied::Store(unreachable_store())));
    assert_eq!(world.now(), before);
    for error in [StoreError::Refused("a test".to_owned()), StoreError::Full("a test".to_owned())] {
        let fresh = world.instance().await;
        fresh.faulty_store.down_with(Some(error.clone()));
        let before = world.now();
        assert_eq!(asks(&fresh, &browser).await.unwrap(), Err(Denied::Store(error)));
        assert_eq!(world.now(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_health_check_does_not_wait() {
    let (world, _browser, app) = restarted().await;
    app.faulty_store.down_with(Some(unreachable_store()));
    let before = world.now();
    assert_eq!(app.store().check().await, Err(unreachable_store()));
    assert_eq!(world.now(), before);
}
