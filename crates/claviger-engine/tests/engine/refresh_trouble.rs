//! Refreshes that fail: a dead token ends its row, and nothing else ends any row.

use claviger_core::{AttemptId, Claim, ClientSecret, EndReason, Expiry, Fingerprint, State, limits};
use claviger_engine::Denied;
use claviger_mock::{DEMO_CLIENT_ID, Endpoint, FaultKind, RetryAfter};
use claviger_store::{Applied, Method, Store as _};

use crate::{
    faulty_store::Trick,
    proofs::troubles,
    world::{ADA, GRACE, HOUR, MINUTE, ONE_TIME, ROTATES, SECOND, TOKEN_LIFE, World, habits, passing},
};

#[tokio::test(start_paused = true)]
async fn a_dead_refresh_token_ends_its_row_and_validates_the_siblings() {
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
        assert!(row.active().unwrap().proven_at >= asked_at, "it was asked about");
    }
    assert_eq!(world.row(devices[1].session).await.version.0, second.version.0 + 1);
    assert_eq!(world.row(bystander.session).await.version.0, 1, "BLAST");
    world.assert_nothing_spent_twice();
}

/// The store can be read but not written for ten minutes, while one browser keeps asking.
#[tokio::test(start_paused = true)]
async fn claims_of_unknown_outcome_do_not_pile_up() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    for _ in 0..10_000 {
        app.faulty_store.next(Method::Apply, Trick::Fail);
    }
    let mut reads = Vec::new();
    for _ in 0..60 {
        let before = world.memory.calls(Method::Load);
        assert!(passing(&browser.asks(&app).await));
        world.run_for(10 * SECOND).await;
        reads.push(world.memory.calls(Method::Load) - before);
    }
    // Each attempt to take a claim back reads the row first.
    assert!(reads[59] <= reads[5], "reads in ten seconds: {reads:?}");
    app.faulty_store.mend();
    world.run_for(limits::COMMIT_PAUSE_MAX).await;
    browser.asks(&app).await.expect("the claim is given back, and taken again");
    assert_eq!(world.twitch.refreshes(), 1);
}

