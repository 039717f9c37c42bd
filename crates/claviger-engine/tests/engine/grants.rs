//! The caller's access token: cached-token cookies, and refusals by the API.

use claviger_core::{ApiRefusal, Assurance, EndReason, Presence, State, Version};
use claviger_engine::{Denied, Grant, Target};
use claviger_mock::{Endpoint, FaultKind};
use claviger_seal::CachedToken;

use crate::world::{ADA, Browser, GRACE, HOUR, Instance, MINUTE, SECOND, TOKEN_LIFE, World, passing};

async fn world_with_hints() -> (World, Instance) {
    World::with(|setup| setup.settings.carry_access_token = true).await
}

fn cached(app: &Instance, browser: &Browser) -> Option<CachedToken> {
    app.open_cached_token(browser.cached.as_deref().expect("the configuration wants one"))
}

/// A grant as it was earlier.
async fn old_grant(app: &Instance, browser: &Browser) -> Grant {
    browser.grant(app).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_cached_token_saves_the_read_of_the_store() {
    let (world, app) = world_with_hints().await;
    let browser = world.sign_in(&app, ADA).await;
    let token = world.access_token(browser.session).await;
    let elsewhere = world.instance().await;
    let before = (world.memory.reads(), world.memory.writes());
    for app in [&app, &elsewhere] {
        let grant = app.grant(&browser.cookie, cached(app, &browser), Presence::Active).await.unwrap();
        assert_eq!((grant.token.expose(), grant.generation), (token.as_str(), Version::FIRST));
    }
    assert_eq!((world.memory.reads(), world.memory.writes()), before);
    world.pass(3 * MINUTE);
    app.grant(&browser.cookie, cached(&app, &browser), Presence::Active).await.unwrap();
    app.end_overdue().await.unwrap();
    assert_eq!(world.row(browser.session).await.last_seen_at, world.now(), "it is a use");
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_no_token_is_cached() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    assert_eq!(browser.cached, None);
    let grant = browser.grant(&app).await.unwrap();
    assert_eq!(app.cached_token_cookie(browser.session, &grant), None);
}

#[tokio::test(start_paused = true)]
async fn a_forged_cached_token_is_ignored() {
    let (world, app) = world_with_hints().await;
    let browser = world.sign_in(&app, ADA).await;
    for value in ["", "x", browser.value.as_str()] {
        assert!(app.open_cached_token(value).is_none());
    }
    assert!(world.instance_with(&[2]).await.open_cached_token(&browser.cached.unwrap()).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_expired_cached_token_is_ignored() {
    let (world, app) = world_with_hints().await;
    let browser = world.sign_in(&app, ADA).await;
    let token = world.access_token(browser.session).await;
    let margin = world.settings.lifetimes.refresh_margin;
    world.pass(TOKEN_LIFE - margin - SECOND / 1000);
    let grant = app.grant(&browser.cookie, cached(&app, &browser), Presence::Active).await.unwrap();
    assert_eq!(grant.token.expose(), token);
    world.pass(SECOND / 1000);
    let grant = app.grant(&browser.cookie, cached(&app, &browser), Presence::Active).await.unwrap();
    assert_ne!(grant.token.expose(), token, "refreshed");
    assert_eq!(world.twitch.refreshes(), 1);
}

/// ISO: a cached token of one session is ignored for another, even of the same user.
#[tokio::test(start_paused = true)]
async fn a_cached_token_of_another_session_is_ignored() {
    let (world, app) = world_with_hints().await;
    let browsers =
        [world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await, world.sign_in(&app, GRACE).await];
    for own in &browsers {
        let token = world.access_token(own.session).await;
        for other in &browsers {
            let grant = app.grant(&own.cookie, cached(&app, other), Presence::Active).await.unwrap();
            assert_eq!(grant.token.expose(), token, "ISO");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cached_token_of_an_ended_or_suspect_session_is_ignored() {
    let (world, app) = world_with_hints().await;
    let (ended, suspect) = (world.sign_in(&app, ADA).await, world.sign_in(&app, GRACE).await);
    app.end(Target::One(ended.session), EndReason::Administrator).await.unwrap();
    let restarted = world.instance().await;
    for app in [&app, &restarted] {
        let outcome = app.grant(&ended.cookie, cached(app, &ended), Presence::Active).await;
        assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED");
    }
    let refused = old_grant(&app, &suspect).await;
    world.twitch.once(Endpoint::Token, FaultKind::status(503));
    let outcome = app.grant_after_refusal(&suspect.cookie, &refused, ApiRefusal::DeadToken).await;
    assert!(passing(&outcome));
    world.wait_out();
    let grant = app.grant(&suspect.cookie, cached(&app, &suspect), Presence::Active).await.unwrap();
    assert!(grant.generation > refused.generation, "the cached token is known to be dead");
}

/// The browser may carry an old token after a refresh by others. The refusal that follows costs no
/// refresh.
#[tokio::test(start_paused = true)]
async fn a_stale_cached_token_leads_to_the_newer_pair() {
    let (world, app) = world_with_hints().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    let refused = app.grant(&browser.cookie, cached(&app, &browser), Presence::Active).await.unwrap();
    let first = old_grant(&elsewhere, &browser).await;
    elsewhere.grant_after_refusal(&browser.cookie, &first, ApiRefusal::DeadToken).await.unwrap().unwrap();
    assert_eq!(world.twitch.refreshes(), 1);
    for refusal in [ApiRefusal::DeadToken, ApiRefusal::Unclear] {
        let grant = app.grant_after_refusal(&browser.cookie, &refused, refusal).await.unwrap().unwrap();
        assert_eq!(grant.token.expose(), world.access_token(browser.session).await);
        assert_eq!(world.twitch.refreshes(), 1, "adopted");
    }
    let fresh = app.cached_token_cookie(browser.session, &first).is_some();
    assert!(fresh, "and the browser can be given a new cached token");
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_is_refreshed_once_for_all_that_were_refused() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    let refused = old_grant(&app, &browser).await;
    world.twitch.mock().kill_token(refused.token.expose());
    let calls = (0..20).map(|n| {
        let app = if n % 2 == 0 { &app } else { &elsewhere };
        app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken)
    });
    let token = {
        let outcomes = futures_util::future::join_all(calls).await;
        let token = world.access_token(browser.session).await;
        for outcome in outcomes {
            assert_eq!(outcome.unwrap().unwrap().token.expose(), token);
        }
        token
    };
    assert!(world.twitch.lives(&token));
    assert_eq!(world.twitch.refreshes(), 1);
    world.assert_nothing_spent_twice();
}

#[tokio::test(start_paused = true)]
async fn an_unclear_refusal_asks_the_provider_first() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let refused = old_grant(&app, &browser).await;
    let asked = world.twitch.calls(Endpoint::Validate);
    let outcome = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::Unclear).await;
    assert!(outcome.unwrap().is_none(), "the token is good, so the refusal is about something else");
    assert_eq!((world.twitch.calls(Endpoint::Validate), world.twitch.refreshes()), (asked + 1, 0));

    world.twitch.always(Endpoint::Validate, FaultKind::status(500));
    let outcome = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::Unclear).await;
    assert!(outcome.unwrap().is_none(), "nobody knows");
    assert_eq!(world.twitch.refreshes(), 0);
    world.mend();

    world.twitch.mock().kill_token(refused.token.expose());
    let outcome = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::Unclear).await;
    assert!(world.twitch.lives(outcome.unwrap().unwrap().token.expose()));
    assert_eq!(world.twitch.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_another_reason_is_passed_on() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let refused = old_grant(&app, &browser).await;
    let before = (world.memory.reads(), world.twitch.calls(Endpoint::Validate));
    let outcome = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::NotTheToken).await;
    assert!(outcome.unwrap().is_none());
    assert_eq!((world.memory.reads(), world.twitch.calls(Endpoint::Validate)), before);
}

/// An API that answers 401 to everything must not end or exhaust a session.
#[tokio::test(start_paused = true)]
async fn an_api_that_refuses_everything_ends_no_session() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    for round in 1..=5 {
        let refused = old_grant(&app, &browser).await;
        let again = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken).await;
        assert!(again.unwrap().is_some());
        assert_eq!(world.twitch.refreshes(), round);
    }
    assert!(matches!(world.row(browser.session).await.state, State::Live(_)));
    browser.asks_with(&app, Assurance::Cookie).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_the_end_reports_the_end() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let refused = old_grant(&app, &browser).await;
    world.instance().await.end(Target::One(browser.session), EndReason::Administrator).await.unwrap();
    for refusal in [ApiRefusal::DeadToken, ApiRefusal::Unclear] {
        let outcome = app.grant_after_refusal(&browser.cookie, &refused, refusal).await;
        assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED");
    }
    assert_eq!(world.twitch.refreshes(), 0);
    let outcome = app.grant(&browser.cookie, None, Presence::Active).await;
    assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_with_a_wrong_secret_changes_nothing() {
    let (world, app) = World::start().await;
    let (ada, grace) = (world.sign_in(&app, ADA).await, world.sign_in(&app, GRACE).await);
    let refused = old_grant(&app, &ada).await;
    let mut forged = ada.cookie.clone();
    forged.secret = grace.cookie.secret.clone();
    let outcome = app.grant_after_refusal(&forged, &refused, ApiRefusal::DeadToken).await;
    assert_eq!(outcome.unwrap_err(), Denied::NoSession, "ISO");
    assert_eq!(world.row(ada.session).await.version, Version::FIRST);
}

/// A grant is proven within the period, like every request with assurance `session`.
#[tokio::test(start_paused = true)]
async fn a_grant_without_a_cached_token_is_proven_within_the_hour() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let token = old_grant(&app, &browser).await.token;
    world.twitch.mock().kill_token(token.expose());
    world.pass(HOUR);
    let grant = browser.grant(&app).await.unwrap();
    assert!(world.twitch.lives(grant.token.expose()));
}
