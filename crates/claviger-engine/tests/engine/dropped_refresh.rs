//! The caller of a refresh goes away at every point of every path, and the pair is stored all the
//! same.

use claviger_core::{ApiRefusal, ProviderHabits, limits};
use claviger_mock::{Endpoint, FaultKind, Rotation};
use claviger_store::Method;

use crate::{
    dropped::{at_every_point, drop_after},
    faulty_store::Trick,
    world::{ADA, Browser, GRACE, Instance, MINUTE, ONE_TIME, ROTATES, SECOND, World, passing},
};

async fn slow_world(own: ProviderHabits, rotation: Rotation) -> (World, Instance) {
    let (world, app) = World::with(|setup| {
        setup.provider.habits = own;
        setup.mock.rotation = rotation;
        setup.settings.refreshes_per_second = 1;
    })
    .await;
    app.faulty_store.slow();
    (world, app)
}

/// STRAND: a refresh that was sent leaves its new pair in the row and no claim; one that was not
/// sent leaves no trace. The next request is served, and the token was sent exactly this often.
async fn assert_stored(world: &World, app: &Instance, browser: &Browser, polls: usize, sends: u64) {
    world.run_for(5 * SECOND).await;
    let row = world.row(browser.session).await;
    let sent = world.twitch.refreshes() == sends;
    assert_eq!(row.pair().unwrap().generation.0 > 1, sent, "STRAND after {polls} polls");
    if sent {
        assert_eq!(row.active().unwrap().claim, None, "after {polls} polls");
        assert!(world.twitch.lives(&world.token_of(&row)), "STRAND after {polls} polls");
    }
    browser.asks(app).await.unwrap_or_else(|denied| panic!("LIVE after {polls} polls: {denied}"));
    assert_eq!(world.twitch.refreshes(), sends, "after {polls} polls");
    assert_eq!(world.owed().await, 0, "after {polls} polls");
}

/// The old token is validated, the claim is written as a replay, and the token is sent again.
#[tokio::test(start_paused = true)]
async fn a_replay_is_finished_without_its_caller() {
    at_every_point!(slow_world(ROTATES, Rotation::Rotates), |world, app, polls| {
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        world.twitch.once(Endpoint::Token, FaultKind::CloseAfter);
        assert!(passing(&browser.asks(&app).await));
        world.pass(MINUTE);
        let finished = drop_after(polls, browser.asks(&app)).await;
        assert_stored(&world, &app, &browser, polls, 2).await;
        assert_eq!(world.twitch.most_sends(), 2, "SPENT after {polls} polls");
        finished
    });
}

/// Another instance refreshes. A caller that waits for its pair and leaves changes nothing and
/// sends nothing.
#[tokio::test(start_paused = true)]
async fn an_abandoned_wait_for_another_instance_changes_nothing() {
    at_every_point!(slow_world(ONE_TIME, Rotation::OneTimeKillsConnection), |world, app, polls| {
        let elsewhere = world.instance().await;
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        let gate = world.twitch.hold(Endpoint::Token);
        let waits = async {
            gate.arrived().await;
            let letting_go = async {
                world.run_for(SECOND / 5).await;
                gate.open();
            };
            tokio::join!(drop_after(polls, browser.asks(&app)), letting_go).0
        };
        let (winner, finished) = tokio::join!(browser.asks(&elsewhere), waits);
        winner.expect("LOSER");
        assert_stored(&world, &app, &browser, polls, 1).await;
        world.assert_nothing_spent_twice();
        finished
    });
}

/// The budget is used up, so that the refresh waits for a permit.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_waited_for_a_permit_is_finished_without_its_caller() {
    at_every_point!(slow_world(ONE_TIME, Rotation::OneTimeKillsConnection), |world, app, polls| {
        let browser = world.sign_in(&app, ADA).await;
        let others = [world.sign_in(&app, GRACE).await, world.sign_in(&app, GRACE).await];
        world.expire_tokens();
        for other in &others {
            other.asks(&app).await.unwrap();
        }
        let begun = world.now();
        let finished = drop_after(polls, browser.asks(&app)).await;
        assert!(!finished || world.now().since(begun) >= SECOND / 2, "it had to wait");
        assert_stored(&world, &app, &browser, polls, 3).await;
        world.assert_nothing_spent_twice();
        finished
    });
}

/// The outcome of the claim's write is unknown. The claim is given back even without its caller,
/// and nothing was sent.
#[tokio::test(start_paused = true)]
async fn a_claim_of_unknown_outcome_is_given_back_without_its_caller() {
    for trick in [Trick::FailAfter, Trick::Fail] {
        at_every_point!(slow_world(ONE_TIME, Rotation::OneTimeKillsConnection), |world, app, polls| {
            let browser = world.sign_in(&app, ADA).await;
            world.expire_tokens();
            app.faulty_store.next(Method::Apply, trick.clone());
            let finished = drop_after(polls, browser.asks(&app)).await;
            world.run_for(5 * SECOND).await;
            assert_eq!(world.row(browser.session).await.active().unwrap().claim, None, "after {polls} polls");
            assert_eq!(world.twitch.refreshes(), 0, "nothing was sent");
            // A request that left early may not have met the fault.
            let _ = browser.asks(&app).await;
            world.run_for(5 * SECOND).await;
            assert_stored(&world, &app, &browser, polls, 1).await;
            world.assert_nothing_spent_twice();
            finished
        });
    }
}

/// The answer is lost. The row says so even without the caller, and the next request recovers.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_recorded_without_its_caller() {
    for kind in [FaultKind::CloseAfter, FaultKind::status(502)] {
        at_every_point!(slow_world(ROTATES, Rotation::Rotates), |world, app, polls| {
            let browser = world.sign_in(&app, ADA).await;
            world.expire_tokens();
            world.twitch.once(Endpoint::Token, kind.clone());
            let finished = drop_after(polls, browser.asks(&app)).await;
            world.run_for(5 * SECOND).await;
            let row = world.row(browser.session).await;
            let sent = world.twitch.refreshes() == 1;
            assert_eq!(row.ambiguous(world.now()), sent, "STRAND, visibly, after {polls} polls");
            if !sent {
                assert!(passing(&browser.asks(&app).await));
                world.run_for(5 * SECOND).await;
            }
            world.pass(limits::RETRY_AFTER);
            assert_stored(&world, &app, &browser, polls, 2).await;
            assert_eq!(world.twitch.most_sends(), 2, "SPENT after {polls} polls");
            finished
        });
    }
}

/// The API refused a call: the row is suspected, claimed and refreshed even without the caller.
#[tokio::test(start_paused = true)]
async fn a_refresh_after_a_refusal_is_finished_without_its_caller() {
    for refusal in [ApiRefusal::DeadToken, ApiRefusal::Unclear] {
        at_every_point!(slow_world(ONE_TIME, Rotation::OneTimeKillsConnection), |world, app, polls| {
            let browser = world.sign_in(&app, ADA).await;
            let refused = browser.grant(&app).await.unwrap();
            assert!(world.twitch.mock().kill_token(refused.token.expose()));
            let call = app.grant_after_refusal(&browser.cookie, &refused, refusal);
            let finished = drop_after(polls, call).await;
            world.run_for(5 * SECOND).await;
            let again = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken).await;
            let again = again.expect("LIVE").expect("a fresh token");
            assert!(world.twitch.lives(again.token.expose()), "after {polls} polls");
            assert_stored(&world, &app, &browser, polls, 1).await;
            world.assert_nothing_spent_twice();
            finished
        });
    }
}