/// Otherwise nothing would take the second claim back if its outcome were unknown too.
#[tokio::test(start_paused = true)]
async fn a_session_is_claimed_again_after_the_last_claim_is_back() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    app.faulty_store.next(Method::Apply, Trick::Fail);
    let taking_back = app.faulty_store.hold_before(Method::Apply);
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
async fn a_disconnect_is_found_on_every_device() {
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
async fn siblings_that_cannot_be_validated_are_left_alone() {
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

/// TRANSIENT: neither before nor after the expiry, and all is well after the outage.
#[tokio::test(start_paused = true)]
async fn a_failing_token_endpoint_signs_nobody_out() {
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
        assert!(matches!(row.state, State::Live(_)) && row.active().unwrap().claim.is_none(), "{kind:?}");
        world.mend();
        browser.asks(&app).await.unwrap_or_else(|denied| panic!("LIVE {kind:?}: {denied}"));
        world.assert_nothing_spent_twice();
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_reaches_the_client() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    // What it asked for, what the client gets, and how long all sessions leave it alone.
    let table = [
        (RetryAfter::Seconds(17), 17 * SECOND, 17 * SECOND),
        (RetryAfter::Seconds(1_000_000), HOUR, limits::PROVIDER_PAUSE_ASKED_MAX),
    ];
    for (wish, told, quiet) in table {
        world.twitch.once(Endpoint::Token, FaultKind::too_many_requests(Some(wish)));
        let outcome = browser.asks(&app).await;
        assert_eq!(outcome.unwrap_err(), Denied::ProviderUnavailable { retry_after: told });
        world.pass(quiet - SECOND);
        let refreshes = world.twitch.refreshes();
        let outcome = browser.asks(&app).await;
        assert_eq!(outcome.unwrap_err(), Denied::ProviderUnavailable { retry_after: SECOND });
        assert_eq!(world.twitch.refreshes(), refreshes, "left alone");
        world.pass(SECOND);
    }
}

/// One user's token may cause a failure. It takes two in a row before everybody has to wait.
#[tokio::test(start_paused = true)]
async fn one_failing_session_delays_no_other() {
    let (world, app) = World::start().await;
    let (unlucky, other) = (world.sign_in(&app, ADA).await, world.sign_in(&app, GRACE).await);
    world.expire_tokens();
    world.twitch.once(Endpoint::Token, FaultKind::too_many_requests(None));
    let outcome = unlucky.asks(&app).await;
    assert_eq!(outcome.unwrap_err(), Denied::ProviderUnavailable { retry_after: limits::RETRY_AFTER });
    other.asks(&app).await.expect("BLAST");
}

/// A claim whose write seemed to fail leaves an ambiguous row as it was: its one replay is neither
/// used up nor taken for a first sending.
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
    app.faulty_store.next(Method::Apply, Trick::FailAfter);
    assert!(passing(&browser.asks(&app).await));
    world.run_for(MINUTE).await;
    let claim = world.row(browser.session).await.active().unwrap().claim.expect("visibly ambiguous");
    assert!(claim.answer_lost && !claim.replay, "SPENT {claim:?}");
    assert_eq!(world.twitch.refreshes(), sent);
    browser.asks(&app).await.expect("LIVE");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_provider_signs_nobody_out() {
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
async fn wrong_credentials_sign_nobody_out() {
    let (mut world, right) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&right, ADA).await;
    world.expire_tokens();
    let mended = world.provider.clone();
    let broken = [(DEMO_CLIENT_ID, "wrong"), (DEMO_CLIENT_ID, ""), ("unknown", "secret")];
    for (client_id, client_secret) in broken {
        world.provider.client.id = client_id.to_owned();
        world.provider.client.secret = ClientSecret::new(client_secret);
        let app = world.instance().await;
        for _ in 0..3 {
            assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Misconfigured);
        }
        let row = world.row(browser.session).await;
        assert!(matches!(row.state, State::Live(_)) && row.active().unwrap().claim.is_none(), "TRANSIENT");
    }
    world.provider = mended;
    let app = world.instance().await;
    browser.asks(&app).await.expect("nothing was spent");
}

#[tokio::test(start_paused = true)]
async fn other_oauth_client_errors_sign_nobody_out() {
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

/// STRAND: the pair is held while the store is down, and committed after that.
#[tokio::test(start_paused = true)]
async fn a_pair_in_hand_waits_for_the_store() {
    for outage in [SECOND, 5 * SECOND, MINUTE, HOUR] {
        let (world, app) = World::with(habits(ONE_TIME)).await;
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        let gate = world.twitch.hold(Endpoint::Token);
        let story = async {
            gate.arrived().await;
            app.faulty_store.down(true);
            gate.open();
            world.run_for(outage).await;
            assert!(world.row(browser.session).await.active().unwrap().claim.is_some(), "visibly in flight");
            app.faulty_store.down(false);
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
async fn a_commit_of_unknown_outcome_is_not_repeated() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    app.faulty_store.next(Method::Apply, Trick::Pass);
    app.faulty_store.next(Method::Apply, Trick::FailAfter);
    browser.asks(&app).await.expect("it is found to be done");
    let row = world.row(browser.session).await;
    assert_eq!((row.version.0, row.pair().unwrap().generation.0), (3, 3), "MONO");
    assert_eq!(world.owed().await, 0, "the pair in use is not revoked");
    assert!(world.twitch.lives(&world.token_of(&row)));
}

/// A claim with an unknown outcome is not sent, and does not look like a lost answer.
#[tokio::test(start_paused = true)]
async fn a_claim_of_unknown_outcome_is_given_back() {
    for trick in [Trick::Fail, Trick::FailAfter] {
        let (world, app) = World::with(habits(ONE_TIME)).await;
        let browser = world.sign_in(&app, ADA).await;
        let before = world.row(browser.session).await;
        world.expire_tokens();
        app.faulty_store.next(Method::Apply, trick);
        assert!(passing(&browser.asks(&app).await));
        world.run_for(SECOND).await;
        assert_eq!(world.twitch.refreshes(), 0, "nothing was sent");
        assert_eq!(world.row(browser.session).await.active().unwrap().claim, None);
        // Nor is it written after everybody has given up on it.
        let claim = Claim {
            attempt: AttemptId([7; 16]),
            taken_at: world.now(),
            lease_until: world.now().after(limits::CLAIM_LEASE),
            fingerprint: Fingerprint([7; 16]),
            replay: false,
            answer_lost: false,
        };
        let late = before.claim(claim).unwrap();
        let told = world.memory.apply(&late).await;
        assert!(matches!(told, Ok(Applied::Conflict(_))), "{told:?}");
        browser.asks(&app).await.expect("TRANSIENT");
    }
}

/// A rejected token's row is ended once, although the store's answer was lost, and the siblings are
/// validated.
#[tokio::test(start_paused = true)]
async fn an_end_of_unknown_outcome_is_found_done() {
    let (world, app) = World::with(habits(ROTATES)).await;
    let devices = world.sign_in_on(&app, 2).await;
    world.twitch.mock().disconnect(ADA, DEMO_CLIENT_ID);
    world.expire_tokens();
    app.faulty_store.next(Method::Apply, Trick::Pass);
    app.faulty_store.next(Method::Apply, Trick::FailAfter);
    let outcome = devices[0].asks(&app).await;
    assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::RefreshTokenRejected));
    world.look_into_suspicions(&app).await;
    let ended = Some(EndReason::DisconnectedAtProvider);
    assert_eq!(world.end_reason(devices[1].session).await, ended, "the user was asked about");
}
