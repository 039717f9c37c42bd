//! Requests that wait for the provider, and what happens to their session meanwhile.

use claviger_core::{
    policy::limits,
    session::{EndReason, State},
    verdict::ApiRefusal,
};
use claviger_engine::{Denied, Target};
use claviger_mock::{Endpoint, FaultKind, RetryAfter};
use claviger_store::{Method, Replaced, Store as _};

use crate::world::{ADA, GRACE, HOUR, MINUTE, ONE_TIME, SECOND, TOKEN_LIFE, World, habits, passing};

const OVER: EndReason = EndReason::SignedOutFromAnotherDevice;

/// Answers that prove nothing, so that a request would be served on what was known before.
fn that_prove_nothing() -> [FaultKind; 5] {
    [
        FaultKind::too_many_requests(None),
        FaultKind::status(404),
        FaultKind::status(500),
        FaultKind::CloseBefore,
        FaultKind::delay(MINUTE),
    ]
}

/// ENDED: a request that waits for a proof is not served on the old one once its session is over.
#[tokio::test(start_paused = true)]
async fn who_waited_for_a_proof_is_told_that_the_session_ended_meanwhile() {
    for kind in that_prove_nothing() {
        let (world, app) = World::start().await;
        let browser = world.sign_in(&app, ADA).await;
        world.pass(HOUR);
        world.twitch.always(Endpoint::Validate, kind.clone());
        let gate = world.twitch.hold(Endpoint::Validate);
        let ending = async {
            gate.arrived().await;
            app.end(Target::One(browser.session), OVER).await.unwrap();
            gate.open();
        };
        let (asked, granted, ()) = tokio::join!(browser.asks(&app), browser.grant(&app), ending);
        assert_eq!(asked.unwrap_err(), Denied::Ended(OVER), "ENDED {kind:?}");
        assert_eq!(granted.unwrap_err(), Denied::Ended(OVER), "ENDED {kind:?}");
    }
}

/// ENDED: the same with a refresh within the margin, where the old token would have done.
#[tokio::test(start_paused = true)]
async fn who_waited_for_a_refresh_is_told_that_the_session_ended_meanwhile() {
    for lives in [true, false] {
        for kind in that_prove_nothing() {
            let (world, app) = World::with(habits(ONE_TIME)).await;
            let browser = world.sign_in(&app, ADA).await;
            world.pass(if lives { TOKEN_LIFE - 25 * SECOND } else { TOKEN_LIFE });
            world.twitch.always(Endpoint::Token, kind.clone());
            let gate = world.twitch.hold(Endpoint::Token);
            let ending = async {
                gate.arrived().await;
                app.end(Target::One(browser.session), OVER).await.unwrap();
                gate.open();
            };
            let (asked, granted, ()) = tokio::join!(browser.asks(&app), browser.grant(&app), ending);
            assert_eq!(asked.unwrap_err(), Denied::Ended(OVER), "ENDED {kind:?}");
            assert_eq!(granted.unwrap_err(), Denied::Ended(OVER), "ENDED {kind:?}");
        }
    }
}

/// ENDED: nor is it served when its patience is over before the refresh is.
#[tokio::test(start_paused = true)]
async fn who_waited_in_vain_is_not_served_after_the_end() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.pass(TOKEN_LIFE - 25 * SECOND);
    let gate = world.twitch.hold(Endpoint::Token);
    let ending = async {
        gate.arrived().await;
        app.end(Target::One(browser.session), OVER).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(browser.asks(&app), ending);
    assert_eq!(outcome.unwrap_err(), Denied::Ended(OVER), "ENDED");
    gate.open();
    world.rest().await;
    app.settle_owed().await.unwrap();
    assert_eq!(world.twitch.mock().live_access_tokens(ADA), 0, "CASCADE");
}

/// A token that the provider's API called dead meanwhile is handed to nobody who waits for a proof of it.
#[tokio::test(start_paused = true)]
async fn who_waited_for_a_proof_gets_no_token_that_became_suspect_meanwhile() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    let refused = browser.grant(&app).await.unwrap();
    world.twitch.mock().kill_token(refused.token.expose());
    world.pass(HOUR);
    world.twitch.once(Endpoint::Validate, FaultKind::CloseBefore);
    let (proof, token) = (world.twitch.hold(Endpoint::Validate), world.twitch.hold(Endpoint::Token));
    let story = async {
        proof.arrived().await;
        let refusal = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken);
        let letting_go = async {
            token.arrived().await;
            proof.open();
            world.rest().await;
            token.open();
        };
        tokio::join!(refusal, letting_go).0
    };
    let (waited, again) = tokio::join!(browser.grant(&app), story);
    let fresh = world.access_token(browser.session).await;
    assert_eq!(again.unwrap().unwrap().token.expose(), fresh);
    assert_eq!(waited.unwrap().token.expose(), fresh);
    assert_eq!(world.twitch.refreshes(), 1);
}

