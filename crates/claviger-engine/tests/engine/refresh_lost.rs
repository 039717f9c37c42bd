//! A refresh whose answer is lost: the row says so, and the provider's habits decide what follows.

use claviger_core::{Assurance, ProviderHabits, Rotation, State, limits};
use claviger_engine::{Denied, Target};
use claviger_mock::{Endpoint, FaultKind, MalformedBody};

use crate::world::{
    ADA, Browser, Instance, MINUTE, ONE_TIME, ROTATES, SECOND, TOKEN_LIFE, World, habits, passing,
};

/// A world whose only session has just lost the answer to a refresh, which did or did not take
/// effect.
async fn after_a_lost_answer(
    own: ProviderHabits,
    rotation: claviger_mock::Rotation,
    kind: FaultKind,
) -> (World, Instance, Browser) {
    let (world, app) = World::with(|setup| {
        setup.provider.habits = own;
        setup.mock.rotation = rotation;
    })
    .await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    world.twitch.once(Endpoint::Token, kind);
    let outcome = browser.asks(&app).await;
    assert!(passing(&outcome), "TRANSIENT {outcome:?}");
    let row = world.row(browser.session).await;
    assert!(row.ambiguous(world.now()), "visibly");
    assert!(row.active().unwrap().claim.unwrap().answer_lost);
    world.pass(limits::RETRY_AFTER);
    (world, app, browser)
}

fn lost_answers() -> [FaultKind; 6] {
    [
        FaultKind::CloseAfter,
        FaultKind::CloseBefore,
        FaultKind::delay(MINUTE),
        FaultKind::Malformed { body: MalformedBody::Html },
        FaultKind::Malformed { body: MalformedBody::Truncated },
        FaultKind::Malformed { body: MalformedBody::OtherShape },
    ]
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_replayed_once() {
    for kind in lost_answers() {
        let (world, app, browser) =
            after_a_lost_answer(ROTATES, claviger_mock::Rotation::Rotates, kind.clone()).await;
        let validated = world.twitch.calls(Endpoint::Validate);
        browser.asks(&app).await.unwrap_or_else(|denied| panic!("LIVE {kind:?}: {denied}"));
        assert_eq!(world.twitch.calls(Endpoint::Validate), validated + 1, "the provider was asked first");
        assert_eq!(world.twitch.refreshes(), 2);
        let replays = u64::from(kind != FaultKind::CloseBefore);
        assert_eq!(world.twitch.mock().counters().reused_refresh_tokens, replays, "SPENT: one replay");
        let row = world.row(browser.session).await;
        assert_eq!(row.active().unwrap().claim, None);
        assert!(world.twitch.lives(&world.token_of(&row)));
    }
}

/// A replay must not be wasted on an outage.
#[tokio::test(start_paused = true)]
async fn nothing_is_replayed_during_an_outage() {
    let (world, app, browser) =
        after_a_lost_answer(ROTATES, claviger_mock::Rotation::Rotates, FaultKind::CloseAfter).await;
    for kind in crate::proofs::troubles() {
        world.twitch.mock().clear_faults();
        world.twitch.always(Endpoint::Validate, kind.clone());
        let outcome = browser.asks(&app).await;
        assert!(passing(&outcome), "TRANSIENT {kind:?}: {outcome:?}");
        assert_eq!(world.twitch.refreshes(), 1, "SPENT {kind:?}");
        world.pass(MINUTE);
    }
    world.mend();
    browser.asks(&app).await.expect("LIVE");
}

/// SPENT: after a second lost answer the token is never sent again.
#[tokio::test(start_paused = true)]
async fn a_lost_replay_is_not_repeated() {
    let harmful = ProviderHabits { reuse_kills_connection: true, ..ROTATES };
    for own in [ROTATES, harmful] {
        let (world, app, browser) =
            after_a_lost_answer(own, claviger_mock::Rotation::Rotates, FaultKind::CloseAfter).await;
        world.twitch.once(Endpoint::Token, FaultKind::CloseAfter);
        assert!(passing(&browser.asks(&app).await));
        for _ in 0..3 {
            world.pass(MINUTE);
            assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::SignInAgain);
        }
        assert_eq!(world.twitch.mock().counters().reused_refresh_tokens, 1, "SPENT");
        assert_eq!(world.end_reason(browser.session).await, None, "TRANSIENT");
    }
}

