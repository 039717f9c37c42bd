//! Several instances on one store: one of them refreshes, and the others adopt the pair.

use claviger_core::{ApiRefusal, State, limits};
use claviger_mock::{Endpoint, FaultKind};
use claviger_store::Method;

use crate::{
    faulty_store::Trick,
    world::{ADA, HOUR, Instance, NOW, ONE_TIME, SECOND, World, habits, passing},
};

async fn three_instances() -> (World, [Instance; 3]) {
    let (world, app) = World::with(|setup| {
        habits(ONE_TIME)(setup);
        setup.mock.rotation = claviger_mock::Rotation::OneTimeKillsConnection;
    })
    .await;
    let apps = [app, world.instance().await, world.instance().await];
    apps.iter().for_each(|app| app.faulty_store.slow());
    (world, apps)
}

#[tokio::test(start_paused = true)]
async fn concurrent_instances_share_one_refresh() {
    let (world, apps) = three_instances().await;
    let browser = world.sign_in(&apps[0], ADA).await;
    for round in 1..=5 {
        world.expire_tokens();
        let requests = (0..30).map(|n| browser.grant(&apps[n % 3]));
        let grants = futures_util::future::join_all(requests).await;
        let row = world.row(browser.session).await;
        for grant in grants {
            let grant = grant.expect("LOSER");
            assert_eq!(grant.token.expose(), world.token_of(&row), "LOSER");
            assert_eq!(grant.generation, row.pair().unwrap().generation);
        }
        assert_eq!(world.twitch.refreshes(), round);
        assert_eq!(row.version.0, 1 + 2 * round, "MONO");
    }
    world.assert_nothing_spent_twice();
}

#[tokio::test(start_paused = true)]
async fn the_loser_waits_for_a_slow_winner() {
    let (world, apps) = three_instances().await;
    let browser = world.sign_in(&apps[0], ADA).await;
    world.expire_tokens();
    world.twitch.once(Endpoint::Token, FaultKind::delay(8 * SECOND));
    let requests = apps.iter().map(|app| browser.asks(app));
    for outcome in futures_util::future::join_all(requests).await {
        outcome.expect("LOSER");
    }
    assert_eq!(world.twitch.refreshes(), 1);
    assert_eq!(world.owed().await, 0);
}

/// LOSER: a request that waits in vain gets 503, and no session ends.
#[tokio::test(start_paused = true)]
async fn a_loser_that_waits_in_vain_gets_a_retryable_error() {
    let (world, apps) = three_instances().await;
    let browser = world.sign_in(&apps[0], ADA).await;
    world.expire_tokens();
    let gate = world.twitch.hold(Endpoint::Token);
    let story = async {
        gate.arrived().await;
        let began = world.now();
        let outcome = browser.asks(&apps[1]).await;
        assert!(passing(&outcome), "LOSER {outcome:?}");
        assert!(world.now().since(began) <= limits::ADOPTION_WAIT + SECOND, "bounded");
        gate.open();
    };
    let (_, ()) = tokio::join!(browser.asks(&apps[0]), story);
    world.rest().await;
    for app in &apps {
        browser.asks(app).await.expect("all have the new pair");
    }
    assert_eq!(world.twitch.refreshes(), 1);
}

/// LOSER: memory may have an older row than the store, which is no reason to deny a request.
#[tokio::test(start_paused = true)]
async fn an_instance_without_the_provider_adopts_the_pair() {
    let (world, apps) = three_instances().await;
    let browser = world.sign_in(&apps[0], ADA).await;
    world.expire_tokens();
    world.twitch.always(Endpoint::Token, FaultKind::too_many_requests(None));
    for _ in 0..3 {
        assert!(passing(&browser.asks(&apps[0]).await));
    }
    world.twitch.mend();
    let adopted = browser.grant(&apps[1]).await.expect("its own breaker is closed");
    let grant = browser.grant(&apps[0]).await.expect("LOSER");
    assert_eq!(grant.generation, adopted.generation);
    assert_eq!(grant.token.expose(), adopted.token.expose());
}

/// LOSER: the same when a claim on the cached row cannot be written.
#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_write_adopts_the_pair() {
    let (world, apps) = three_instances().await;
    let browser = world.sign_in(&apps[0], ADA).await;
    browser.asks(&apps[1]).await.unwrap();
    world.expire_tokens();
    let adopted = browser.grant(&apps[0]).await.unwrap();
    apps[1].faulty_store.next(Method::Apply, Trick::Fail);
    let grant = browser.grant(&apps[1]).await.expect("LOSER");
    assert_eq!(grant.generation, adopted.generation);
}

