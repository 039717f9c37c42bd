//! Sessions end in one place, at once, for good, and each for its own reason.

use claviger_core::{Assurance, EndReason, State};
use claviger_engine::{Denied, EndError, Ending, Target};
use claviger_mock::{Endpoint, FaultKind};
use claviger_store::Method;

use crate::{
    faulty_store::{Trick, unavailable},
    world::{ADA, GRACE, MINUTE, SECOND, World, subject},
};

#[tokio::test(start_paused = true)]
async fn a_logout_is_final_during_an_outage() {
    for kind in [FaultKind::status(503), FaultKind::CloseBefore, FaultKind::delay(MINUTE)] {
        let (world, app) = World::start().await;
        world.twitch.always(Endpoint::Revoke, kind);
        let browser = world.sign_in(&app, ADA).await;
        let token = world.access_token(browser.session).await;
        let began = world.now();
        assert_eq!(app.end_own(&browser.cookie, EndReason::SignedOut).await, Ok(1));
        assert_eq!(world.now(), began, "it waits for nobody");
        let row = world.row(browser.session).await;
        assert_eq!(row.state, State::Ended { reason: EndReason::SignedOut, at: began });
        assert_eq!(row.version.0, 2, "MONO");
        app.carry_out_revocations().await.unwrap();
        assert_eq!(world.owed().await, 1, "CASCADE");
        world.mend();
        world.pass(MINUTE);
        world.assert_revoked(&app, &token).await;
    }
}

#[tokio::test(start_paused = true)]
async fn ending_the_others_keeps_the_caller() {
    let (world, app) = World::start().await;
    let mut devices = world.sign_in_on(&app, 4).await;
    let bystander = world.sign_in(&app, GRACE).await;
    let mut tokens = Vec::new();
    for device in &devices {
        tokens.push(world.access_token(device.session).await);
    }
    let caller = devices.remove(1);
    tokens.remove(1);
    let others = Target::Others(subject(ADA), caller.session);
    assert_eq!(app.end(others.clone(), EndReason::SignedOutFromAnotherDevice).await, Ok(3));
    assert_eq!(app.end(others, EndReason::SignedOutFromAnotherDevice).await, Ok(0), "safe to repeat");
    for device in &devices {
        let reason = EndReason::SignedOutFromAnotherDevice;
        assert_eq!(world.end_reason(device.session).await, Some(reason), "OTHERS");
        assert_eq!(device.asks(&app).await.unwrap_err(), Denied::Ended(reason));
    }
    for spared in [&caller, &bystander] {
        spared.asks(&app).await.expect("OTHERS, BLAST");
    }
    assert_eq!(world.owed().await, 3);
    app.carry_out_revocations().await.unwrap();
    assert!(tokens.iter().all(|token| !world.twitch.lives(token)), "CASCADE");
    assert!(world.twitch.lives(&world.access_token(caller.session).await), "BLAST");
    let new = world.sign_in(&app, ADA).await;
    new.asks(&app).await.expect("a later sign-in is not concerned");
}

