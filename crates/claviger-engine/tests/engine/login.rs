//! Sign-in: the binding of the callback to the browser, and the new session.

use claviger_core::{Assurance, Custody, EndReason, Presence, ReturnTo, State, limits};
use claviger_engine::{Callback, LoginError, login_cookie_suffix};
use claviger_mock::{Endpoint, FaultKind};
use claviger_seal::RefreshLock;

use crate::world::{ADA, GRACE, MINUTE, SCOPE, SECOND, TOKEN_LIFE, World, custody, keyring, subject};

#[tokio::test(start_paused = true)]
async fn a_user_signs_in() {
    let (world, app) = World::start().await;
    let started = app.begin_login(ReturnTo::parse("/inbox?page=2").unwrap(), false);
    assert_eq!((world.memory.writes(), world.memory.reads()), (0, 1), "starting a sign-in asks no store");
    let callback = world.agree(ADA, &started);
    let user_agent = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0";
    let signed_in = app.finish_login(callback, Some(&started.cookie), None, user_agent).await.unwrap();
    assert_eq!(signed_in.return_to.as_str(), "/inbox?page=2");
    assert_eq!(signed_in.cached_token_cookie, None);
    let cookie = signed_in.cookie.expect("a new session has a new cookie");
    assert!(cookie.len() < limits::SESSION_COOKIE_BYTES);

    let row = world.row(signed_in.session).await;
    assert_eq!(row.subject, subject(ADA));
    assert_eq!((row.display_name.as_str(), row.device.as_str()), ("ada_builds", "Firefox 143 on Linux"));
    assert_eq!((row.created_at, row.last_seen_at), (world.now(), world.now()));
    assert_eq!(row.version.0, 1);
    assert!(world.twitch.lives(&world.token_of(&row)));

    let cookie = app.open_cookie(&cookie).unwrap();
    let caller = app.authenticate(cookie.clone(), Assurance::Session).await.unwrap();
    assert_eq!((caller.session(), caller.subject()), (signed_in.session, &subject(ADA)));
    assert_eq!(caller.display_name(), "ada_builds");
    let grant = app.grant(&cookie, None, Presence::Active).await.unwrap();
    assert_eq!(grant.token.expose(), world.token_of(&row));
    assert_eq!(grant.expiry, claviger_core::Expiry::At(world.now().after(TOKEN_LIFE)));
}

#[tokio::test(start_paused = true)]
async fn pkce_sends_the_verifier_of_the_same_sign_in() {
    let (world, app) = World::with(|setup| {
        setup.provider.client.dialect.pkce = true;
        setup.mock.pkce = true;
    })
    .await;
    world.sign_in(&app, ADA).await;
}