/// A dead token concerns two instances: the one that did not send it learns the end from the row.
#[tokio::test(start_paused = true)]
async fn all_instances_learn_of_a_rejection() {
    let (world, apps) = three_instances().await;
    let browser = world.sign_in(&apps[0], ADA).await;
    world.twitch.mock().kill_tokens(ADA);
    world.expire_tokens();
    let requests = apps.iter().map(|app| browser.asks(app));
    for outcome in futures_util::future::join_all(requests).await {
        let denied = outcome.unwrap_err();
        let rejected = claviger_core::session::EndReason::RefreshTokenRejected;
        assert_eq!(denied, claviger_engine::Denied::Ended(rejected));
    }
    assert_eq!(world.twitch.refreshes(), 1);
}

/// A validation of one instance and a refresh of another, in every order of their writes.
#[tokio::test(start_paused = true)]
async fn a_concurrent_proof_and_refresh_both_count() {
    let (world, apps) = three_instances().await;
    let browser = world.sign_in(&apps[0], ADA).await;
    let grant = browser.grant(&apps[0]).await.unwrap();
    let dead = claviger_core::verdict::ApiRefusal::DeadToken;
    world.pass(HOUR);
    let (proof, refreshed) = tokio::join!(
        browser.asks_with(&apps[1], NOW),
        apps[0].grant_after_refusal(&browser.cookie, &grant, dead)
    );
    proof.expect("LOSER");
    let refreshed = refreshed.unwrap().expect("a fresh grant");
    let row = world.row(browser.session).await;
    assert!(matches!(row.state, State::Live(_)));
    assert_eq!(refreshed.token.expose(), world.token_of(&row));
    assert_eq!(world.twitch.refreshes(), 1);
}

/// MONO: the commit of a refresh succeeds although others keep changing the row.
#[tokio::test(start_paused = true)]
async fn a_commit_that_lost_a_race_is_repeated() {
    let (world, apps) = three_instances().await;
    let browser = world.sign_in(&apps[0], ADA).await;
    let grant = browser.grant(&apps[0]).await.unwrap();
    let dead = claviger_core::verdict::ApiRefusal::DeadToken;
    let answer = world.twitch.hold(Endpoint::Token);
    let story = async {
        answer.arrived().await;
        let commit = apps[0].faulty_store.hold_before(Method::Apply);
        answer.open();
        commit.arrived().await;
        let unclear = claviger_core::verdict::ApiRefusal::Unclear;
        let proven = apps[1].grant_after_refusal(&browser.cookie, &grant, unclear).await.unwrap();
        assert!(proven.is_none(), "the old token is good, as far as the provider says");
        commit.open();
    };
    let (outcome, ()) = tokio::join!(apps[0].grant_after_refusal(&browser.cookie, &grant, dead), story);
    let refreshed = outcome.unwrap().expect("STRAND");
    let row = world.row(browser.session).await;
    assert_eq!(refreshed.token.expose(), world.token_of(&row));
    assert!(world.twitch.lives(refreshed.token.expose()));
    assert_eq!(row.pair().unwrap().generation, row.version, "bound to the version that committed it");
    assert_eq!(world.owed().await, 0);
}

/// Found by seed 7297 of the simulator. A request joined a refresh of its own process that had
/// begun long before, and received the very token that had just been refused.
#[tokio::test(start_paused = true)]
async fn a_stuck_refresh_does_not_return_a_refused_token() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    app.faulty_store.next(Method::Apply, Trick::Pass);
    let gate = app.faulty_store.hold_after(Method::Apply);
    let late = async {
        gate.arrived().await;
        let first = browser.grant(&elsewhere).await.unwrap();
        let second = elsewhere.grant_after_refusal(&browser.cookie, &first, ApiRefusal::DeadToken).await;
        let second = second.unwrap().expect("a newer one");
        world.twitch.once(Endpoint::Token, FaultKind::status(503));
        elsewhere.grant_after_refusal(&browser.cookie, &second, ApiRefusal::DeadToken).await.unwrap_err();
        assert!(matches!(world.row(browser.session).await.state, State::Suspect(_)));
        let opens = async {
            world.run_for(SECOND).await;
            gate.open();
        };
        let again = app.grant_after_refusal(&browser.cookie, &first, ApiRefusal::DeadToken);
        let (again, ()) = tokio::join!(again, opens);
        let again = again.unwrap().expect("a newer one");
        assert!(again.generation > second.generation, "MONO");
        assert_eq!(again.token.expose(), world.token_of(&world.row(browser.session).await));
    };
    let (_stuck, ()) = tokio::join!(browser.grant(&app), late);
}