/// LIVE: a replay that the provider refused to process is not used up.
#[tokio::test(start_paused = true)]
async fn a_refused_replay_is_retried() {
    let (world, app, browser) =
        after_a_lost_answer(ROTATES, claviger_mock::Rotation::Rotates, FaultKind::CloseAfter).await;
    for kind in [FaultKind::status(503), FaultKind::status(404), FaultKind::too_many_requests(None)] {
        world.twitch.once(Endpoint::Token, kind.clone());
        let outcome = browser.asks(&app).await;
        assert!(passing(&outcome), "TRANSIENT {kind:?}: {outcome:?}");
        assert!(world.row(browser.session).await.ambiguous(world.now()), "visibly");
        world.wait_out();
    }
    browser.asks(&app).await.expect("LIVE");
    assert_eq!(world.twitch.mock().counters().reused_refresh_tokens, 1, "SPENT");
}

/// Where a refresh kills the old access token, its early death shows that the lost answer held a
/// pair.
#[tokio::test(start_paused = true)]
async fn a_spent_token_is_not_replayed_where_reuse_harms() {
    let strict = ProviderHabits { replay_window: 10 * MINUTE, old_access_token_survives: false, ..ONE_TIME };
    let (world, app) = World::with(|setup| {
        habits(strict)(setup);
        setup.mock.rotation = claviger_mock::Rotation::OneTimeKillsConnection;
    })
    .await;
    let browser = world.sign_in(&app, ADA).await;
    let token = world.access_token(browser.session).await;
    assert!(world.twitch.mock().kill_token(&token));
    world.pass(world.settings.lifetimes.proof);
    world.twitch.once(Endpoint::Token, FaultKind::CloseAfter);
    assert!(
        passing(&browser.asks(&app).await),
        "the old token is dead, and the answer to the refresh is lost"
    );
    for _ in 0..3 {
        world.pass(MINUTE);
        assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::SignInAgain);
    }
    assert_eq!(world.twitch.refreshes(), 1);
    world.assert_nothing_spent_twice();
    assert!(
        world.row(browser.session).await.beyond_refresh(world.now(), &strict),
        "a new authorization repairs it"
    );
}

/// A rejected replay is not the provider's failure, so no other session waits for it.
#[tokio::test(start_paused = true)]
async fn a_rejected_replay_delays_no_other() {
    let (world, app, browser) =
        after_a_lost_answer(ROTATES, claviger_mock::Rotation::OneTime, FaultKind::CloseAfter).await;
    let other = world.sign_in(&app, crate::world::GRACE).await;
    world.expire_tokens();
    browser.asks(&app).await.unwrap_err();
    other.asks(&app).await.expect("BLAST");
}

/// A dead token after a lost answer proves only that the lost answer held its successor.
#[tokio::test(start_paused = true)]
async fn a_rejected_replay_ends_nothing() {
    let (world, app, browser) =
        after_a_lost_answer(ROTATES, claviger_mock::Rotation::OneTime, FaultKind::CloseAfter).await;
    let outcome = browser.asks(&app).await;
    assert!(passing(&outcome), "TRANSIENT {outcome:?}");
    world.wait_out();
    assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::SignInAgain);
    assert_eq!(world.end_reason(browser.session).await, None, "TRANSIENT");
    assert!(world.row(browser.session).await.ambiguous(world.now()));
    world.sign_in_again(&app, ADA, Some(&browser.cookie)).await.expect("the user signs in over it");
}

#[tokio::test(start_paused = true)]
async fn a_one_time_token_is_not_replayed_outside_the_window() {
    let (world, app, browser) =
        after_a_lost_answer(ONE_TIME, claviger_mock::Rotation::OneTimeKillsConnection, FaultKind::CloseAfter)
            .await;
    let row = world.row(browser.session).await;
    for assurance in [Assurance::Session, crate::world::NOW] {
        assert_eq!(browser.asks_with(&app, assurance).await.unwrap_err(), Denied::SignInAgain);
    }
    assert_eq!(world.row(browser.session).await, row, "the row stays as it is");
    assert_eq!(world.twitch.refreshes(), 1, "SPENT");
    world.assert_nothing_spent_twice();
    assert!(matches!(row.state, State::Live(_)) && row.ambiguous(world.now()), "visibly ambiguous");
    browser.asks_with(&app, Assurance::Cookie).await.expect("the user is still signed in with us");
}