/// OTHERS: a sign-in that races is either ended or kept, never half.
#[tokio::test(start_paused = true)]
async fn a_sign_in_that_races_with_ending_the_others_is_kept_or_ended() {
    for step in 0..12 {
        let (world, app) = World::start().await;
        app.faulty_store.slow();
        let caller = world.sign_in(&app, ADA).await;
        let old = world.sign_in(&app, ADA).await;
        world.pass(SECOND);
        let login = world.sign_in_again(&app, ADA, Some(&old.cookie));
        let ending = async {
            for _ in 0..step {
                tokio::task::yield_now().await;
            }
            world.pass(SECOND);
            let others = Target::Others(subject(ADA), caller.session);
            app.end(others, EndReason::SignedOutFromAnotherDevice).await.unwrap();
        };
        let (login, ()) = tokio::join!(login, ending);
        let new = login.unwrap();
        world.rest().await;
        let ended = world.end_reason(new.session).await.is_some();
        for assurance in [Assurance::Cookie, Assurance::Session] {
            assert_eq!(new.asks_with(&app, assurance).await.is_err(), ended, "step {step}: {assurance:?}");
        }
        assert!(world.end_reason(old.session).await.is_some());
        app.carry_out_revocations().await.unwrap();
        let open = app.devices(&subject(ADA)).await.unwrap().len();
        assert_eq!(world.twitch.mock().live_access_tokens(ADA), open, "CASCADE");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_ends_older_sessions_only() {
    let (world, app) = World::start().await;
    let old = world.sign_in_on(&app, 2).await;
    let event = world.now();
    let young = world.sign_in(&app, ADA).await;
    let all = Target::AllOf(subject(ADA), event);
    assert_eq!(app.end(all, EndReason::DisconnectedAtProvider).await, Ok(2));
    for device in &old {
        let reason = world.end_reason(device.session).await;
        assert_eq!(reason, Some(EndReason::DisconnectedAtProvider));
    }
    young.asks(&app).await.expect("created at the event, not before");
}

#[tokio::test(start_paused = true)]
async fn another_users_device_is_not_found() {
    let (world, app) = World::start().await;
    let (ada, grace) = (world.sign_in(&app, ADA).await, world.sign_in(&app, GRACE).await);
    let unknown = claviger_core::SessionId::new(world.now(), [9; 10]);
    let reason = EndReason::SignedOutFromAnotherDevice;
    for id in [grace.session, unknown] {
        assert_eq!(app.end(Target::DeviceOf(subject(ADA), id), reason).await, Err(EndError::NotFound));
    }
    grace.asks(&app).await.expect("BLAST");
    app.end(Target::One(grace.session), EndReason::Administrator).await.unwrap();
    let ended = Target::DeviceOf(subject(ADA), grace.session);
    assert_eq!(app.end(ended, reason).await, Err(EndError::NotFound), "nor one that ended");
    assert_eq!(app.end(Target::One(unknown), EndReason::Administrator).await, Err(EndError::NotFound));
    ada.asks(&app).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_end_reason_stays() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    assert_eq!(app.end_own(&browser.cookie, EndReason::SignedOut).await, Ok(1));
    let row = world.row(browser.session).await;
    for app in [&app, &elsewhere] {
        assert_eq!(app.end(Target::One(browser.session), EndReason::Administrator).await, Ok(0));
        assert_eq!(app.end_own(&browser.cookie, EndReason::SignedOut).await, Ok(0));
        let all = Target::AllOf(subject(ADA), world.now().after(SECOND));
        assert_eq!(app.end(all, EndReason::SignedOutEverywhere).await, Ok(0));
    }
    assert_eq!(world.row(browser.session).await, row, "ENDED");
    assert_eq!(world.owed().await, 1, "owed once");
}

#[tokio::test(start_paused = true)]
async fn concurrent_ends_end_the_row_once() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    for app in [&app, &elsewhere] {
        app.faulty_store.slow();
    }
    let browser = world.sign_in(&app, ADA).await;
    let ends = (0..10).map(|n| {
        let app = if n % 2 == 0 { &app } else { &elsewhere };
        app.end_own(&browser.cookie, EndReason::SignedOut)
    });
    let counts = futures_util::future::join_all(ends).await;
    assert_eq!(counts.into_iter().map(Result::unwrap).sum::<usize>(), 1);
    assert_eq!((world.row(browser.session).await.version.0, world.owed().await), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn listeners_are_notified_of_every_end() {
    let (world, app) = World::start().await;
    let mut endings = app.endings();
    let devices = world.sign_in_on(&app, 3).await;
    app.end_own(&devices[0].cookie, EndReason::SignedOut).await.unwrap();
    let others = Target::Others(subject(ADA), devices[2].session);
    app.end(others, EndReason::SignedOutFromAnotherDevice).await.unwrap();
    world.sign_in_again(&app, ADA, Some(&devices[2].cookie)).await.unwrap();
    for device in devices {
        assert_eq!(endings.recv().await.unwrap(), Ending::Of(device.session));
    }
    assert!(endings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_end_fails_with_the_store() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let refused = Err(EndError::Store(unavailable()));
    app.faulty_store.next(Method::Apply, Trick::Fail);
    assert_eq!(app.end_own(&browser.cookie, EndReason::SignedOut).await, refused);
    app.faulty_store.next(Method::EndSessions, Trick::Fail);
    let all = Target::AllOf(subject(ADA), world.now().after(SECOND));
    assert_eq!(app.end(all, EndReason::SignedOutEverywhere).await, refused);
    world.rest().await;
    browser.asks(&app).await.unwrap();
    assert_eq!((world.end_reason(browser.session).await, world.owed().await), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn the_device_list_is_ordered_by_last_use() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 3).await;
    world.sign_in(&app, GRACE).await;
    world.pass(2 * MINUTE);
    devices[0].asks(&app).await.unwrap();
    app.end_overdue().await.unwrap();
    app.end_own(&devices[2].cookie, EndReason::SignedOut).await.unwrap();
    let listed: Vec<_> = app.devices(&subject(ADA)).await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(listed, [devices[0].session, devices[1].session]);
}

/// An expired token needs no revocation.
#[tokio::test(start_paused = true)]
async fn an_expired_token_is_not_revoked() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    app.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    assert_eq!(world.owed().await, 0);
}
