//! Pending revocations: each is carried out once, with as many attempts as it takes.

use claviger_core::{Custody, EndReason, limits};
use claviger_engine::Target;
use claviger_mock::{Endpoint, FaultKind, RetryAfter};
use claviger_provider::RefreshTokens;
use claviger_store::{Method, Queue};

use crate::{
    faulty_store::Trick,
    world::{ADA, HOUR, Instance, MINUTE, SECOND, TOKEN_LIFE, World, subject},
};

/// A world with one pending revocation for each of its devices, and their tokens.
async fn owing(devices: usize) -> (World, Instance, Vec<String>) {
    let (world, app) = World::with(|setup| {
        setup.settings.devices_per_user = 1000;
        setup.mock.live_token_limit = claviger_mock::LiveTokenLimit::Off;
    })
    .await;
    let mut tokens = Vec::new();
    for _ in 0..devices {
        let browser = world.sign_in(&app, ADA).await;
        tokens.push(world.access_token(browser.session).await);
    }
    let all = Target::AllOf(subject(ADA), world.now().after(SECOND));
    assert_eq!(app.end(all, EndReason::SignedOutEverywhere).await, Ok(devices));
    (world, app, tokens)
}

#[tokio::test(start_paused = true)]
async fn every_pending_revocation_is_carried_out() {
    let devices = 3 * limits::REVOCATIONS_AT_ONCE + 1;
    let (world, app, tokens) = owing(devices).await;
    assert_eq!(app.carry_out_revocations().await, Ok(devices));
    assert_eq!(world.owed().await, 0);
    assert!(tokens.iter().all(|token| !world.twitch.lives(token)), "CASCADE");
    assert_eq!(world.twitch.calls(Endpoint::Revoke), u64::try_from(devices).unwrap(), "each once");
    assert_eq!(app.carry_out_revocations().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_revocation_backs_off() {
    let (world, app, tokens) = owing(1).await;
    world.twitch.always(Endpoint::Revoke, FaultKind::status(500));
    let mut pause = limits::REVOCATION_PAUSE;
    for tries in 1..=6 {
        assert_eq!(app.carry_out_revocations().await, Ok(0));
        assert_eq!(world.twitch.calls(Endpoint::Revoke), tries);
        world.pass(pause - SECOND / 1000);
        app.carry_out_revocations().await.unwrap();
        assert_eq!(world.twitch.calls(Endpoint::Revoke), tries, "not before {pause:?}");
        world.pass(SECOND / 1000);
        pause *= 2;
    }
    world.mend();
    assert_eq!(app.carry_out_revocations().await, Ok(1));
    assert!(!world.twitch.lives(&tokens[0]), "CASCADE");
}

#[tokio::test(start_paused = true)]
async fn retry_after_delays_a_revocation() {
    for (wish, pause) in [
        (RetryAfter::Seconds(600), 600 * SECOND),
        (RetryAfter::DateInSeconds(120), 120 * SECOND),
        (RetryAfter::Seconds(1), limits::REVOCATION_PAUSE),
    ] {
        let (world, app, _) = owing(1).await;
        let kind = FaultKind::Status { status: 503, body: String::new(), retry_after: Some(wish) };
        world.twitch.once(Endpoint::Revoke, kind);
        app.carry_out_revocations().await.unwrap();
        world.pass(pause - SECOND / 1000);
        assert_eq!(app.carry_out_revocations().await, Ok(0), "{wish:?}");
        world.pass(SECOND / 1000);
        assert_eq!(app.carry_out_revocations().await, Ok(1), "{wish:?}");
        assert_eq!(world.twitch.calls(Endpoint::Revoke), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_token_counts_as_revoked() {
    let (world, app, tokens) = owing(1).await;
    world.twitch.mock().kill_token(&tokens[0]);
    assert_eq!(app.carry_out_revocations().await, Ok(1), "400 \"Invalid token\" is success");
    assert_eq!(world.owed().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_with_a_lost_answer_is_repeated() {
    for kind in [FaultKind::CloseAfter, FaultKind::CloseBefore, FaultKind::delay(MINUTE)] {
        let (world, app, tokens) = owing(1).await;
        world.twitch.once(Endpoint::Revoke, kind.clone());
        assert_eq!(app.carry_out_revocations().await, Ok(0), "{kind:?}");
        world.pass(limits::REVOCATION_PAUSE);
        assert_eq!(app.carry_out_revocations().await, Ok(1), "{kind:?}");
        assert!(!world.twitch.lives(&tokens[0]), "CASCADE");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_client_waits_for_the_operator() {
    let (mut world, _, tokens) = owing(1).await;
    let mended = std::mem::replace(&mut world.provider.client.id, "unknown".to_owned());
    let app = world.instance().await;
    assert_eq!(app.carry_out_revocations().await, Ok(0));
    world.pass(limits::REVOCATION_PAUSE_MAX - SECOND);
    app.carry_out_revocations().await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::Revoke), 1, "not hammered");
    assert_eq!(world.owed().await, 1);
    world.provider.client.id = mended;
    world.pass(SECOND);
    assert_eq!(world.instance().await.carry_out_revocations().await, Ok(1));
    assert!(!world.twitch.lives(&tokens[0]), "CASCADE");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_with_a_missing_key_waits_for_the_operator() {
    let (world, app, _) = owing(1).await;
    let keyless = world.instance_with(&[2]).await;
    assert_eq!(keyless.carry_out_revocations().await, Ok(0));
    assert_eq!((world.twitch.calls(Endpoint::Revoke), world.owed().await), (0, 1));
    world.pass(limits::REVOCATION_PAUSE_MAX);
    assert_eq!(app.carry_out_revocations().await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_needs_no_revocation() {
    let (world, app, _) = owing(1).await;
    world.pass(TOKEN_LIFE);
    assert_eq!(app.carry_out_revocations().await, Ok(1));
    assert_eq!((world.twitch.calls(Endpoint::Revoke), world.owed().await), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn two_instances_revoke_each_token_once() {
    let devices = 50;
    let (world, app, tokens) = owing(devices).await;
    let elsewhere = world.instance().await;
    for app in [&app, &elsewhere] {
        app.faulty_store.slow();
    }
    let (one, two) = tokio::join!(app.carry_out_revocations(), elsewhere.carry_out_revocations());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one + two, devices);
    assert!(one > 0 && two > 0, "the work is shared");
    assert_eq!(world.twitch.calls(Endpoint::Revoke), u64::try_from(devices).unwrap());
    assert!(tokens.iter().all(|token| !world.twitch.lives(token)), "CASCADE");
}

/// An instance that dies with leased revocations loses none.
#[tokio::test(start_paused = true)]
async fn revocations_of_a_crashed_instance_are_taken_over() {
    let (world, dying, tokens) = owing(3).await;
    let app = world.instance().await;
    let never = world.twitch.hold(Endpoint::Revoke);
    tokio::select! {
        biased;
        () = never.arrived() => {}
        _ = dying.carry_out_revocations() => panic!("the answer is held"),
    }
    assert_eq!(app.carry_out_revocations().await, Ok(0), "leased");
    let left = world.owed().await;
    assert!(left > 0, "CASCADE");
    world.pass(limits::REVOCATION_LEASE);
    assert_eq!(app.carry_out_revocations().await, Ok(usize::try_from(left).unwrap()));
    assert_eq!(world.owed().await, 0);
    assert!(tokens.iter().all(|token| !world.twitch.lives(token)), "CASCADE");
}

/// Everything leased at once is carried out within the lease, however slow the provider is.
#[tokio::test(start_paused = true)]
async fn a_lease_outlasts_the_slowest_provider() {
    let (world, app, _) = owing(limits::REVOCATIONS_AT_ONCE).await;
    let elsewhere = world.instance().await;
    world.twitch.always(Endpoint::Revoke, FaultKind::delay(limits::PROVIDER_ANSWER));
    let began = world.now();
    let other = async {
        world.run_for(limits::REVOCATION_LEASE - SECOND).await;
        elsewhere.carry_out_revocations().await.unwrap()
    };
    let (settled, others) = tokio::join!(app.carry_out_revocations(), other);
    assert_eq!((settled, others), (Ok(limits::REVOCATIONS_AT_ONCE), 0));
    assert!(world.now().since(began) < limits::REVOCATION_LEASE);
}

#[tokio::test(start_paused = true)]
async fn a_store_failure_keeps_pending_revocations() {
    for method in [Method::Take(Queue::Revocations), Method::Acknowledge(Queue::Revocations)] {
        let (world, app, tokens) = owing(2).await;
        app.faulty_store.next(method, Trick::Fail);
        app.carry_out_revocations().await.unwrap_err();
        assert!(world.owed().await > 0, "CASCADE");
        world.pass(limits::REVOCATION_LEASE);
        app.carry_out_revocations().await.unwrap();
        assert_eq!(world.owed().await, 0);
        assert!(tokens.iter().all(|token| !world.twitch.lives(token)));
    }
}

/// A token without a known expiry is given up in the end, and not before.
#[tokio::test(start_paused = true)]
async fn a_token_without_an_expiry_is_given_up() {
    let (world, app) = World::start().await;
    world.twitch.rewrite(Endpoint::Token, |body| drop(body.as_object_mut().unwrap().remove("expires_in")));
    let browser = world.sign_in(&app, ADA).await;
    app.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    world.twitch.always(Endpoint::Revoke, FaultKind::status(503));
    world.pass(limits::REVOCATION_GIVEN_UP_AFTER - HOUR);
    assert_eq!(app.carry_out_revocations().await, Ok(0));
    world.pass(HOUR);
    assert_eq!(app.carry_out_revocations().await, Ok(1));
}

/// A provider that refuses one of the two tokens leaves the other revoked.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_revoked_delays_no_other() {
    let (world, app) = World::with(crate::world::custody(Custody::None)).await;
    world.twitch.once(Endpoint::Revoke, FaultKind::status(500));
    world.sign_in(&app, ADA).await;
    assert_eq!(app.carry_out_revocations().await, Ok(0));
    assert_eq!(world.twitch.mock().live_access_tokens(ADA), 0, "CASCADE");
    world.pass(limits::REVOCATION_PAUSE);
    assert_eq!(app.carry_out_revocations().await, Ok(1));
    assert_eq!(world.owed().await, 0);
}

/// Where refresh tokens survive the revocation of their access token, those that the server can
/// open are revoked too.
#[tokio::test(start_paused = true)]
async fn refresh_tokens_are_revoked_if_they_can_be_opened() {
    // Custody, whether the provider wants it, whether the device itself signs out, whether the
    // access token has expired; the calls.
    let table = [
        (Custody::Device, true, true, false, 2),
        (Custody::Device, true, true, true, 1),
        (Custody::Device, true, false, false, 1),
        (Custody::Device, true, false, true, 0),
        (Custody::Server, true, false, false, 2),
        (Custody::Server, true, false, true, 1),
        (Custody::Server, false, true, false, 1),
        (Custody::Server, false, false, true, 0),
        (Custody::Device, false, true, false, 1),
    ];
    for (custody, wanted, by_device, expired, calls) in table {
        let (world, app) = World::with(|setup| {
            setup.settings.custody = custody;
            setup.provider.capabilities.revocation.as_mut().unwrap().refresh_tokens =
                if wanted { RefreshTokens::All } else { RefreshTokens::Unkept };
        })
        .await;
        let device = world.sign_in(&app, ADA).await;
        if expired {
            world.expire_tokens();
        }
        if by_device {
            app.end_own(&device.cookie, EndReason::SignedOut).await.unwrap();
        } else {
            app.end(Target::One(device.session), EndReason::SignedOutFromAnotherDevice).await.unwrap();
        }
        app.carry_out_revocations().await.unwrap();
        let case = format!("{custody:?} wanted {wanted} by the device {by_device} expired {expired}");
        assert_eq!(world.twitch.calls(Endpoint::Revoke), calls, "{case}");
        assert_eq!(world.owed().await, 0, "CASCADE: {case}");
    }
}
