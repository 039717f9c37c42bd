//! A session whose pair no refresh can save gets a new one by a silent re-authorisation, in the
//! same row.

use claviger_core::{ReturnTo, State, limits};
use claviger_engine::{Denied, FinishedSignIn, LoginError, LoginStarted, Target};
use claviger_mock::{Endpoint, FaultKind};
use claviger_store::Method;

use crate::{
    faulty_store::Trick,
    world::{ADA, Browser, GRACE, HOUR, Instance, MINUTE, ONE_TIME, World, habits},
};

/// A world whose only session lost the answer to a refresh, with no rule to recover it.
async fn beyond_refresh() -> (World, Instance, Browser) {
    let (world, app) = World::with(|setup| {
        habits(ONE_TIME)(setup);
        setup.mock.rotation = claviger_mock::Rotation::OneTimeKillsConnection;
        setup.settings.carry_access_token = true;
    })
    .await;
    let browser = world.sign_in(&app, ADA).await;
    lose_the_pair(&world, &app, &browser).await;
    (world, app, browser)
}

async fn lose_the_pair(world: &World, app: &Instance, browser: &Browser) {
    world.expire_tokens();
    world.twitch.once(Endpoint::Token, FaultKind::CloseAfter);
    browser.asks(app).await.unwrap_err();
    world.wait_out();
    assert_eq!(browser.asks(app).await.unwrap_err(), Denied::SignInAgain);
}

async fn begin(app: &Instance, browser: &Browser) -> Option<LoginStarted> {
    app.begin_repair(&browser.cookie, ReturnTo::parse("/inbox").unwrap()).await.unwrap()
}

/// The browser comes back from the provider, where this user agreed.
async fn come_back(
    world: &World,
    app: &Instance,
    browser: Option<&Browser>,
    started: &LoginStarted,
    user: &str,
) -> Result<FinishedSignIn, LoginError> {
    let callback = world.agree(user, started);
    let shown = browser.map(|browser| &browser.cookie);
    app.finish_login(callback, Some(&started.cookie), shown, "curl/8").await
}

/// The pair whose answer was lost lives until it expires, unknown to us.
const LOST: usize = 1;

/// Checks how many of this user's pairs are still alive after the outbox has run.
async fn assert_live_pairs(world: &World, app: &Instance, user: &str, pairs: usize) {
    world.rest().await;
    app.carry_out_revocations().await.unwrap();
    assert_eq!(world.owed().await, 0, "CASCADE");
    assert_eq!(world.twitch.mock().live_access_tokens(user), pairs, "CASCADE {user}");
}

