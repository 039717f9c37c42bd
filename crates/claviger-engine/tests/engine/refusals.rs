//! Many API calls refused at once, on several instances: one refresh, few writes, and no caller
//! gets the refused token again.

use claviger_core::{ApiRefusal, State};
use claviger_mock::Endpoint;
use claviger_store::Method;
use futures_util::future::join_all;

use crate::world::{ADA, HOUR, ONE_TIME, SECOND, World, habits};

/// Two hundred calls of one device learn that its token is dead.
#[tokio::test(start_paused = true)]
async fn many_refused_calls_write_the_row_three_times() {
    let (world, app) = World::with(|setup| {
        habits(ONE_TIME)(setup);
        setup.mock.rotation = claviger_mock::Rotation::OneTimeKillsConnection;
        setup.settings.refreshes_per_second = 2;
    })
    .await;
    let elsewhere = world.instance().await;
    [&app, &elsewhere].iter().for_each(|app| app.faulty_store.slow());
    let browser = world.sign_in(&app, ADA).await;
    let refused = browser.grant(&app).await.unwrap();
    world.twitch.mock().kill_token(refused.token.expose());
    let calls = (0..200).map(|n| {
        let app = if n % 2 == 0 { &app } else { &elsewhere };
        app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken)
    });
    let outcomes = join_all(calls).await;
    let row = world.row(browser.session).await;
    for outcome in outcomes {
        let grant = outcome.expect("LOSER").expect("a fresh token");
        assert_eq!(grant.token.expose(), world.token_of(&row));
    }
    assert_eq!(world.twitch.refreshes(), 1);
    assert_eq!(row.version.0, 4, "MONO: suspected, claimed, committed");
    assert!(matches!(row.state, State::Live(_)));
    world.assert_nothing_spent_twice();
    // Others find the budget of two a second unused, except for one permit.
    let others = world.sign_in_on(&app, 1).await;
    world.expire_tokens();
    others[0].asks(&app).await.expect("BLAST");
}

/// As above while the provider is away, call after call: a suspect row is not written again.
#[tokio::test(start_paused = true)]
async fn refused_calls_during_an_outage_write_the_row_once() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    app.faulty_store.slow();
    let browser = world.sign_in(&app, ADA).await;
    let refused = browser.grant(&app).await.unwrap();
    world.twitch.mock().kill_token(refused.token.expose());
    world.twitch.unplug();
    for _ in 0..20 {
        let calls =
            (0..10).map(|_| app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken));
        for outcome in join_all(calls).await {
            assert!(crate::world::passing(&outcome), "TRANSIENT {outcome:?}");
        }
        world.pass(SECOND);
    }
    let (row, tries) = (world.row(browser.session).await, world.memory.calls(Method::Apply));
    assert!(row.version.0 <= 20, "each of a few tries claims and releases: {:?}", row.version);
    assert!(tries <= 60, "{tries} writes for 200 calls");
    world.mend();
    let again = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken).await;
    assert!(world.twitch.lives(again.unwrap().unwrap().token.expose()), "LIVE");
}

/// LOSER: an instance whose memory holds the pair from before another one's refresh does not hand
/// out the refused token again, although the row changed while it was read.
#[tokio::test(start_paused = true)]
async fn stale_memory_is_not_used_after_a_refusal() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let elsewhere = world.instance().await;
    let (browser, other) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
    let refused = browser.grant(&app).await.unwrap();
    browser.asks(&app).await.expect("now memory has the row");
    world.twitch.mock().kill_token(refused.token.expose());
    let newer = elsewhere.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken).await;
    let newer = newer.unwrap().unwrap();

    let read = app.faulty_store.hold_after(Method::Load);
    let story = async {
        read.arrived().await;
        let reason = claviger_core::session::EndReason::SignedOut;
        app.end_own(&other.cookie, reason).await.unwrap();
        read.open();
    };
    let call = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken);
    let (again, ()) = tokio::join!(call, story);
    let again = again.unwrap().expect("the newer pair is adopted");
    assert_eq!((again.generation, again.token.expose()), (newer.generation, newer.token.expose()));
    assert_eq!(browser.grant(&app).await.unwrap().token.expose(), newer.token.expose());
    assert_eq!(world.twitch.refreshes(), 1);
}

/// As above for a change that lost its race: what it read is newer than memory.
#[tokio::test(start_paused = true)]
async fn stale_memory_is_not_used_after_a_lost_race() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    let refused = browser.grant(&app).await.unwrap();
    browser.asks(&app).await.expect("now memory has the row");
    world.twitch.mock().kill_token(refused.token.expose());
    // The refusal is read here before the other instance's refresh, and noted after it.
    let read = app.faulty_store.hold_after(Method::Load);
    let story = async {
        read.arrived().await;
        let newer = elsewhere.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken).await;
        read.open();
        newer.unwrap().unwrap()
    };
    let call = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken);
    let (again, newer) = tokio::join!(call, story);
    assert_eq!(again.unwrap().unwrap().token.expose(), newer.token.expose(), "LOSER");
    for app in [&app, &elsewhere] {
        assert_eq!(browser.grant(app).await.unwrap().token.expose(), newer.token.expose());
    }
    assert_eq!(world.twitch.refreshes(), 1);
    // An unclear refusal of the old token costs no validation of the new one.
    world.pass(HOUR / 2);
    let asked = world.twitch.calls(Endpoint::Validate);
    let again = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::Unclear).await;
    assert_eq!(again.unwrap().unwrap().token.expose(), newer.token.expose());
    assert_eq!(world.twitch.calls(Endpoint::Validate), asked);
}
