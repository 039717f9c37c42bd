//! Requests that wait for the provider, and what happens to their session meanwhile.

use claviger_core::{ApiRefusal, EndReason, State, limits};
use claviger_engine::{Denied, Target};
use claviger_mock::{Endpoint, FaultKind, RetryAfter};
use claviger_store::{Applied, Method, Store as _};

use crate::world::{ADA, GRACE, HOUR, MINUTE, ONE_TIME, SECOND, TOKEN_LIFE, World, habits, passing};

const OVER: EndReason = EndReason::SignedOutFromAnotherDevice;

/// Answers that prove nothing, so that a request is served on what was known before.
fn that_prove_nothing() -> [FaultKind; 5] {
    [
        FaultKind::too_many_requests(None),
        FaultKind::status(404),
        FaultKind::status(500),
        FaultKind::CloseBefore,
        FaultKind::delay(MINUTE),
    ]
}

/// ENDED: a request that waits for a proof is not served on the old one after its session ended.
#[tokio::test(start_paused = true)]
async fn a_request_that_waited_for_a_proof_sees_the_end() {
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

/// ENDED: as above for a refresh within the margin, where the old token would have sufficed.
#[tokio::test(start_paused = true)]
async fn a_request_that_waited_for_a_refresh_sees_the_end() {
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

/// ENDED: nor is it served when it stops waiting before the refresh is done.
#[tokio::test(start_paused = true)]
async fn a_request_that_waited_in_vain_is_not_served_after_the_end() {
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
    app.carry_out_revocations().await.unwrap();
    assert_eq!(world.twitch.mock().live_access_tokens(ADA), 0, "CASCADE");
}

/// A request that waits for a proof never gets a token that the provider's API refused meanwhile.
#[tokio::test(start_paused = true)]
async fn a_request_that_waited_for_a_proof_gets_no_suspect_token() {
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

/// Only the trial's own request may give its permit back. A request that got its permit before the
/// breaker opened lets no other in.
#[tokio::test(start_paused = true)]
async fn an_older_permit_does_not_end_the_trial() {
    let (world, app) = World::with(|setup| {
        habits(ONE_TIME)(setup);
        setup.settings.devices_per_user = 100;
    })
    .await;
    let browsers = world.sign_in_on(&app, 4).await;
    world.pass(TOKEN_LIFE - 20 * SECOND);
    // The first has its permit, and stops before its claim is written.
    let claim = app.faulty_store.hold_before(Method::Apply);
    let story = async {
        claim.arrived().await;
        world.twitch.once(Endpoint::Token, FaultKind::too_many_requests(Some(RetryAfter::Seconds(2))));
        browsers[1].asks(&app).await.expect("the old token lives");
        world.run_for(3 * SECOND).await;
        let probe = world.twitch.hold(Endpoint::Token);
        let probing = async {
            probe.arrived().await;
            let sent = world.twitch.refreshes();
            // Another writer was first, so the first returns its permit.
            let row = world.row(browsers[0].session).await;
            let generation = row.generation().unwrap();
            let proven = row.prove(generation, world.now()).unwrap();
            assert_eq!(world.memory.apply(&proven).await, Ok(Applied::Done));
            claim.open();
            world.rest().await;
            browsers[3].asks(&app).await.expect("the old token lives");
            assert_eq!(world.twitch.refreshes(), sent, "it waits for the trial's answer");
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

/// A refresh that no request waits for does not begin while others wait for permits. Otherwise a
/// later request could be refused.
#[tokio::test(start_paused = true)]
async fn an_early_refresh_waits_until_nobody_waits_for_a_permit() {
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
        world.row(early.session).await.active().unwrap().claim
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

/// A session with too old a proof is parked once, however many requests come during an outage.
#[tokio::test(start_paused = true)]
async fn an_unproven_session_is_parked_once() {
    let (world, app) = World::with(|setup| {
        setup.settings.lifetimes.max_unverified = HOUR;
    })
    .await;
    app.faulty_store.slow();
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