#[tokio::test(start_paused = true)]
async fn a_callback_works_only_in_its_own_browser_and_tab() {
    let (world, app) = World::start().await;
    let (one, two) = (app.begin_login(ReturnTo::root(), false), app.begin_login(ReturnTo::root(), false));
    assert_ne!(one.cookie_suffix, two.cookie_suffix, "each tab has its own cookie");
    let (back_one, back_two) = (world.agree(ADA, &one), world.agree(GRACE, &two));
    assert_eq!(
        (login_cookie_suffix(&back_one.state), login_cookie_suffix(&back_two.state)),
        (one.cookie_suffix.clone(), two.cookie_suffix.clone())
    );

    let no_state = Callback { state: String::new(), ..back_one.clone() };
    let session_cookie = {
        let browser = world.sign_in(&app, ADA).await;
        browser.value
    };
    let before = world.twitch.calls(Endpoint::Token);
    let attempts = [
        (&back_one, None),
        (&back_one, Some(two.cookie.as_str())),
        (&back_two, Some(one.cookie.as_str())),
        (&no_state, Some(one.cookie.as_str())),
        (&back_one, Some("")),
        (&back_one, Some("garbage")),
        (&back_one, Some(session_cookie.as_str())),
    ];
    for (callback, cookie) in attempts {
        let outcome = app.finish_login(callback.clone(), cookie, None, "").await;
        assert_eq!(outcome.unwrap_err(), LoginError::Stale, "{cookie:?}");
    }
    assert_eq!(world.twitch.calls(Endpoint::Token), before, "no code was sent");

    for (back, started) in [(back_two, two), (back_one, one)] {
        app.finish_login(back, Some(&started.cookie), None, "").await.expect("both tabs finish");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_lasts_ten_minutes() {
    let (world, app) = World::start().await;
    let life = limits::LOGIN_LIFETIME;
    for (passed, in_time) in [(life - MINUTE / 60_000, true), (life, false)] {
        let started = app.begin_login(ReturnTo::root(), false);
        world.pass(passed);
        let callback = world.agree(ADA, &started);
        let outcome = app.finish_login(callback, Some(&started.cookie), None, "").await;
        assert_eq!(outcome.as_ref().err(), (!in_time).then_some(&LoginError::Stale), "{passed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_comes_again_leads_to_the_same_session() {
    let (world, app) = World::start().await;
    let started = app.begin_login(ReturnTo::root(), false);
    let callback = world.agree(ADA, &started);
    let first = app.finish_login(callback.clone(), Some(&started.cookie), None, "").await.unwrap();
    let cookie = app.open_cookie(&first.cookie.unwrap()).unwrap();
    let elsewhere = world.instance().await;
    for app in [&app, &elsewhere] {
        let again =
            app.finish_login(callback.clone(), Some(&started.cookie), Some(&cookie), "").await.unwrap();
        assert_eq!((again.session, again.cookie), (first.session, None), "it has its cookie");
        let lost = app.finish_login(callback.clone(), Some(&started.cookie), None, "").await.unwrap();
        assert_eq!(lost.session, first.session);
        let same = app.open_cookie(&lost.cookie.expect("the first answer was lost")).unwrap();
        app.authenticate(same, Assurance::Session).await.unwrap();
        let nobodys = app.finish_login(callback.clone(), None, None, "").await;
        assert_eq!(nobodys.unwrap_err(), LoginError::Stale, "the state alone opens nothing");
    }
    world.pass(limits::CALLBACK_REPEATS + SECOND);
    let late = app.finish_login(callback.clone(), Some(&started.cookie), None, "").await;
    assert_eq!(late.unwrap_err(), LoginError::AlreadyUsed);
    assert_eq!(world.twitch.calls(Endpoint::Token), 1, "the code was sent once");
    assert_eq!(world.end_reason(first.session).await, None);
    app.authenticate(cookie.clone(), Assurance::Session).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_comes_again_revives_no_session() {
    let (world, app) = World::start().await;
    let started = app.begin_login(ReturnTo::root(), false);
    let callback = world.agree(ADA, &started);
    let first = app.finish_login(callback.clone(), Some(&started.cookie), None, "").await.unwrap();
    let cookie = app.open_cookie(&first.cookie.unwrap()).unwrap();
    app.end_own(&cookie, EndReason::SignedOut).await.unwrap();
    let again = app.finish_login(callback, Some(&started.cookie), Some(&cookie), "").await;
    assert_eq!(again.unwrap_err(), LoginError::AlreadyUsed, "ENDED");
}

#[tokio::test(start_paused = true)]
async fn callbacks_that_race_create_one_session() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    app.faulty_store.slow();
    elsewhere.faulty_store.slow();
    let started = app.begin_login(ReturnTo::root(), false);
    let callback = world.agree(ADA, &started);
    let attempts = [&app, &elsewhere, &app, &elsewhere, &app]
        .map(|app| app.finish_login(callback.clone(), Some(&started.cookie), None, ""));
    let outcomes = futures_util::future::join_all(attempts).await;
    let sessions: std::collections::BTreeSet<_> =
        outcomes.into_iter().map(|outcome| outcome.expect("LOSER").session).collect();
    assert_eq!(sessions.len(), 1);
    assert_eq!(world.twitch.calls(Endpoint::Token), 1);
    assert_eq!(app.devices(&subject(ADA)).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_at_the_provider_ends_nothing() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let table = [
        ("access_denied", LoginError::DeniedByUser),
        ("server_error", LoginError::ProviderUnavailable { retry_after: limits::RETRY_AFTER }),
        ("redirect_mismatch", LoginError::Misconfigured),
        ("login_required", LoginError::RefusedByProvider("login_required".to_owned())),
        ("<script>", LoginError::RefusedByProvider("unknown".to_owned())),
    ];
    for (error, expected) in table {
        let started = app.begin_login(ReturnTo::root(), false);
        let refused = Callback { error: Some(error.to_owned()), ..world.agree(ADA, &started) };
        let outcome =
            app.finish_login(refused.clone(), Some(&started.cookie), Some(&browser.cookie), "").await;
        assert_eq!(outcome.as_ref().unwrap_err(), &expected);
        let nobodys = app.finish_login(refused, None, Some(&browser.cookie), "").await;
        // L4: a provider that refuses our registration may leave the state out.
        let stale = if expected == LoginError::Misconfigured { expected } else { LoginError::Stale };
        assert_eq!(nobodys.unwrap_err(), stale, "other errors are bound to the browser too");
    }
    let started = app.begin_login(ReturnTo::root(), false);
    let nothing = Callback { code: None, ..world.agree(ADA, &started) };
    let outcome = app.finish_login(nothing, Some(&started.cookie), None, "").await;
    assert!(matches!(outcome, Err(LoginError::RefusedByProvider(_))));
    assert_eq!(world.twitch.calls(Endpoint::Token), 1, "no code of these was sent");
    browser.asks(&app).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_issuer_is_refused_before_the_code_is_sent() {
    let (world, app) = World::start().await;
    let own = world.provider.issuer.clone().unwrap();
    let with_slash = format!("{own}/");
    let table = [("https://evil.example", false), (with_slash.as_str(), false), (own.as_str(), true)];
    for (iss, fine) in table {
        let before = world.twitch.calls(Endpoint::Token);
        let started = app.begin_login(ReturnTo::root(), false);
        let callback = Callback { iss: Some(iss.to_owned()), ..world.agree(ADA, &started) };
        let outcome = app.finish_login(callback, Some(&started.cookie), None, "").await;
        assert_eq!(outcome.as_ref().err(), (!fine).then_some(&LoginError::WrongIssuer), "{iss}");
        assert_eq!(world.twitch.calls(Endpoint::Token) - before, u64::from(fine));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_replaces_the_browsers_session() {
    let (world, app) = World::start().await;
    let old = world.sign_in(&app, ADA).await;
    old.asks(&app).await.unwrap();
    let token = world.access_token(old.session).await;
    world.pass(SECOND);
    let new = world.sign_in_again(&app, GRACE, Some(&old.cookie)).await.unwrap();
    assert_ne!(new.session, old.session);
    assert_eq!(world.end_reason(old.session).await, Some(EndReason::ReplacedBySignIn));
    for assurance in [Assurance::Cookie, Assurance::Session] {
        assert!(old.asks_with(&app, assurance).await.is_err(), "ENDED, at once");
        assert_eq!(new.asks_with(&app, assurance).await.unwrap().subject(), &subject(GRACE));
    }
    assert_eq!(world.owed().await, 1);
    world.assert_revoked(&app, &token).await;
}

#[tokio::test(start_paused = true)]
async fn a_cookie_without_the_secret_replaces_nothing() {
    let (world, app) = World::start().await;
    let old = world.sign_in(&app, ADA).await;
    let other = world.sign_in(&app, ADA).await;
    let mut forged = old.cookie.clone();
    forged.secret = other.cookie.secret.clone();
    world.sign_in_again(&app, GRACE, Some(&forged)).await.unwrap();
    assert_eq!(world.end_reason(old.session).await, None);
    old.asks(&app).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_browser_with_an_ended_session_can_sign_in() {
    let (world, app) = World::start().await;
    let old = world.sign_in(&app, ADA).await;
    app.end_own(&old.cookie, EndReason::SignedOut).await.unwrap();
    world.sign_in_again(&app, ADA, Some(&old.cookie)).await.unwrap();
    assert_eq!(world.end_reason(old.session).await, Some(EndReason::SignedOut), "the first reason stays");
}

#[tokio::test(start_paused = true)]
async fn custody_device_needs_the_cookies_secret() {
    let (world, app) = World::with(custody(Custody::Device)).await;
    let browser = world.sign_in(&app, ADA).await;
    let row = world.row(browser.session).await;
    let pair = row.pair().unwrap();
    let at = claviger_seal::PairBinding {
        provider: &row.subject.provider,
        session: row.id,
        generation: pair.generation,
    };
    let ring = keyring(&[1]);
    let sealed = pair.refresh.as_ref().unwrap();
    assert!(ring.open_refresh(at, RefreshLock::Server, sealed).is_err());
    ring.open_refresh(at, RefreshLock::Device(&browser.cookie.secret), sealed).unwrap();
    let scopes = ring.open_access(at, &pair.access).unwrap().scopes;
    assert_eq!(scopes, [SCOPE], "the granted scopes are stored");
}

#[tokio::test(start_paused = true)]
async fn custody_server_needs_the_keyring() {
    let (world, app) = World::with(custody(Custody::Server)).await;
    let browser = world.sign_in(&app, ADA).await;
    let row = world.row(browser.session).await;
    let pair = row.pair().unwrap();
    let at = claviger_seal::PairBinding {
        provider: &row.subject.provider,
        session: row.id,
        generation: pair.generation,
    };
    keyring(&[1]).open_refresh(at, RefreshLock::Server, pair.refresh.as_ref().unwrap()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn custody_none_revokes_the_tokens() {
    let (world, app) = World::with(custody(Custody::None)).await;
    let browser = world.sign_in(&app, ADA).await;
    let row = world.row(browser.session).await;
    assert!(row.pair().is_none() && matches!(row.state, State::Live(_)));
    assert_eq!(world.owed().await, 1);
    app.carry_out_revocations().await.unwrap();
    assert_eq!(world.twitch.mock().live_access_tokens(ADA), 0, "CASCADE");
    assert_eq!(world.twitch.calls(Endpoint::Revoke), 2, "the refresh token is revoked too");
    let before = world.twitch.calls(Endpoint::Validate);
    world.pass(2 * TOKEN_LIFE);
    browser.asks(&app).await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::Validate), before, "there is nothing to ask about");
    assert_eq!(browser.grant(&app).await.unwrap_err(), claviger_engine::Denied::SignInAgain);
    let fresh = Assurance::Provider { max_age: MINUTE };
    assert_eq!(browser.asks_with(&app, fresh).await.unwrap_err(), claviger_engine::Denied::SignInAgain);
    browser.asks(&app).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_code_whose_answer_is_lost_is_not_sent_again() {
    let (world, app) = World::start().await;
    for kind in [FaultKind::CloseAfter, FaultKind::CloseBefore, FaultKind::status(503)] {
        let before = world.twitch.calls(Endpoint::Token);
        world.twitch.once(Endpoint::Token, kind.clone());
        let started = app.begin_login(ReturnTo::root(), false);
        let callback = world.agree(ADA, &started);
        let outcome = app.finish_login(callback.clone(), Some(&started.cookie), None, "").await;
        assert!(matches!(outcome, Err(LoginError::ProviderUnavailable { .. })), "{kind:?}");
        let again = app.finish_login(callback, Some(&started.cookie), None, "").await;
        assert_eq!(again.unwrap_err(), LoginError::AlreadyUsed);
        assert_eq!(world.twitch.calls(Endpoint::Token), before + 1, "{kind:?}");
    }
    assert_eq!(app.devices(&subject(ADA)).await.unwrap(), []);
}

/// Anybody can begin a sign-in, so the number of concurrent questions to the provider is limited.
/// The others may try again.
#[tokio::test(start_paused = true)]
async fn sign_ins_over_the_limit_get_busy() {
    let (world, app) =
        World::with(|setup| setup.mock.live_token_limit = claviger_mock::LiveTokenLimit::Off).await;
    let logins = (0..limits::EXCHANGES.strangers as usize + 3).map(|_| {
        let started = app.begin_login(ReturnTo::root(), false);
        (world.agree(ADA, &started), started)
    });
    let logins: Vec<_> = logins.collect();
    let finish = |(callback, started): &(Callback, claviger_engine::LoginStarted)| {
        let (app, callback, cookie) = (app.engine.clone(), callback.clone(), started.cookie.clone());
        async move { app.finish_login(callback, Some(&cookie), None, "").await.map(|_| ()) }
    };
    let outcomes = futures_util::future::join_all(logins.iter().map(finish)).await;
    let refused: Vec<_> = (0..logins.len()).filter(|index| outcomes[*index].is_err()).collect();
    assert_eq!(refused.len(), 3);
    for index in refused {
        assert!(matches!(outcomes[index], Err(LoginError::Busy { .. })));
        finish(&logins[index]).await.expect("its state was not used up");
    }
}
