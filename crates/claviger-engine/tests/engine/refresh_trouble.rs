//! Refreshes that fail: a dead token ends its row, and nothing else ends anything.

use claviger_core::{
    ids::AttemptId,
    policy::limits,
    secret::{ClientSecret, Fingerprint},
    session::{Claim, EndReason, State},
    time::Expiry,
};
use claviger_engine::Denied;
use claviger_mock::{DEMO_CLIENT_ID, Endpoint, FaultKind, RetryAfter};
use claviger_store::{Method, Replaced, Store as _};

use crate::{
    proofs::troubles,
    shelf::Trick,
    world::{ADA, GRACE, HOUR, MINUTE, ONE_TIME, ROTATES, SECOND, TOKEN_LIFE, World, habits, passing},
};

#[tokio::test(start_paused = true)]
async fn a_dead_refresh_token_ends_its_own_row_and_the_siblings_are_asked_about() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let devices = world.sign_in_on(&app, 3).await;
    let bystander = world.sign_in(&app, GRACE).await;
    // Only the first device's tokens are dead.
    world.pass(HOUR);
    let (first, second) = (world.row(devices[0].session).await, world.row(devices[1].session).await);
    world.twitch.mock().kill_token(&world.token_of(&first));
    let at = claviger_seal::PairBinding {
        provider: &first.subject.provider,
        session: first.id,
        generation: first.pair().unwrap().generation,
    };
    let lock = claviger_seal::RefreshLock::Device(&devices[0].cookie.secret);
    let sealed = first.pair().unwrap().refresh.as_ref().unwrap();
    let refresh = crate::world::keyring(&[1]).open_refresh(at, lock, sealed).unwrap();
    world.twitch.mock().kill_token(refresh.expose());

    assert_eq!(devices[0].asks(&app).await.unwrap_err(), Denied::Ended(EndReason::RefreshTokenRejected));
    let asked_at = world.now();
    world.look_into_suspicions(&app).await;
    assert_eq!(world.end_reason(devices[0].session).await, Some(EndReason::RefreshTokenRejected));
    for device in &devices[1..] {
        let row = world.row(device.session).await;
        assert!(matches!(row.state, State::Live(_)), "BLAST");
        assert!(row.holding().unwrap().proven_at >= asked_at, "it was asked about");
    }
    assert_eq!(world.row(devices[1].session).await.version.0, second.version.0 + 1);
    assert_eq!(world.row(bystander.session).await.version.0, 1, "BLAST");
    world.assert_nothing_spent_twice();
}

/// The store is read and not written for ten minutes, and one browser asks all the time.
#[tokio::test(start_paused = true)]
async fn claims_of_which_nobody_knows_do_not_pile_up() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    for _ in 0..10_000 {
        app.shelf.next(Method::Replace, Trick::Fail);
    }
    let mut reads = Vec::new();
    for _ in 0..60 {
        let before = world.memory.calls(Method::Load);
        assert!(passing(&browser.asks(&app).await));
        world.run_for(10 * SECOND).await;
        reads.push(world.memory.calls(Method::Load) - before);
    }
    // Each try to take a claim back reads the row first.
    assert!(reads[59] <= reads[5], "reads in ten seconds: {reads:?}");
    app.shelf.mend();
    world.run_for(limits::COMMIT_PAUSE_MAX).await;
    browser.asks(&app).await.expect("the claim is taken back, and taken anew");
    assert_eq!(world.twitch.refreshes(), 1);
}