#[tokio::test(start_paused = true)]
async fn a_one_time_token_is_replayed_inside_the_window() {
    let windowed = ProviderHabits { replay_window: MINUTE, ..ONE_TIME };
    for (late, replayed) in [(false, true), (true, false)] {
        // The mock never repeats an answer. A connection that closed before the deed stands for it.
        let (world, app, browser) =
            after_a_lost_answer(windowed, claviger_mock::Rotation::OneTime, FaultKind::CloseBefore).await;
        // It has to arrive within the window.
        let travels = limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER;
        world.pass(MINUTE - travels - if late { SECOND } else { limits::RETRY_AFTER + SECOND });
        if late {
            world.pass(limits::RETRY_AFTER + SECOND);
        }
        assert_eq!(browser.asks(&app).await.is_ok(), replayed);
        assert_eq!(world.twitch.refreshes(), 1 + u64::from(replayed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reusable_token_is_retried_after_lost_answers() {
    let own = ProviderHabits { rotation: Rotation::None, ..ONE_TIME };
    let (world, app, browser) =
        after_a_lost_answer(own, claviger_mock::Rotation::None, FaultKind::CloseAfter).await;
    for _ in 0..3 {
        world.twitch.once(Endpoint::Token, FaultKind::CloseAfter);
        assert!(passing(&browser.asks(&app).await));
        world.wait_out();
    }
    browser.asks(&app).await.expect("LIVE");
}

/// The access token serves while it lives, whatever became of the refresh.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_keeps_the_access_token() {
    for kind in lost_answers().into_iter().chain([FaultKind::status(500), FaultKind::status(504)]) {
        let (world, app) = World::with(habits(ONE_TIME)).await;
        let browser = world.sign_in(&app, ADA).await;
        world.twitch.once(Endpoint::Token, kind.clone());
        world.pass(TOKEN_LIFE - 20 * SECOND);
        for _ in 0..2 {
            browser.grant(&app).await.unwrap_or_else(|denied| panic!("{kind:?}: {denied}"));
        }
        assert!(world.row(browser.session).await.ambiguous(world.now()), "visibly {kind:?}");
        world.pass(20 * SECOND);
        assert_eq!(browser.grant(&app).await.unwrap_err(), Denied::SignInAgain);
        assert_eq!(world.twitch.refreshes(), 1, "SPENT");
    }
}

/// An instance that dies during a refresh leaves a claim, whose lease says when others may act.
#[tokio::test(start_paused = true)]
async fn the_claim_of_a_crashed_instance_holds_until_its_lease_ends() {
    let (world, dying) = World::with(|setup| {
        setup.provider.habits = ROTATES;
        setup.mock.rotation = claviger_mock::Rotation::Rotates;
    })
    .await;
    let app = world.instance().await;
    let browser = world.sign_in(&dying, ADA).await;
    world.expire_tokens();
    let never = world.twitch.hold(Endpoint::Token);
    tokio::select! {
        biased;
        () = never.arrived() => {}
        _ = browser.asks(&dying) => panic!("the answer is held"),
    }
    let outcome = browser.asks(&app).await;
    assert!(passing(&outcome), "LOSER: it waits, and says come back: {outcome:?}");
    assert_eq!(world.twitch.refreshes(), 1, "SPENT");
    world.run_for(SECOND).await;
    world.clock.jump(limits::CLAIM_LEASE);
    assert!(world.row(browser.session).await.ambiguous(world.now()), "STRAND: visibly");
    browser.asks(&app).await.expect("LIVE");
    assert_eq!(world.twitch.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_logout_of_an_ambiguous_session_is_final() {
    let (world, app, browser) =
        after_a_lost_answer(ROTATES, claviger_mock::Rotation::Rotates, FaultKind::CloseAfter).await;
    app.end(Target::One(browser.session), claviger_core::session::EndReason::SignedOut).await.unwrap();
    assert!(matches!(browser.asks(&app).await, Err(Denied::Ended(_))), "ENDED");
    assert_eq!(world.twitch.refreshes(), 1, "never replayed after a logout");
}

/// STRAND: an answer after the lease is still the only good pair if no other instance got one.
#[tokio::test(start_paused = true)]
async fn a_pair_after_the_lease_is_stored_if_there_is_no_other() {
    let (world, slow) = World::with(habits(ONE_TIME)).await;
    let app = world.instance().await;
    let browser = world.sign_in(&slow, ADA).await;
    world.expire_tokens();
    let gate = world.twitch.hold(Endpoint::Token);
    let story = async {
        gate.arrived().await;
        world.clock.jump(2 * limits::CLAIM_LEASE);
        assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::SignInAgain, "no replay");
        gate.open();
    };
    let (outcome, ()) = tokio::join!(browser.asks(&slow), story);
    outcome.unwrap();
    assert!(world.twitch.lives(&world.access_token(browser.session).await), "STRAND");
    browser.asks(&app).await.expect("LIVE");
    world.assert_nothing_spent_twice();
}

/// STRAND: as above, when another instance tried a replay meanwhile and was refused.
#[tokio::test(start_paused = true)]
async fn a_failed_replay_does_not_discard_the_pair() {
    for replay in [FaultKind::CloseBefore, FaultKind::status(503), FaultKind::delay(SECOND)] {
        let (world, cut_off) = World::with(|setup| {
            setup.provider.habits = ROTATES;
            setup.mock.rotation = claviger_mock::Rotation::OneTime;
        })
        .await;
        let app = world.instance().await;
        let browser = world.sign_in(&cut_off, ADA).await;
        world.expire_tokens();
        let gate = world.twitch.hold(Endpoint::Token);
        let story = async {
            gate.arrived().await;
            cut_off.faulty_store.down(true);
            gate.open();
            world.rest().await;
            world.clock.jump(limits::CLAIM_LEASE);
            world.twitch.once(Endpoint::Token, replay.clone());
            let outcome = browser.asks(&app).await;
            assert!(passing(&outcome) || matches!(outcome, Err(Denied::SignInAgain)), "{outcome:?}");
            cut_off.faulty_store.down(false);
            world.run_for(2 * limits::COMMIT_PAUSE_MAX).await;
        };
        let (_, ()) = tokio::join!(browser.asks(&cut_off), story);
        let row = world.row(browser.session).await;
        assert!(world.twitch.lives(&world.token_of(&row)), "STRAND after {replay:?}");
        for app in [&app, &cut_off] {
            browser.asks(app).await.unwrap_or_else(|denied| panic!("LIVE after {replay:?}: {denied}"));
        }
    }
}

/// A provider that answers a replay with the same pair: the later of two holders must not revoke
/// it.
#[tokio::test(start_paused = true)]
async fn a_pair_given_to_two_instances_is_not_revoked() {
    let (world, cut_off) = World::with(|setup| {
        setup.provider.habits = ROTATES;
        setup.mock.rotation = claviger_mock::Rotation::Rotates;
    })
    .await;
    let app = world.instance().await;
    let browser = world.sign_in(&cut_off, ADA).await;
    world.expire_tokens();
    let gate = world.twitch.hold(Endpoint::Token);
    let story = async {
        gate.arrived().await;
        let access =
            world.twitch.secrets().into_iter().rev().nth(1).expect("a refresh token is the last secret");
        cut_off.faulty_store.down(true);
        gate.open();
        world.rest().await;
        world.clock.jump(limits::CLAIM_LEASE);
        world.twitch.rewrite(Endpoint::Token, move |body| body["access_token"] = access.clone().into());
        browser.asks(&app).await.expect("replayed");
        cut_off.faulty_store.down(false);
        world.run_for(2 * limits::COMMIT_PAUSE_MAX).await;
    };
    let (_, ()) = tokio::join!(browser.asks(&cut_off), story);
    assert_eq!(world.owed().await, 0);
    assert!(world.twitch.lives(&world.access_token(browser.session).await));
}
