//! Who is calling, and what each assurance reads.

use claviger_core::{policy::limits, request::Assurance, session::EndReason};
use claviger_engine::{Denied, Target};
use claviger_mock::Endpoint;
use claviger_seal::KeyId;
use claviger_store::Method;

use crate::{
    shelf::{Trick, unavailable},
    world::{ADA, DAY, GRACE, HOUR, MINUTE, NOW, SECOND, World, passing, subject},
};

#[tokio::test(start_paused = true)]
async fn the_cookie_alone_vouches_without_a_look_at_the_store() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let before = (world.memory.reads(), world.memory.writes(), world.twitch.calls(Endpoint::Validate));
    for _ in 0..3 {
        world.pass(2 * HOUR);
        let caller = browser.asks_with(&app, Assurance::Cookie).await.unwrap();
        assert_eq!((caller.subject(), caller.display_name()), (&subject(ADA), "ada_builds"));
        assert!(caller.row().is_none());
    }
    app.shelf.down(true);
    browser.asks_with(&app, Assurance::Cookie).await.expect("no store is needed");
    assert_eq!((world.memory.reads(), world.memory.writes(), world.twitch.calls(Endpoint::Validate)), before);
}

#[tokio::test(start_paused = true)]
async fn the_cookie_alone_sees_at_once_what_this_process_ended() {
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
async fn the_cookie_of_a_suspect_session_is_not_enough() {
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
async fn a_restart_does_not_forget_who_was_signed_out() {
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

/// A row that was read before the end must not be kept after it.
#[tokio::test(start_paused = true)]
async fn a_load_that_was_under_way_while_the_session_ended_is_not_kept() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let gate = app.shelf.hold_after(Method::Load);
    let ending = async {
        gate.arrived().await;
        app.end(Target::One(browser.session), EndReason::Administrator).await.unwrap();
        gate.open();
    };
    let (_, ()) = tokio::join!(browser.asks(&app), ending);
    assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED");
    assert!(browser.asks_with(&app, Assurance::Cookie).await.is_err(), "ENDED");
}

/// A change that was written before the end, and is heard of after it, must not make the cookie good again.
#[tokio::test(start_paused = true)]
async fn late_word_of_an_earlier_change_does_not_bring_an_ended_session_back() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.pass(HOUR);
    let gate = app.shelf.hold_after(Method::Replace);
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

/// The same with a session that became suspect meanwhile.
#[tokio::test(start_paused = true)]
async fn late_word_of_an_earlier_change_does_not_clear_a_suspicion() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let grant = browser.grant(&app).await.unwrap();
    world.pass(HOUR);
    let gate = app.shelf.hold_after(Method::Replace);
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

/// A store that cannot say whether it wrote the end: the second try finds it done, and then everybody must know.
#[tokio::test(start_paused = true)]
async fn an_end_whose_first_answer_was_lost_counts_when_it_is_repeated() {
    let (world, app) = World::start().await;
    let browsers = world.sign_in_on(&app, 3).await;
    for browser in &browsers {
        browser.asks(&app).await.unwrap();
    }
    app.shelf.next(Method::Replace, Trick::FailAfter);
    app.end_own(&browsers[0].cookie, EndReason::SignedOut).await.unwrap_err();
    assert_eq!(app.end_own(&browsers[0].cookie, EndReason::SignedOut).await, Ok(0));
    let others = || Target::Others(subject(ADA), browsers[2].session);
    app.shelf.next(Method::EndAll, Trick::FailAfter);
    // What was ended unheard is asked for at once, in vain, and again a little later: too late for the second try.
    app.shelf.next(Method::Distrusted, Trick::Fail);
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

/// What another instance ended, this one learns when it reads the row, whichever request made it read.
#[tokio::test(start_paused = true)]
async fn an_end_by_another_instance_counts_from_the_first_look_at_the_row() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    elsewhere.end(Target::One(browser.session), EndReason::Administrator).await.unwrap();
    assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::Administrator));
    let outcome = browser.asks_with(&app, Assurance::Cookie).await;
    assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED");
}

/// Instances tell each other nothing yet: the bound is the age of a proof.
#[tokio::test(start_paused = true)]
async fn an_end_by_another_instance_is_seen_when_the_next_proof_is_due_at_the_latest() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    browser.asks(&app).await.unwrap();
    elsewhere.end(Target::One(browser.session), EndReason::Administrator).await.unwrap();
    assert!(browser.asks_with(&app, NOW).await.is_err(), "whoever asks the provider reads the row first");
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
        assert_eq!(app.grant(&forged, None).await.unwrap_err(), Denied::NoSession, "ISO");
        ada.asks(&app).await.unwrap();
    }
    assert!(app.end_own(&forged, EndReason::SignedOut).await.is_err());
    assert_eq!(world.end_reason(ada.session).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_cookie_of_ours_is_no_session() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let mut cut = browser.value.clone();
    cut.pop();
    let login = app.begin_login(claviger_core::return_to::ReturnTo::root(), false).cookie;
    for value in ["", "x", cut.as_str(), login.as_str(), &"A".repeat(10_000)] {
        assert_eq!(app.open_cookie(value).unwrap_err(), Denied::NoSession);
    }
    let rotated = world.instance_with(&[2]).await;
    assert_eq!(rotated.open_cookie(&browser.value).unwrap_err(), Denied::UnknownKey(KeyId(1)));
    world.instance_with(&[2, 1]).await.open_cookie(&browser.value).unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_the_store_nobody_is_signed_out() {
    let (world, app) = World::start().await;
    let (known, unknown) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
    known.asks(&app).await.unwrap();
    app.shelf.down(true);
    known.asks(&app).await.expect("memory serves it");
    assert_eq!(unknown.asks(&app).await.unwrap_err(), Denied::Store(unavailable()));
    world.pass(HOUR);
    assert!(passing(&known.asks(&app).await), "TRANSIENT");
    app.shelf.down(false);
    for browser in [known, unknown] {
        browser.asks(&app).await.expect("TRANSIENT");
    }
}

#[tokio::test(start_paused = true)]
async fn the_providers_word_is_as_old_as_the_request_allows() {
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
    assert_eq!(outcome.unwrap_err(), Denied::ProviderTrouble { retry_after: limits::RETRY_AFTER });
    browser.asks_with(&app, fresh).await.expect("the last word is young enough");
    browser.asks(&app).await.expect("TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn a_cookie_is_good_for_nothing_beyond_the_greatest_age() {
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