/// Else the second one would not be taken back, if nobody knew of it either.
#[tokio::test(start_paused = true)]
async fn a_session_is_claimed_again_after_the_last_claim_was_taken_back() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    app.shelf.next(Method::Replace, Trick::Fail);
    let taking_back = app.shelf.hold_before(Method::Replace);
    assert!(passing(&browser.asks(&app).await));
    taking_back.arrived().await;
    assert!(passing(&browser.asks(&app).await));
    assert_eq!((world.row(browser.session).await.version.0, world.twitch.refreshes()), (1, 0));
    taking_back.open();
    world.rest().await;
    browser.asks(&app).await.unwrap();
    assert_eq!(world.twitch.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_user_is_noticed_on_every_device() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let devices = world.sign_in_on(&app, 3).await;
    world.twitch.mock().disconnect(ADA, DEMO_CLIENT_ID);
    world.pass(HOUR);
    assert_eq!(devices[0].asks(&app).await.unwrap_err(), Denied::Ended(EndReason::RefreshTokenRejected));
    world.look_into_suspicions(&app).await;
    for device in &devices[1..] {
        let ended = Some(EndReason::DisconnectedAtProvider);
        assert_eq!(world.end_reason(device.session).await, ended, "without waiting for the device");
        assert_eq!(device.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::DisconnectedAtProvider));
    }
}

#[tokio::test(start_paused = true)]
async fn siblings_that_cannot_be_asked_about_are_left_alone() {
    for kind in troubles() {
        let (world, app) = World::with(habits(ONE_TIME)).await;
        let devices = world.sign_in_on(&app, 2).await;
        world.twitch.mock().kill_tokens(ADA);
        world.twitch.always(Endpoint::Validate, kind.clone());
        world.expire_tokens();
        devices[0].asks(&app).await.unwrap_err();
        world.run_for(MINUTE).await;
        let row = world.row(devices[1].session).await;
        assert_eq!((row.version.0, row.ended()), (1, false), "BLAST {kind:?}");
    }
}

/// TRANSIENT: not before the expiry, not after it, and all is well when the provider is.
#[tokio::test(start_paused = true)]
async fn trouble_with_the_token_endpoint_signs_nobody_out() {
    let refusals = troubles().into_iter().filter(|kind| {
        let ambiguous = matches!(
            kind,
            FaultKind::CloseBefore
                | FaultKind::CloseAfter
                | FaultKind::Malformed { .. }
                | FaultKind::Delay { .. }
                | FaultKind::Status { status: 500 | 502, .. }
                | FaultKind::Status { status: 503, retry_after: None, .. }
        );
        !ambiguous
    });
    for kind in refusals {
        let (world, app) = World::with(habits(ONE_TIME)).await;
        let browser = world.sign_in(&app, ADA).await;
        world.twitch.always(Endpoint::Token, kind.clone());
        world.pass(TOKEN_LIFE - 10 * SECOND);
        browser.asks(&app).await.unwrap_or_else(|denied| panic!("{kind:?}: the token lives: {denied}"));
        browser.grant(&app).await.unwrap_or_else(|denied| panic!("{kind:?}: the token lives: {denied}"));
        world.pass(10 * SECOND);
        for _ in 0..3 {
            let outcome = browser.asks(&app).await;
            assert!(passing(&outcome), "TRANSIENT {kind:?}: {outcome:?}");
            world.pass(HOUR);
        }
        let row = world.row(browser.session).await;
        assert!(matches!(row.state, State::Live(_)) && row.holding().unwrap().claim.is_none(), "{kind:?}");
        world.mend();
        browser.asks(&app).await.unwrap_or_else(|denied| panic!("LIVE {kind:?}: {denied}"));
        world.assert_nothing_spent_twice();
    }
}

#[tokio::test(start_paused = true)]
async fn the_provider_says_when_to_come_back() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    // What it asked for, what the client is told, and for how long all sessions leave it alone.
    let table = [
        (RetryAfter::Seconds(17), 17 * SECOND, 17 * SECOND),
        (RetryAfter::Seconds(1_000_000), HOUR, limits::PROVIDER_PAUSE_ASKED_MAX),
    ];
    for (wish, told, quiet) in table {
        world.twitch.once(Endpoint::Token, FaultKind::too_many_requests(Some(wish)));
        let outcome = browser.asks(&app).await;
        assert_eq!(outcome.unwrap_err(), Denied::ProviderTrouble { retry_after: told });
        world.pass(quiet - SECOND);
        let refreshes = world.twitch.refreshes();
        let outcome = browser.asks(&app).await;
        assert_eq!(outcome.unwrap_err(), Denied::ProviderTrouble { retry_after: SECOND });
        assert_eq!(world.twitch.refreshes(), refreshes, "left alone");
        world.pass(SECOND);
    }
}

