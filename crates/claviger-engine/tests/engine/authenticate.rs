//! Who is calling, and what each assurance reads.

use claviger_core::{Assurance, EndReason, limits};
use claviger_engine::{Denied, Target};
use claviger_mock::Endpoint;
use claviger_seal::KeyId;
use claviger_store::Method;

use crate::{
    faulty_store::{Trick, unavailable},
    world::{ADA, DAY, GRACE, HOUR, MINUTE, NOW, SECOND, World, passing, subject},
};

#[tokio::test(start_paused = true)]
async fn assurance_cookie_reads_no_store() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let before = (world.memory.reads(), world.memory.writes(), world.twitch.calls(Endpoint::Validate));
    for _ in 0..3 {
        world.pass(2 * HOUR);
        let caller = browser.asks_with(&app, Assurance::Cookie).await.unwrap();
        assert_eq!((caller.subject(), caller.display_name()), (&subject(ADA), "ada_builds"));
        assert!(caller.row().is_none());
    }
    app.faulty_store.down(true);
    browser.asks_with(&app, Assurance::Cookie).await.expect("no store is needed");
    assert_eq!((world.memory.reads(), world.memory.writes(), world.twitch.calls(Endpoint::Validate)), before);
}

#[tokio::test(start_paused = true)]
async fn assurance_cookie_sees_ends_of_this_process_at_once() {
    let (world, app) = World::start().await;
    let browsers = world.sign_in_on(&app, 4).await;
    app.end_own(&browsers[0].cookie, EndReason::SignedOut).await.unwrap();
    let device = Target::DeviceOf(subject(ADA), browsers[1].session);
    app.end(device, EndReason::SignedOutFromAnotherDevice).await.unwrap();
    let others = Target::Others(subject(ADA), browsers[3].session);
    app.end(others, EndReason::SignedOutFromAnotherDevice).await.unwrap();
    for browser in &browsers[..3] {
        for assurance in [Assurance::Cookie, Assurance::Session, NOW] {
            let outcome = browser.asks_with(&app, assurance).await;
            assert!(matches!(outcome, Err(Denied::Ended(_))), "ENDED {outcome:?}");
        }
    }
    browsers[3].asks_with(&app, Assurance::Cookie).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn assurance_cookie_does_not_accept_a_suspect_session() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.twitch.mock().expire_access_tokens(ADA);
    world.twitch.always(Endpoint::Token, claviger_mock::FaultKind::status(503));
    assert!(passing(&browser.asks_with(&app, NOW).await));
    let elsewhere = world.instance().await;
    for app in [&app, &elsewhere] {
        let outcome = browser.asks_with(app, Assurance::Cookie).await;
        assert!(passing(&outcome), "neither served nor signed out: {outcome:?}");
    }
    world.mend();
    for app in [&app, &elsewhere] {
        browser.asks_with(app, Assurance::Cookie).await.expect("refreshed, and good again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_remembers_ended_sessions() {
    let (world, app) = World::start().await;
    let (gone, here) = (world.sign_in(&app, ADA).await, world.sign_in(&app, GRACE).await);
    app.end_own(&gone.cookie, EndReason::SignedOut).await.unwrap();
    let restarted = world.instance().await;
    for assurance in [Assurance::Cookie, Assurance::Session] {
        let outcome = gone.asks_with(&restarted, assurance).await;
        assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::SignedOut), "ENDED");
        here.asks_with(&restarted, assurance).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_request_of_a_session_reads_nothing() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    browser.asks(&app).await.unwrap();
    let before = (world.memory.reads(), world.twitch.calls(Endpoint::Validate));
    for _ in 0..10 {
        let caller = browser.asks(&app).await.unwrap();
        assert_eq!(caller.row().unwrap().id, browser.session);
        browser.grant(&app).await.unwrap();
    }
    assert_eq!((world.memory.reads(), world.twitch.calls(Endpoint::Validate)), before);
}

/// A row that was read before the end must not be cached after it.
#[tokio::test(start_paused = true)]
async fn a_load_that_overlaps_the_end_is_not_cached() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let gate = app.faulty_store.hold_after(Method::Load);
    let ending = async {
        gate.arrived().await;
        app.end(Target::One(browser.session), EndReason::Administrator).await.unwrap();
        gate.open();
    };
    let (_, ()) = tokio::join!(browser.asks(&app), ending);
    assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED");
    assert!(browser.asks_with(&app, Assurance::Cookie).await.is_err(), "ENDED");
}

