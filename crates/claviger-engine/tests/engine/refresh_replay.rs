//! The one replay of a refresh token: when it is used up, and until when it is allowed.

use claviger_core::{ProviderHabits, limits};
use claviger_engine::Denied;
use claviger_mock::{Endpoint, FaultKind};
use futures_util::future::join_all;

use crate::world::{ADA, Browser, Instance, MINUTE, ONE_TIME, ROTATES, SECOND, World, passing};

/// Maximum time that a request may travel.
const TRAVEL: std::time::Duration = limits::PROVIDER_CONNECT.saturating_add(limits::PROVIDER_ANSWER);

/// A provider that allows one replay within a minute.
const WINDOWED: ProviderHabits = ProviderHabits { replay_window: MINUTE, ..ONE_TIME };

/// Sessions whose access tokens have expired. The answer to the first one's refresh was just lost.
async fn first_lost_its_answer(
    own: ProviderHabits,
    rotation: claviger_mock::Rotation,
    sessions: usize,
) -> (World, Instance, Vec<Browser>) {
    let (world, app) = World::with(|setup| {
        setup.provider.habits = own;
        setup.mock.rotation = rotation;
        setup.settings.refreshes_per_second = 1;
    })
    .await;
    let browsers = world.sign_in_on(&app, sessions).await;
    world.expire_tokens();
    world.twitch.once(Endpoint::Token, FaultKind::CloseBefore);
    assert!(passing(&browsers[0].asks(&app).await));
    (world, app, browsers)
}

/// SPENT: a gateway may answer like this after the provider did what was asked, whatever its
/// habits.
#[tokio::test(start_paused = true)]
async fn a_replay_with_a_gateway_error_is_the_last() {
    let harmful = ProviderHabits { reuse_kills_connection: true, ..ROTATES };
    for own in [ROTATES, harmful, WINDOWED] {
        for status in [500, 502, 504, 520, 524] {
            let (world, app, browsers) =
                first_lost_its_answer(own, claviger_mock::Rotation::Rotates, 1).await;
            world.pass(limits::RETRY_AFTER);
            world.twitch.once(Endpoint::Token, FaultKind::status(status));
            assert!(passing(&browsers[0].asks(&app).await), "{status}");
            for _ in 0..4 {
                world.wait_out();
                let denied = browsers[0].asks(&app).await.unwrap_err();
                assert_eq!(denied, Denied::SignInAgain, "{status} {own:?}");
            }
            assert_eq!(world.twitch.most_sends(), 2, "SPENT {status} {own:?}");
            assert_eq!(world.end_reason(browsers[0].session).await, None, "TRANSIENT {status}");
        }
    }
}

/// SPENT: the provider's window closes while the replay waits for a permit.
#[tokio::test(start_paused = true)]
async fn a_replay_whose_permit_comes_after_the_window_is_not_sent() {
    for (others, replayed) in [(5, false), (1, true)] {
        let (world, app, browsers) =
            first_lost_its_answer(WINDOWED, claviger_mock::Rotation::OneTime, 1 + others).await;
        world.pass(MINUTE - TRAVEL - 2 * SECOND);
        let (first, others) = browsers.split_first().unwrap();
        let crowd = join_all(others.iter().map(|browser| browser.asks(&app)));
        let (crowd, outcome) = tokio::join!(crowd, first.asks(&app));
        for outcome in crowd {
            outcome.expect("BLAST");
        }
        assert_eq!(outcome.is_ok(), replayed, "{outcome:?}");
        assert_eq!(world.twitch.most_sends(), 1 + u32::from(replayed), "SPENT");
        let row = world.row(first.session).await;
        assert_eq!(row.ambiguous(world.now()), !replayed, "visibly");
        assert_eq!(row.beyond_refresh(world.now(), &WINDOWED), !replayed, "a new authorization repairs it");
    }
}