#[tokio::test(start_paused = true)]
async fn a_repair_keeps_the_row_and_the_cookie() {
    let (world, app, browser) = beyond_refresh().await;
    let before = world.row(browser.session).await;
    let started = begin(&app, &browser).await.expect("it needs one");
    let resumed = come_back(&world, &app, Some(&browser), &started, ADA).await.unwrap();
    assert_eq!((resumed.session, resumed.cookie), (browser.session, None));
    assert_eq!(resumed.return_to.as_str(), "/inbox");
    let cached = app.open_cached_token(&resumed.cached_token_cookie.expect("the setting is on")).unwrap();
    let row = world.row(browser.session).await;
    assert_eq!(cached.token.expose(), world.token_of(&row));
    assert!(matches!(row.state, State::Live(_)) && row.active().unwrap().claim.is_none());
    assert_eq!(
        (row.version, row.created_at),
        (before.version.next(), before.created_at),
        "MONO, no new sign-in"
    );
    browser.asks(&app).await.expect("LIVE");
    world.expire_tokens();
    browser.asks(&app).await.expect("the new refresh token works with the old cookie");
    world.assert_nothing_spent_twice();
    assert_eq!(app.devices(&row.subject).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_repair_begins_only_if_needed_and_for_the_owner() {
    let (world, app, browser) = beyond_refresh().await;
    let healthy = world.sign_in(&app, ADA).await;
    assert!(begin(&app, &healthy).await.is_none(), "healthy");
    let mut forged = browser.clone();
    forged.cookie.secret = healthy.cookie.secret.clone();
    let outcome = app.begin_repair(&forged.cookie, ReturnTo::root()).await;
    assert_eq!(outcome.err(), Some(Denied::NoSession), "a cookie that merely names the session");
    world.pass(world.settings.lifetimes.absolute);
    assert!(begin(&app, &browser).await.is_none(), "its time is over");
    app.end_overdue().await.unwrap();
    assert!(begin(&app, &browser).await.is_none(), "ended");
}

#[tokio::test(start_paused = true)]
async fn another_user_at_the_provider_changes_nothing() {
    let (world, app, browser) = beyond_refresh().await;
    let before = world.row(browser.session).await;
    let started = begin(&app, &browser).await.unwrap();
    let outcome = come_back(&world, &app, Some(&browser), &started, GRACE).await;
    assert_eq!(outcome.unwrap_err(), LoginError::AnotherUser);
    assert_eq!(world.row(browser.session).await, before, "ISO");
    assert_live_pairs(&world, &app, GRACE, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ended_during_the_repair_stays_ended() {
    let (world, app, browser) = beyond_refresh().await;
    let started = begin(&app, &browser).await.unwrap();
    let reason = claviger_core::session::EndReason::SignedOutFromAnotherDevice;
    app.end(Target::One(browser.session), reason).await.unwrap();
    let outcome = come_back(&world, &app, Some(&browser), &started, ADA).await;
    assert_eq!(outcome.unwrap_err(), LoginError::SessionEnded);
    assert_eq!(world.end_reason(browser.session).await, Some(reason), "ENDED");
    assert_live_pairs(&world, &app, ADA, LOST).await;
}

#[tokio::test(start_paused = true)]
async fn a_browser_with_no_or_another_session_repairs_nothing() {
    let (world, app, browser) = beyond_refresh().await;
    let before = world.row(browser.session).await;
    let other = world.sign_in(&app, GRACE).await;
    for shown in [None, Some(&other)] {
        let started = begin(&app, &browser).await.unwrap();
        let outcome = come_back(&world, &app, shown, &started, ADA).await;
        assert_eq!(outcome.unwrap_err(), LoginError::Stale);
        assert_eq!(world.row(browser.session).await, before);
    }
    assert_live_pairs(&world, &app, ADA, LOST).await;
    assert_eq!(world.end_reason(other.session).await, None, "BLAST");
}

#[tokio::test(start_paused = true)]
async fn two_tabs_repair_once() {
    let (world, app, browser) = beyond_refresh().await;
    let tabs = [begin(&app, &browser).await.unwrap(), begin(&app, &browser).await.unwrap()];
    for started in &tabs {
        let resumed = come_back(&world, &app, Some(&browser), started, ADA).await.unwrap();
        assert_eq!((resumed.session, resumed.cookie), (browser.session, None), "LOSER");
    }
    assert_live_pairs(&world, &app, ADA, LOST + 1).await;
    assert!(world.twitch.lives(&world.access_token(browser.session).await), "ISO: the one in the row");
}

#[tokio::test(start_paused = true)]
async fn a_repair_of_unknown_outcome_revokes_nothing_in_use() {
    let (world, app, browser) = beyond_refresh().await;
    let started = begin(&app, &browser).await.unwrap();
    app.faulty_store.next(Method::Apply, Trick::FailAfter);
    come_back(&world, &app, Some(&browser), &started, ADA).await.expect("it was written after all");
    assert_live_pairs(&world, &app, ADA, LOST + 1).await;
    assert!(world.twitch.lives(&world.access_token(browser.session).await));
}

/// STRAND: the browser does not wait for ever, but the pair does.
#[tokio::test(start_paused = true)]
async fn a_pair_is_stored_when_the_store_is_back() {
    let (world, app, browser) = beyond_refresh().await;
    let started = begin(&app, &browser).await.unwrap();
    let gate = world.twitch.hold(Endpoint::Validate);
    let outage = async {
        gate.arrived().await;
        app.faulty_store.down(true);
        gate.open();
    };
    let (outcome, ()) = tokio::join!(come_back(&world, &app, Some(&browser), &started, ADA), outage);
    assert!(matches!(outcome, Err(LoginError::Store(_))), "{outcome:?}");
    world.run_for(MINUTE).await;
    app.faulty_store.down(false);
    world.run_for(MINUTE).await;
    browser.asks(&app).await.expect("LIVE");
    assert_live_pairs(&world, &app, ADA, LOST + 1).await;
}

/// The lost answer arrives at another instance after all, when the row has been repaired.
#[tokio::test(start_paused = true)]
async fn a_pair_after_the_repair_is_revoked() {
    let (world, slow) = World::with(habits(ONE_TIME)).await;
    let quick = world.instance().await;
    let browser = world.sign_in(&slow, ADA).await;
    world.expire_tokens();
    let gate = world.twitch.hold(Endpoint::Token);
    browser.asks(&slow).await.expect_err("waits in vain");
    world.pass(limits::CLAIM_LEASE);
    assert_eq!(browser.asks(&quick).await.unwrap_err(), Denied::SignInAgain);
    let started = begin(&quick, &browser).await.unwrap();
    come_back(&world, &quick, Some(&browser), &started, ADA).await.unwrap();
    let repaired = world.row(browser.session).await;
    gate.open();
    world.rest().await;
    assert_eq!(world.row(browser.session).await, repaired, "MONO: the late pair has no claim to commit by");
    assert_live_pairs(&world, &quick, ADA, 1).await;
    world.pass(HOUR / 2);
    browser.asks(&slow).await.expect("LIVE");
}
