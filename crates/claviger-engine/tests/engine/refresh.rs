//! A refresh that succeeds: one request, one commit, and every caller gets the new pair.

use claviger_core::{Assurance, Custody, Expiry, Presence, State};
use claviger_engine::Denied;
use claviger_mock::{Endpoint, Rotation};
use claviger_seal::KeyId;
use claviger_store::Method;

use crate::world::{ADA, NOW, ONE_TIME, SECOND, TOKEN_LIFE, World, custody, habits};

#[tokio::test(start_paused = true)]
async fn an_expired_pair_costs_one_refresh_and_one_commit() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let old = world.row(browser.session).await;
    world.pass(TOKEN_LIFE - world.settings.lifetimes.refresh_margin - SECOND / 1000);
    browser.asks(&app).await.unwrap();
    assert_eq!(world.twitch.refreshes(), 0, "a millisecond too early");
    let proven = world.row(browser.session).await;
    world.pass(SECOND / 1000);
    let grant = browser.grant(&app).await.unwrap();
    let row = world.row(browser.session).await;
    assert_eq!(world.twitch.refreshes(), 1);
    assert_eq!(row.version.0, proven.version.0 + 2, "MONO: a claim and a commit");
    assert_eq!(row.pair().unwrap().generation, row.version);
    assert_eq!(row.pair().unwrap().expiry, Expiry::At(world.now().after(TOKEN_LIFE)));
    assert_eq!(row.active().unwrap().claim, None);
    assert_eq!((grant.generation, grant.token.expose()), (row.version, world.token_of(&row).as_str()));
    assert_ne!(world.token_of(&old), world.token_of(&row));
    assert_eq!(
        (row.subject, row.created_at, row.secret_hash),
        (old.subject, old.created_at, old.secret_hash)
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_does_not_read_a_cached_row() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    browser.asks(&app).await.unwrap();
    world.expire_tokens();
    let loads = world.memory.calls(Method::Load);
    browser.grant(&app).await.unwrap();
    assert_eq!((world.memory.calls(Method::Load) - loads, world.twitch.refreshes()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_spent_refresh_token_is_never_sent_again() {
    for rotation in [Rotation::OneTime, Rotation::Rotates, Rotation::OneTimeKillsConnection] {
        let (world, app) = World::with(|setup| setup.mock.rotation = rotation).await;
        let elsewhere = world.instance().await;
        let browser = world.sign_in(&app, ADA).await;
        for round in 1..=6 {
            world.expire_tokens();
            let app = if round % 2 == 0 { &app } else { &elsewhere };
            browser.asks(app).await.unwrap();
            assert_eq!(world.twitch.refreshes(), round);
        }
        world.assert_nothing_spent_twice();
    }
}

#[tokio::test(start_paused = true)]
async fn a_reusable_refresh_token_is_sent_again() {
    let (world, app) = World::with(|setup| setup.mock.rotation = Rotation::None).await;
    let browser = world.sign_in(&app, ADA).await;
    world.twitch.rewrite(Endpoint::Token, |body| drop(body.as_object_mut().unwrap().remove("refresh_token")));
    for round in 1..=3 {
        world.expire_tokens();
        browser.asks(&app).await.expect("an answer without a refresh token keeps the old one");
        assert_eq!(world.twitch.refreshes(), round);
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_requests_share_one_refresh() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    let grants = futures_util::future::join_all((0..50).map(|_| browser.grant(&app))).await;
    let token = world.access_token(browser.session).await;
    for grant in grants {
        assert_eq!(grant.unwrap().token.expose(), token);
    }
    assert_eq!(world.twitch.refreshes(), 1);
    assert_eq!(world.row(browser.session).await.version.0, 3, "MONO");
    assert_eq!(world.memory.calls(Method::Apply), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_proves_the_new_pair_for_every_assurance() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    let asked = world.twitch.calls(Endpoint::Validate);
    browser.asks_with(&app, NOW).await.unwrap();
    browser.asks(&app).await.unwrap();
    browser.asks_with(&app, Assurance::Cookie).await.unwrap();
    assert_eq!((world.twitch.refreshes(), world.twitch.calls(Endpoint::Validate)), (1, asked));
}

/// A refresh does not touch the cookie: the one from the sign-in stays valid.
#[tokio::test(start_paused = true)]
async fn a_refresh_keeps_the_cookie() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    for _ in 0..4 {
        world.expire_tokens();
        let reopened = app.open_cookie(&browser.value).unwrap();
        app.authenticate(reopened, Assurance::Session).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn scopes_stay_if_a_refresh_names_none() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.twitch.rewrite(Endpoint::Token, |body| drop(body.as_object_mut().unwrap().remove("scope")));
    world.expire_tokens();
    browser.asks(&app).await.unwrap();
    let row = world.row(browser.session).await;
    let pair = row.pair().unwrap();
    let at = claviger_seal::PairBinding {
        provider: &row.subject.provider,
        session: row.id,
        generation: pair.generation,
    };
    let scopes = crate::world::keyring(&[1]).open_access(at, &pair.access).unwrap().scopes;
    assert_eq!(scopes, [crate::world::SCOPE]);
}

/// Custody `device`: neither the store nor another user's cookie is enough.
#[tokio::test(start_paused = true)]
async fn custody_device_needs_the_cookies_secret_to_refresh() {
    let (world, app) = World::with(custody(Custody::Device)).await;
    let elsewhere = world.instance().await;
    let (ada, other) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
    world.expire_tokens();
    let mut forged = ada.cookie.clone();
    forged.secret = other.cookie.secret.clone();
    for app in [&app, &elsewhere] {
        let outcome = app.authenticate(forged.clone(), Assurance::Session).await;
        assert_eq!(outcome.unwrap_err(), Denied::NoSession);
    }
    assert_eq!(world.twitch.refreshes(), 0);
    ada.asks(&elsewhere).await.expect("with the secret any instance can");
}

#[tokio::test(start_paused = true)]
async fn sessions_of_every_custody_are_refreshed() {
    let (world, app) = World::with(custody(Custody::Server)).await;
    let server = world.sign_in(&app, ADA).await;
    let mut later = world;
    later.settings.custody = Custody::Device;
    let app = later.instance().await;
    let device = later.sign_in(&app, ADA).await;
    later.expire_tokens();
    for browser in [&server, &device] {
        browser.asks(&app).await.unwrap();
    }
    assert_eq!(later.row(server.session).await.custody, Custody::Server, "custody is the row's own");
    assert_eq!(later.twitch.refreshes(), 2);
}

/// A missing key is the operator's error: no session ends.
#[tokio::test(start_paused = true)]
async fn tokens_sealed_with_a_missing_key_sign_nobody_out() {
    for custody in [Custody::Server, Custody::Device] {
        let (world, app) = World::with(|setup| setup.settings.custody = custody).await;
        let browser = world.sign_in(&app, ADA).await;
        let keyless = world.instance_with(&[2]).await;
        let missing = Denied::UnknownKey(KeyId(1));
        assert_eq!(keyless.open_cookie(&browser.value).unwrap_err(), missing);
        assert_eq!(browser.grant(&keyless).await.unwrap_err(), missing);
        assert_eq!(browser.asks_with(&keyless, NOW).await.unwrap_err(), missing);
        if custody == Custody::Server {
            world.expire_tokens();
            assert_eq!(browser.asks(&keyless).await.unwrap_err(), missing);
            assert_eq!(world.twitch.refreshes(), 0);
        }
        assert!(matches!(world.row(browser.session).await.state, State::Live(_)));
        let mended = world.instance_with(&[2, 1]).await;
        browser.grant(&mended).await.unwrap();
        world.expire_tokens();
        browser.grant(&mended).await.expect("sealed with the newest key from now on");
        browser.grant(&keyless).await.expect("which this one has");
    }
}

/// Custody `device` needs no key of the server for a refresh: an instance with only the new key
/// reseals the row.
#[tokio::test(start_paused = true)]
async fn custody_device_refreshes_without_the_old_key() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let keyless = world.instance_with(&[2]).await;
    world.expire_tokens();
    let grant = browser.grant(&keyless).await.unwrap();
    assert!(world.twitch.lives(grant.token.expose()));
    assert_eq!(grant.token.expose(), world.access_token(browser.session).await);
    assert_eq!(
        app.grant(&browser.cookie, None, Presence::Active).await.unwrap_err(),
        Denied::UnknownKey(KeyId(2))
    );
    assert_eq!(world.end_reason(browser.session).await, None, "TRANSIENT");
}