/// One user's token may bring trouble about. It takes trouble twice in a row before everybody has to wait.
#[tokio::test(start_paused = true)]
async fn trouble_with_one_session_does_not_hold_up_the_others() {
    let (world, app) = World::start().await;
    let (unlucky, other) = (world.sign_in(&app, ADA).await, world.sign_in(&app, GRACE).await);
    world.expire_tokens();
    world.twitch.once(Endpoint::Token, FaultKind::too_many_requests(None));
    let outcome = unlucky.asks(&app).await;
    assert_eq!(outcome.unwrap_err(), Denied::ProviderTrouble { retry_after: limits::RETRY_AFTER });
    other.asks(&app).await.expect("BLAST");
}

/// A claim whose writing seemed to fail leaves an ambiguous row as it was: its one replay is neither used up nor made
/// to look like a first send.
#[tokio::test(start_paused = true)]
async fn a_replay_that_was_never_sent_leaves_the_row_ambiguous() {
    let (world, app) = World::with(habits(ROTATES)).await;
    world.twitch.mock().settings_mut().rotation = claviger_mock::Rotation::Rotates;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    world.twitch.once(Endpoint::Token, FaultKind::CloseAfter);
    assert!(passing(&browser.asks(&app).await));
    world.wait_out();
    let sent = world.twitch.refreshes();
    app.shelf.next(Method::Replace, Trick::FailAfter);
    assert!(passing(&browser.asks(&app).await));
    world.run_for(MINUTE).await;
    let claim = world.row(browser.session).await.holding().unwrap().claim.expect("visibly ambiguous");
    assert!(claim.answer_lost && !claim.replay, "SPENT {claim:?}");
    assert_eq!(world.twitch.refreshes(), sent);
    browser.asks(&app).await.expect("LIVE");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_cannot_be_reached_signs_nobody_out() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.twitch.unplug();
    for _ in 0..5 {
        world.pass(HOUR);
        let outcome = browser.asks(&app).await;
        assert!(outcome.is_ok() || passing(&outcome), "TRANSIENT {outcome:?}");
    }
    world.mend();
    browser.asks(&app).await.expect("nothing was spent");
}

#[tokio::test(start_paused = true)]
async fn our_own_wrong_credentials_sign_nobody_out() {
    let (mut world, right) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&right, ADA).await;
    world.expire_tokens();
    let mended = world.provider.clone();
    let broken = [(DEMO_CLIENT_ID, "wrong"), (DEMO_CLIENT_ID, ""), ("unknown", "secret")];
    for (client_id, client_secret) in broken {
        world.provider.client_id = client_id.to_owned();
        world.provider.client_secret = ClientSecret::new(client_secret);
        let app = world.instance().await;
        for _ in 0..3 {
            assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Misconfigured);
        }
        let row = world.row(browser.session).await;
        assert!(matches!(row.state, State::Live(_)) && row.holding().unwrap().claim.is_none(), "TRANSIENT");
    }
    world.provider = mended;
    let app = world.instance().await;
    browser.asks(&app).await.expect("nothing was spent");
}

#[tokio::test(start_paused = true)]
async fn other_words_of_oauth_about_our_client_sign_nobody_out() {
    for error in ["invalid_client", "unauthorized_client", "invalid_request", "invalid_scope"] {
        let (world, app) = World::start().await;
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        let body = format!(r#"{{"error":"{error}"}}"#);
        world.twitch.once(Endpoint::Token, FaultKind::Status { status: 400, body, retry_after: None });
        assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Misconfigured, "{error}");
        world.wait_out();
        browser.asks(&app).await.expect("TRANSIENT");
    }
}