/// SPENT: as above, while the old access token is validated.
#[tokio::test(start_paused = true)]
async fn a_replay_whose_validation_outlasts_the_window_is_not_sent() {
    for (takes, replayed) in [(8 * SECOND, false), (SECOND, true)] {
        let (world, app, browsers) =
            first_lost_its_answer(WINDOWED, claviger_mock::Rotation::OneTime, 1).await;
        world.pass(MINUTE - TRAVEL - 4 * SECOND);
        world.twitch.once(Endpoint::Validate, FaultKind::delay(takes));
        let outcome = browsers[0].asks(&app).await;
        assert_eq!(outcome.is_ok(), replayed, "{outcome:?}");
        assert_eq!(world.twitch.most_sends(), 1 + u32::from(replayed), "SPENT");
    }
}

/// SPENT: two instances find the same lost answer; one sends the token again, and the other adopts.
#[tokio::test(start_paused = true)]
async fn one_of_two_instances_replays() {
    let (world, app, browsers) = first_lost_its_answer(ROTATES, claviger_mock::Rotation::Rotates, 1).await;
    let elsewhere = world.instance().await;
    [&app, &elsewhere].iter().for_each(|app| app.faulty_store.slow());
    world.pass(limits::RETRY_AFTER);
    let requests = (0..20).map(|n| browsers[0].grant(if n % 2 == 0 { &app } else { &elsewhere }));
    let grants = join_all(requests).await;
    let token = world.access_token(browsers[0].session).await;
    for grant in grants {
        assert_eq!(grant.expect("LOSER").token.expose(), token);
    }
    assert_eq!((world.twitch.refreshes(), world.twitch.most_sends()), (2, 2), "SPENT");
    assert_eq!(world.twitch.sent_again(), 1);
}

/// LIVE: many lost answers are recovered as fast as our own budget allows. Waiting for the budget
/// is not a failure, so no session gets a backoff.
#[tokio::test(start_paused = true)]
async fn replays_that_wait_for_the_budget_get_no_backoff() {
    let (world, app) = World::with(|setup| {
        setup.mock.rotation = claviger_mock::Rotation::Rotates;
        setup.settings.sweep.validations_per_second = 1;
        setup.settings.refreshes_per_second = 100;
        setup.settings.devices_per_user = 100;
    })
    .await;
    let browsers = world.sign_in_on(&app, 12).await;
    world.expire_tokens();
    for browser in &browsers {
        world.twitch.once(Endpoint::Token, FaultKind::status(500));
        assert!(passing(&browser.asks(&app).await));
        world.wait_out();
    }
    let begun = world.now();
    let mut waiting: Vec<&Browser> = browsers.iter().collect();
    while !waiting.is_empty() {
        let outcomes = join_all(waiting.iter().map(|browser| browser.asks(&app))).await;
        for denied in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(matches!(denied, Denied::ProviderUnavailable { retry_after } if !retry_after.is_zero()));
        }
        let mut denied = outcomes.iter().map(Result::is_err);
        waiting.retain(|_| denied.next().unwrap_or(false));
        world.run_for(SECOND / 2).await;
        assert!(world.now().since(begun) < 20 * SECOND, "LIVE: {} wait", waiting.len());
    }
    assert_eq!(world.twitch.most_sends(), 2, "SPENT");
}

/// Another configured provider must never see this one's tokens.
#[tokio::test(start_paused = true)]
async fn tokens_of_an_unconfigured_provider_are_not_sent() {
    let (mut world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let configured = world.provider.name.clone();
    world.provider.name = claviger_core::ProviderName("another".to_owned());
    let elsewhere = world.instance().await;
    let sent = |world: &World| (world.twitch.refreshes(), world.twitch.calls(Endpoint::Validate));
    let before = sent(&world);
    world.pass(world.settings.lifetimes.proof);
    let outcome = browser.asks(&elsewhere).await;
    assert!(outcome.is_ok() || passing(&outcome), "TRANSIENT {outcome:?}");
    assert_eq!(sent(&world), before, "an access token");
    world.expire_tokens();
    assert_eq!(browser.asks(&elsewhere).await.unwrap_err(), Denied::Misconfigured, "TRANSIENT");
    assert_eq!(sent(&world), before, "a refresh token");
    let owed = claviger_engine::Target::One(browser.session);
    elsewhere.end(owed, claviger_core::session::EndReason::SignedOut).await.unwrap();
    elsewhere.carry_out_revocations().await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::Revoke), 0, "a revocation");
    world.provider.name = configured;
}