/// A change that was committed before the end, and is reported after it, must not make the cookie
/// valid again.
#[tokio::test(start_paused = true)]
async fn a_late_report_does_not_revive_an_ended_session() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.pass(HOUR);
    let gate = app.faulty_store.hold_after(Method::Apply);
    let ending = async {
        gate.arrived().await;
        app.end(Target::One(browser.session), EndReason::Administrator).await.unwrap();
        gate.open();
    };
    let _ = tokio::join!(browser.asks(&app), ending);
    for assurance in [Assurance::Cookie, Assurance::Session] {
        let outcome = browser.asks_with(&app, assurance).await;
        assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED with {assurance:?}");
    }
}

/// As above, for a session that became suspect.
#[tokio::test(start_paused = true)]
async fn a_late_report_does_not_clear_a_suspicion() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let grant = browser.grant(&app).await.unwrap();
    world.pass(HOUR);
    let gate = app.faulty_store.hold_after(Method::Apply);
    world.twitch.always(Endpoint::Token, claviger_mock::FaultKind::status(503));
    let suspicion = async {
        gate.arrived().await;
        let refusal = claviger_core::verdict::ApiRefusal::DeadToken;
        assert!(passing(&app.grant_after_refusal(&browser.cookie, &grant, refusal).await));
        gate.open();
    };
    let _ = tokio::join!(browser.asks(&app), suspicion);
    assert!(passing(&browser.asks_with(&app, Assurance::Cookie).await), "still suspect");
}

/// The store's first answer to an end is lost. The second attempt finds it done, and memory must
/// know.
#[tokio::test(start_paused = true)]
async fn a_repeated_end_counts_after_a_lost_answer() {
    let (world, app) = World::start().await;
    let browsers = world.sign_in_on(&app, 3).await;
    for browser in &browsers {
        browser.asks(&app).await.unwrap();
    }
    app.faulty_store.next(Method::Apply, Trick::FailAfter);
    app.end_own(&browsers[0].cookie, EndReason::SignedOut).await.unwrap_err();
    assert_eq!(app.end_own(&browsers[0].cookie, EndReason::SignedOut).await, Ok(0));
    let others = || Target::Others(subject(ADA), browsers[2].session);
    app.faulty_store.next(Method::EndSessions, Trick::FailAfter);
    // Ends with a lost answer are read again at once, in vain, and a little later, after the second
    // attempt.
    app.faulty_store.next(Method::Denylist, Trick::Fail);
    app.end(others(), EndReason::SignedOutFromAnotherDevice).await.unwrap_err();
    assert_eq!(app.end(others(), EndReason::SignedOutFromAnotherDevice).await, Ok(0));
    for browser in &browsers[..2] {
        for assurance in [Assurance::Session, Assurance::Cookie] {
            let outcome = browser.asks_with(&app, assurance).await;
            assert!(matches!(outcome, Err(Denied::Ended(_))), "ENDED with {assurance:?}: {outcome:?}");
        }
    }
    browsers[2].asks_with(&app, Assurance::Cookie).await.unwrap();
}

/// This instance learns of another one's end when any request reads the row.
#[tokio::test(start_paused = true)]
async fn an_end_by_another_instance_counts_after_any_read() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    elsewhere.end(Target::One(browser.session), EndReason::Administrator).await.unwrap();
    assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::Administrator));
    let outcome = browser.asks_with(&app, Assurance::Cookie).await;
    assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED");
}

/// Without a change feed, the age of a proof is the bound.
#[tokio::test(start_paused = true)]
async fn an_end_by_another_instance_is_seen_by_the_next_proof() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    browser.asks(&app).await.unwrap();
    elsewhere.end(Target::One(browser.session), EndReason::Administrator).await.unwrap();
    assert!(browser.asks_with(&app, NOW).await.is_err(), "a validation reads the row first");
    world.pass(world.settings.lifetimes.proof);
    assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED");
}