/// Only the probe may give the probe's place back: who had leave to ask from before the pause asks nobody in.
#[tokio::test(start_paused = true)]
async fn while_a_probe_is_out_nobody_else_asks_whoever_gives_up() {
    let (world, app) = World::with(|setup| {
        habits(ONE_TIME)(setup);
        setup.settings.devices_per_user = 100;
    })
    .await;
    let browsers = world.sign_in_on(&app, 4).await;
    world.pass(TOKEN_LIFE - 20 * SECOND);
    // The first has leave to ask, and stands still before its claim is written.
    let claim = app.shelf.hold_before(Method::Replace);
    let story = async {
        claim.arrived().await;
        world.twitch.once(Endpoint::Token, FaultKind::too_many_requests(Some(RetryAfter::Seconds(2))));
        browsers[1].asks(&app).await.expect("the old token lives");
        world.run_for(3 * SECOND).await;
        let probe = world.twitch.hold(Endpoint::Token);
        let probing = async {
            probe.arrived().await;
            let sent = world.twitch.refreshes();
            // Another writer was first, so that the first gives its leave back.
            let row = world.row(browsers[0].session).await;
            let generation = row.generation().unwrap();
            let proven = row.prove(generation, world.now()).unwrap();
            assert_eq!(world.memory.replace(&proven, None).await, Ok(Replaced::Done));
            claim.open();
            world.rest().await;
            browsers[3].asks(&app).await.expect("the old token lives");
            assert_eq!(world.twitch.refreshes(), sent, "it waits for the probe's answer");
            probe.open();
        };
        let (probed, ()) = tokio::join!(browsers[2].asks(&app), probing);
        probed.expect("the provider is back");
    };
    let (first, ()) = tokio::join!(browsers[0].asks(&app), story);
    first.expect("the old token lives");
    for browser in &browsers {
        browser.asks(&app).await.expect("LIVE");
    }
    world.assert_nothing_spent_twice();
}

/// A refresh that nobody waits for does not begin while others wait for their turn, so that a request that comes by later
/// is not refused for its lack of patience.
#[tokio::test(start_paused = true)]
async fn an_early_refresh_does_not_begin_while_others_wait_for_their_turn() {
    let (world, app) = World::with(|setup| {
        habits(ONE_TIME)(setup);
        setup.settings.devices_per_user = 100;
        setup.settings.refreshes_per_second = 1;
    })
    .await;
    let crowd = world.sign_in_on(&app, 6).await;
    world.pass(MINUTE);
    let early = world.sign_in(&app, GRACE).await;
    let margin = world.settings.lifetimes.refresh_margin;
    world.pass(TOKEN_LIFE - margin - MINUTE - SECOND);
    early.asks(&app).await.expect("a fresh proof");
    world.rest().await;
    world.pass(MINUTE);
    let generation = world.row(early.session).await.generation();
    let refreshed_before = world.twitch.refreshes();
    let waiting = futures_util::future::join_all(crowd.iter().map(|browser| browser.asks(&app)));
    let story = async {
        world.run_for(SECOND / 2).await;
        early.asks(&app).await.expect("served with the old token");
        world.rest().await;
        world.row(early.session).await.holding().unwrap().claim
    };
    let (outcomes, claim) = tokio::join!(waiting, story);
    assert_eq!(claim, None, "others were waiting");
    for outcome in outcomes {
        outcome.expect("LIVE");
    }
    // It may have been refreshed before the crowd came, at its own moment.
    let own = u64::from(world.row(early.session).await.generation() > generation);
    assert_eq!(world.twitch.refreshes(), refreshed_before + 6 + own);
    world.pass(margin);
    early.grant(&app).await.expect("LIVE");
}

/// A session whose proof is too old is set aside once, however many ask while the provider is away.
#[tokio::test(start_paused = true)]
async fn a_crowd_on_an_unproven_session_parks_it_once() {
    let (world, app) = World::with(|setup| {
        setup.settings.lifetimes.max_unverified = HOUR;
    })
    .await;
    app.shelf.slow();
    let browser = world.sign_in(&app, ADA).await;
    world.pass(2 * HOUR);
    for endpoint in [Endpoint::Validate, Endpoint::Token] {
        world.twitch.always(endpoint, FaultKind::status(404));
    }
    let outcomes = futures_util::future::join_all((0..100).map(|_| browser.asks(&app))).await;
    assert!(outcomes.iter().all(passing), "TRANSIENT");
    let row = world.row(browser.session).await;
    assert!(matches!(row.state, State::Parked(_)));
    assert!(row.version.0 <= 6, "parked once, claimed and released at most twice: {:?}", row.version);
    world.mend();
    world.pass(limits::PROVIDER_PAUSE_MAX);
    browser.asks(&app).await.expect("LIVE");
}
