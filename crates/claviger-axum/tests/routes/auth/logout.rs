//! `POST /auth/logout`.

use claviger_axum::SiteData;
use claviger_core::EndReason;
use claviger_mock::Endpoint;
use http::{Method, StatusCode, header};

use crate::{
    browser::{Browser, From},
    site::App,
    twitch::ADA,
};

const REMOVALS: [&str; 2] = [
    "__Host-claviger=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0",
    "__Host-claviger-hint=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0",
];

#[tokio::test(start_paused = true)]
async fn a_form_signs_out_and_redirects_to_the_sign_in_page() {
    let app = App::start().await;
    let elsewhere = app.signed_in(ADA).await;
    let mut browser = app.signed_in(ADA).await;
    let (thief, session) = (browser.clone(), browser.session(&app));
    let answer = browser.submits(&app, "/auth/logout", From::ThisSite).await;
    answer.assert_leads_to("/auth/sign-in?signed_out=true");
    assert_eq!(answer.set_cookies(), REMOVALS);
    assert_eq!(answer.headers["clear-site-data"], "\"cache\"", "Back shows no page of the user");
    assert_eq!(app.end_reason(session).await, Some(EndReason::SignedOut));
    assert!(browser.lasting_cookie_names().is_empty());
    let page = browser.follows(&app, answer.location(), From::ThisSite).await;
    page.assert_page(StatusCode::OK, "You are signed out");
    assert!(!thief.is_signed_in(&app).await, "a copy of the cookie is dead too");
    assert!(elsewhere.is_signed_in(&app).await, "BLAST");
}

#[tokio::test(start_paused = true)]
async fn the_site_says_what_a_sign_out_erases() {
    for (kinds, expected) in [
        (vec![], None),
        (
            vec![SiteData::Cache, SiteData::Cookies, SiteData::Storage],
            Some("\"cache\", \"cookies\", \"storage\""),
        ),
    ] {
        let app = App::with(|setup| setup.site.clear_site_data = kinds).await;
        let mut browser = app.signed_in(ADA).await;
        let answer = browser.posts(&app, "/auth/logout").await;
        let erased = answer.headers.get("clear-site-data").map(|value| value.to_str().unwrap());
        assert_eq!(erased, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_script_gets_an_empty_answer() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let answer = browser.posts(&app, "/auth/logout").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(answer.set_cookies(), REMOVALS);
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_can_be_repeated() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let mut other_tab = browser.clone();
    for browser in [&mut browser, &mut other_tab, &mut Browser::new()] {
        let answer = browser.submits(&app, "/auth/logout", From::ThisSite).await;
        answer.assert_leads_to("/auth/sign-in?signed_out=true");
        assert_eq!(answer.set_cookies(), REMOVALS);
    }
}

#[tokio::test(start_paused = true)]
async fn only_post_signs_out() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let request =
            browser.bare(&app, method.clone(), "/auth/logout").header("origin", crate::site::ORIGIN);
        let answer = browser.send(&app, request).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.header(header::ALLOW), Some("POST"), "{method}");
        answer.assert_sets_no_cookie();
    }
    let page = browser.opens(&app, "/auth/logout").await;
    page.assert_page(StatusCode::METHOD_NOT_ALLOWED, "does not accept this kind of request");
    assert!(browser.is_signed_in(&app).await);
}

#[tokio::test(start_paused = true)]
async fn another_site_cannot_sign_out() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    for from in [From::Elsewhere, From::Sibling] {
        let answer = browser.submits(&app, "/auth/logout", from).await;
        answer.assert_page(StatusCode::FORBIDDEN, "Another site tried to do this in your name");
        answer.assert_sets_no_cookie();
    }
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://app.example"),
        ("origin", "https://app.example:444"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "SAME-ORIGIN"),
        ("accept", "application/json"),
    ] {
        let request = browser.bare(&app, Method::POST, "/auth/logout").header(name, value);
        let answer = browser.send(&app, request).await;
        answer.assert_error(StatusCode::FORBIDDEN, "cross_site");
    }
    assert!(browser.is_signed_in(&app).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_failure_keeps_the_session_whole() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    app.store_fails(true);
    browser.posts(&app, "/auth/logout").await.assert_passing_failure();
    let page = browser.submits(&app, "/auth/logout", From::ThisSite).await;
    page.assert_passing_failure();
    page.assert_page(StatusCode::SERVICE_UNAVAILABLE, "you stay signed in");
    assert!(!page.body.contains("href=\"\""), "this address can only be posted to: {}", page.body);
    app.store_fails(false);
    assert!(browser.is_signed_in(&app).await, "TRANSIENT");
    browser.posts(&app, "/auth/logout").await;
    assert!(!browser.is_signed_in(&app).await);
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_works_while_the_provider_is_down() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let thief = browser.clone();
    app.twitch.breaks(Endpoint::Revoke, 503);
    app.twitch.breaks(Endpoint::Validate, 503);
    let answer = browser.submits(&app, "/auth/logout", From::ThisSite).await;
    answer.assert_leads_to("/auth/sign-in?signed_out=true");
    assert!(!thief.is_signed_in(&app).await);
    assert_eq!(app.store_owed().await, 1, "CASCADE");
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_signs_nobody_out() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let misconfigured = app.restarted_with_keys(&[2]).await;
    browser.posts(&misconfigured, "/auth/logout").await.assert_passing_failure();
    assert!(browser.is_signed_in(&app).await, "TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_goes_on_to_a_path_of_this_site_and_to_no_other() {
    let leads = [
        ("/auth/logout?return_to=%2Fbye%3Fa%3Db", "/bye?a=b"),
        ("/auth/logout?return_to=https%3A%2F%2Fevil.example%2F", "/auth/sign-in?signed_out=true"),
        ("/auth/logout?return_to=%2F%2Fevil.example%2F", "/auth/sign-in?signed_out=true"),
        ("/auth/logout?return_to=a&return_to=b", "/auth/sign-in?signed_out=true"),
    ];
    for (address, expected) in leads {
        let app = App::start().await;
        let mut browser = app.signed_in(ADA).await;
        let answer = browser.submits(&app, address, From::ThisSite).await;
        answer.assert_leads_to(expected);
        assert_eq!(
            browser.fetches(&app, "/auth/session").await.status,
            StatusCode::UNAUTHORIZED,
            "{address}"
        );
    }
    let app = App::start().await;
    let page = Browser::new().opens(&app, "/auth/sign-in?signed_out=true").await;
    page.assert_page(StatusCode::OK, "<a href=\"/\">Back to the site</a>");
}
