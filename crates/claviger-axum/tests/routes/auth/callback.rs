//! `GET /auth/callback`: sign-ins that succeed.

use claviger_core::EndReason;
use http::{StatusCode, header};

use crate::{
    browser::{Browser, From},
    site::App,
    twitch::{ADA, GRACE, HOSTILE_NAME, MALLORY},
};

#[tokio::test(start_paused = true)]
async fn a_sign_in_sets_the_session_cookie_and_redirects() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login?return_to=/inbox").await;
    let login_cookie = browser.cookie_names()[0].to_owned();
    let login_value = browser.cookie(&login_cookie).unwrap().to_owned();
    let answer = browser.follows(&app, &callback, From::Elsewhere).await;
    answer.assert_leads_to("/inbox");
    assert_eq!(answer.header(header::REFERRER_POLICY), Some("no-referrer"), "the code stays in this address");
    assert_eq!(answer.header(header::CACHE_CONTROL), Some("no-store"));
    let value = answer.cookie_value("__Host-claviger");
    assert!("__Host-claviger".len() + value.len() < 300, "{value}");
    assert_eq!(
        answer.set_cookies(),
        [
            format!("__Host-claviger={value}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2592000"),
            format!("{login_cookie}={login_value}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=600"),
        ]
    );
    assert!(answer.body.is_empty(), "{answer:?}");
    assert!(browser.is_signed_in(&app).await);
}

#[tokio::test(start_paused = true)]
async fn the_longest_name_still_fits_the_cookie() {
    let app = App::start().await;
    let user = claviger_mock::User::new("9".repeat(40), "Ã".repeat(200));
    app.twitch.mock().add_user(user);
    let answer = Browser::new().signs_in(&app, &"9".repeat(40)).await;
    assert!("__Host-claviger".len() + answer.cookie_value("__Host-claviger").len() < 300);
}

#[tokio::test(start_paused = true)]
async fn a_new_sign_in_replaces_the_old_session_of_this_browser_only() {
    let app = App::start().await;
    let elsewhere = app.signed_in(ADA).await;
    let mut browser = app.signed_in(ADA).await;
    let (before, old) = (browser.clone(), browser.session(&app));
    browser.signs_in(&app, GRACE).await;
    assert_eq!(app.end_reason(old).await, Some(EndReason::ReplacedBySignIn));
    assert_ne!(browser.session(&app), old);
    let mut thief = before;
    let answer = thief.fetches(&app, "/auth/session").await;
    answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
    assert_eq!(answer.json()["reason"], "replaced_by_sign_in", "the old cookie is dead");
    assert!(browser.is_signed_in(&app).await && elsewhere.is_signed_in(&app).await, "BLAST");
}

#[tokio::test(start_paused = true)]
async fn a_cookie_without_the_right_secret_replaces_nothing() {
    let app = App::start().await;
    let victim = app.signed_in(ADA).await;
    let mut browser = Browser::new();
    let mut stolen = app.claviger.engine().open_cookie(victim.cookie("__Host-claviger").unwrap()).unwrap();
    stolen.secret = claviger_core::SessionSecret::new([0; 32]);
    let root = claviger_seal::RootKey::new(claviger_seal::KeyId(1), [1; 32]);
    let forged = stolen.seal(&claviger_seal::Keyring::new(vec![root]).unwrap(), [0; 12]);
    browser.plant("__Host-claviger", &forged);
    browser.signs_in(&app, GRACE).await;
    assert!(victim.is_signed_in(&app).await, "BLAST");
}