/// STRAND: the pair is held while the store is down, and committed when it is back.
#[tokio::test(start_paused = true)]
async fn a_pair_in_hand_waits_for_the_store() {
    for outage in [SECOND, 5 * SECOND, MINUTE, HOUR] {
        let (world, app) = World::with(habits(ONE_TIME)).await;
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        let gate = world.twitch.hold(Endpoint::Token);
        let story = async {
            gate.arrived().await;
            app.shelf.down(true);
            gate.open();
            world.run_for(outage).await;
            assert!(world.row(browser.session).await.holding().unwrap().claim.is_some(), "visibly in flight");
            app.shelf.down(false);
            world.run_for(limits::COMMIT_PAUSE_MAX).await;
        };
        let answered_at = world.now();
        let (outcome, ()) = tokio::join!(browser.asks(&app), story);
        assert!(outcome.is_ok() || passing(&outcome), "{outcome:?}");
        let expiry = world.row(browser.session).await.pair().unwrap().expiry;
        assert_eq!(expiry, Expiry::At(answered_at.after(TOKEN_LIFE)), "it was issued when it was issued");
        let token = world.access_token(browser.session).await;
        assert!(world.twitch.lives(&token), "STRAND after {outage:?}");
        assert_eq!(browser.grant(&app).await.unwrap().token.expose(), token);
        assert_eq!(world.twitch.refreshes(), 1);
        world.assert_nothing_spent_twice();
        assert_eq!(world.owed().await, 0, "the pair is not thrown away");
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_happened_unheard_is_not_done_twice() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    app.shelf.next(Method::Replace, Trick::Pass);
    app.shelf.next(Method::Replace, Trick::FailAfter);
    browser.asks(&app).await.expect("it is found to be done");
    let row = world.row(browser.session).await;
    assert_eq!((row.version.0, row.pair().unwrap().generation.0), (3, 3), "MONO");
    assert_eq!(world.owed().await, 0, "the pair in use is not revoked");
    assert!(world.twitch.lives(&world.token_of(&row)));
}

/// A claim of which nobody can say whether it was written is not sent, and does not look like a lost answer.
#[tokio::test(start_paused = true)]
async fn a_claim_that_was_written_unheard_is_given_back() {
    for trick in [Trick::Fail, Trick::FailAfter] {
        let (world, app) = World::with(habits(ONE_TIME)).await;
        let browser = world.sign_in(&app, ADA).await;
        let before = world.row(browser.session).await;
        world.expire_tokens();
        app.shelf.next(Method::Replace, trick);
        assert!(passing(&browser.asks(&app).await));
        world.run_for(SECOND).await;
        assert_eq!(world.twitch.refreshes(), 0, "nothing was sent");
        assert_eq!(world.row(browser.session).await.holding().unwrap().claim, None);
        // Nor is it written once nobody counts on it any more.
        let claim = Claim {
            attempt: AttemptId([7; 16]),
            taken_at: world.now(),
            lease_until: world.now().after(limits::CLAIM_LEASE),
            fingerprint: Fingerprint([7; 16]),
            replay: false,
            answer_lost: false,
        };
        let late = before.claim(claim).unwrap();
        let told = world.memory.replace_claim(&late).await;
        assert!(matches!(told, Ok(Replaced::Conflict(_))), "{told:?}");
        browser.asks(&app).await.expect("TRANSIENT");
    }
}

/// The row of a rejected token is ended once, although the store did not say so, and the siblings are asked about.
#[tokio::test(start_paused = true)]
async fn an_end_that_happened_unheard_is_found_to_be_done() {
    let (world, app) = World::with(habits(ROTATES)).await;
    let devices = world.sign_in_on(&app, 2).await;
    world.twitch.mock().disconnect(ADA, DEMO_CLIENT_ID);
    world.expire_tokens();
    app.shelf.next(Method::Replace, Trick::Pass);
    app.shelf.next(Method::Replace, Trick::FailAfter);
    let outcome = devices[0].asks(&app).await;
    assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::RefreshTokenRejected));
    world.look_into_suspicions(&app).await;
    let ended = Some(EndReason::DisconnectedAtProvider);
    assert_eq!(world.end_reason(devices[1].session).await, ended, "the user was asked about");
}