#[tokio::test(start_paused = true)]
async fn a_cookie_with_another_secret_opens_nothing() {
    let (world, app) = World::start().await;
    let (ada, grace) = (world.sign_in(&app, ADA).await, world.sign_in(&app, GRACE).await);
    let mut forged = ada.cookie.clone();
    forged.secret = grace.cookie.secret.clone();
    for _ in 0..2 {
        let outcome = app.authenticate(forged.clone(), Assurance::Session).await;
        assert_eq!(outcome.unwrap_err(), Denied::NoSession);
        assert_eq!(
            app.grant(&forged, None, claviger_core::Presence::Active).await.unwrap_err(),
            Denied::NoSession,
            "ISO"
        );
        ada.asks(&app).await.unwrap();
    }
    assert!(app.end_own(&forged, EndReason::SignedOut).await.is_err());
    assert_eq!(world.end_reason(ada.session).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_forged_cookie_is_no_session() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let mut cut = browser.value.clone();
    cut.pop();
    let login = app.begin_login(claviger_core::ReturnTo::root(), false).cookie;
    for value in ["", "x", cut.as_str(), login.as_str(), &"A".repeat(10_000)] {
        assert_eq!(app.open_cookie(value).unwrap_err(), Denied::NoSession);
    }
    let rotated = world.instance_with(&[2]).await;
    assert_eq!(rotated.open_cookie(&browser.value).unwrap_err(), Denied::UnknownKey(KeyId(1)));
    world.instance_with(&[2, 1]).await.open_cookie(&browser.value).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_outage_signs_nobody_out() {
    let (world, app) = World::start().await;
    let (known, unknown) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
    known.asks(&app).await.unwrap();
    app.faulty_store.down(true);
    known.asks(&app).await.expect("memory serves it");
    assert_eq!(unknown.asks(&app).await.unwrap_err(), Denied::Store(unavailable()));
    world.pass(HOUR);
    assert!(passing(&known.asks(&app).await), "TRANSIENT");
    app.faulty_store.down(false);
    for browser in [known, unknown] {
        browser.asks(&app).await.expect("TRANSIENT");
    }
}

#[tokio::test(start_paused = true)]
async fn max_age_limits_the_age_of_a_proof() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let asked = || world.twitch.calls(Endpoint::Validate);
    let at_sign_in = asked();
    browser.asks_with(&app, NOW).await.unwrap();
    assert_eq!(asked(), at_sign_in + 1, "it is asked now");
    let fresh = Assurance::Provider { max_age: 5 * MINUTE };
    world.pass(5 * MINUTE - SECOND);
    browser.asks_with(&app, fresh).await.unwrap();
    assert_eq!(asked(), at_sign_in + 1);
    world.pass(SECOND);
    browser.asks_with(&app, fresh).await.unwrap();
    browser.asks_with(&app, fresh).await.unwrap();
    assert_eq!(asked(), at_sign_in + 2);
    world.twitch.always(Endpoint::Validate, claviger_mock::FaultKind::status(500));
    let outcome = browser.asks_with(&app, NOW).await;
    assert_eq!(outcome.unwrap_err(), Denied::ProviderUnavailable { retry_after: limits::RETRY_AFTER });
    browser.asks_with(&app, fresh).await.expect("the last word is young enough");
    browser.asks(&app).await.expect("TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn a_cookie_is_worthless_beyond_the_absolute_limit() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let born = world.now();
    for day in 1..30 {
        world.clock.jump_to(born.after(day * DAY));
        browser.asks_with(&app, Assurance::Cookie).await.unwrap();
        app.end_overdue().await.unwrap();
    }
    world.clock.jump_to(born.after(30 * DAY - MINUTE / 60_000));
    browser.asks_with(&app, Assurance::Cookie).await.unwrap();
    world.clock.jump_to(born.after(30 * DAY));
    let outcome = browser.asks_with(&app, Assurance::Cookie).await;
    assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::TooOld));
}