#[tokio::test(start_paused = true)]
async fn any_user_agent_becomes_a_device_name() {
    let app = App::start().await;
    let long = "x".repeat(8000);
    for (user_agent, name) in [
        ("", "Unknown device"),
        ("curl/8.5.0", "curl"),
        ("ÿþ", "Unknown device"),
        ("\"><script>alert(1)</script>", "\"><script>alert"),
        (long.as_str(), &"x".repeat(80)),
    ] {
        let mut browser = Browser::called(user_agent);
        browser.signs_in(&app, ADA).await;
        let answer = browser.fetches(&app, "/auth/session").await;
        assert_eq!(answer.json()["device"], name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hostile_user_name_comes_back_as_text() {
    let app = App::start().await;
    let mut browser = Browser::new();
    browser.signs_in(&app, MALLORY).await;
    assert_eq!(browser.fetches(&app, "/auth/session").await.json()["name"], HOSTILE_NAME);
}

#[tokio::test(start_paused = true)]
async fn concurrent_callbacks_share_one_session() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let mut tabs = [browser.clone(), browser.clone(), browser];
    let [a, b, c] = &mut tabs;
    let (a, b, c) = tokio::join!(
        a.follows(&app, &callback, From::Elsewhere),
        b.follows(&app, &callback, From::Elsewhere),
        c.follows(&app, &callback, From::Elsewhere),
    );
    for answer in [a, b, c] {
        answer.assert_leads_to("/");
        assert!(answer.touches_session(), "LOSER: whichever answer the browser takes signs it in");
    }
    let sessions: std::collections::BTreeSet<_> = tabs.iter().map(|tab| tab.session(&app)).collect();
    assert_eq!(sessions.len(), 1);
    assert_eq!(app.twitch.mock().token_calls("authorization_code"), 1, "a code is sent once");
}

/// L1: what nobody sees spends nothing.
#[tokio::test(start_paused = true)]
async fn head_and_prefetch_spend_nothing() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let head = browser.bare(&app, http::Method::HEAD, &callback).header("sec-fetch-site", "none");
    browser.send(&app, head).await.assert_sets_no_cookie();
    for (name, value) in
        [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch"), ("x-moz", "prefetch")]
    {
        let ahead = browser.bare(&app, http::Method::GET, &callback).header(name, value);
        let answer = browser.send(&app, ahead.header("sec-fetch-site", "none")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        answer.assert_sets_no_cookie();
    }
    assert_eq!(app.twitch.mock().token_calls("authorization_code"), 0);
    browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/");
}

#[tokio::test(start_paused = true)]
async fn a_strict_cookie_works_right_after_the_sign_in() {
    let app = App::with(|setup| setup.site.same_site = claviger_axum::SameSite::Strict).await;
    let mut browser = app.signed_in(GRACE).await;
    let old = browser.session(&app);
    let callback = browser.reaches_provider(&app, ADA, "/auth/login?return_to=/auth/devices").await;
    let hop = browser.follows(&app, &callback, From::Elsewhere).await;
    hop.assert_page(StatusCode::OK, "One moment, please");
    assert_eq!(hop.header(header::REFERRER_POLICY), Some("no-referrer"));
    hop.assert_sets_no_cookie();
    let next = hop.goes_on_to().unwrap();
    assert!(next.starts_with("/auth/callback?"), "{next}");
    let answer = browser.follows(&app, &next, From::ThisSite).await;
    answer.assert_leads_to("/auth/devices");
    assert!(answer.set_cookies().iter().any(|line| line.contains("SameSite=Strict")), "{answer:?}");
    assert_eq!(app.end_reason(old).await, Some(EndReason::ReplacedBySignIn), "the strict cookie was seen");
    browser.follows(&app, "/auth/devices", From::ThisSite).await.assert_page(StatusCode::OK, "ada_builds");
    let answer = browser.follows(&app, "/auth/devices", From::Elsewhere).await;
    answer.assert_leads_to("/auth/sign-in?return_to=%2Fauth%2Fdevices");
}

#[tokio::test(start_paused = true)]
async fn the_hop_never_leaves_this_site() {
    let app = App::with(|setup| setup.site.same_site = claviger_axum::SameSite::Strict).await;
    for query in
        ["", "state=\"><script>".replace(['"', '<', '>'], "%22").as_str(), "'", "url=//evil.example", ";,"]
    {
        let hop = Browser::new().follows(&app, &format!("/auth/callback?{query}"), From::Elsewhere).await;
        assert_eq!(hop.goes_on_to(), Some(format!("/auth/callback?{query}&hop=1").replace('\'', "&#39;")));
        assert_eq!(hop.header(header::REFERRER_POLICY), Some("no-referrer"));
    }
    let script = Browser::new().fetches(&app, "/auth/callback").await;
    script.assert_error(StatusCode::BAD_REQUEST, "sign_in_stale");
}

#[tokio::test(start_paused = true)]
async fn the_hop_of_a_strict_site_happens_once() {
    let app = App::with(|setup| setup.site.same_site = claviger_axum::SameSite::Strict).await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let answer = browser.follows(&app, &format!("{callback}&hop=1"), From::Elsewhere).await;
    answer.assert_leads_to("/");
    let mut other = Browser::new();
    let callback = other.reaches_provider(&app, ADA, "/auth/login").await;
    other.follows(&app, &callback, From::ThisSite).await.assert_leads_to("/");
}
