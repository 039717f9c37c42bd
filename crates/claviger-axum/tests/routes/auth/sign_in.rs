//! `GET /auth/sign-in`.

use claviger_core::EndReason;
use http::StatusCode;

use crate::{
    browser::{Browser, From},
    site::{App, DAY},
    twitch::ADA,
};

const OK: StatusCode = StatusCode::OK;

#[tokio::test(start_paused = true)]
async fn the_page_offers_the_sign_in_with_its_return_to() {
    let app = App::start().await;
    let table = [
        ("/auth/sign-in", "/auth/login?return_to=%2F"),
        ("/auth/sign-in?return_to=/a%3Fb%3D1%26c", "/auth/login?return_to=%2Fa%3Fb%3D1%26c"),
        ("/auth/sign-in?return_to=//evil.example", "/auth/login?return_to=%2F"),
        ("/auth/sign-in?return_to=/%22%3E%3Cscript%3E", "/auth/login?return_to=%2F%22%3E%3Cscript%3E"),
    ];
    for (path, login) in table {
        let answer = Browser::new().opens(&app, path).await;
        answer.assert_page(OK, "You need to be signed in to continue.");
        assert!(answer.body.contains(&format!("href=\"{login}\"")), "{login} is missing in {}", answer.body);
        assert!(answer.body.contains("Sign in with Twitch"), "{}", answer.body);
        answer.assert_sets_no_cookie();
    }
}

#[tokio::test(start_paused = true)]
async fn the_offered_sign_in_ends_at_its_return_to() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let page = browser.opens(&app, "/auth/sign-in?return_to=/a%3Fb%3D1%26c").await;
    let login = page.body.split_once("href=\"/auth/login").unwrap().1.split('"').next().unwrap();
    let login = format!("/auth/login{}", login.replace("&#38;", "&"));
    let callback = browser.reaches_provider(&app, ADA, &login).await;
    browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/a?b=1&c");
}

#[tokio::test(start_paused = true)]
async fn the_page_says_why_a_session_ended() {
    let words = |reason| match reason {
        EndReason::SignedOut => ("You signed out on this device.", true),
        EndReason::SignedOutFromAnotherDevice => ("You signed this device out from another one.", true),
        EndReason::SignedOutEverywhere => ("You signed out on all your devices.", true),
        EndReason::ReplacedBySignIn => ("You signed in again in this browser.", false),
        EndReason::DisconnectedAtProvider => ("You disconnected this site", true),
        EndReason::RefreshTokenRejected => ("no longer accepts this sign-in", false),
        EndReason::TokenOfAnotherSubject => ("Something was wrong with this sign-in", true),
        EndReason::Idle => ("was not used for a long time", false),
        EndReason::TooOld => ("From time to time we ask you", false),
        EndReason::DeviceLimit => ("more devices than this site allows", false),
        EndReason::Administrator => ("The people who run this site ended", true),
        EndReason::ProviderLogout => ("You signed out at the sign-in service", true),
        EndReason::AccountGone => ("Your account at the sign-in service no longer exists", true),
    };
    let app = App::start().await;
    for (reason, name) in EndReason::NAMES {
        let mut browser = app.signed_in(ADA).await;
        app.end(browser.session(&app), reason).await;
        let (text, asks_again) = words(reason);
        let answer = browser.opens(&app, "/auth/sign-in?return_to=/inbox").await;
        answer.assert_page(OK, "You were signed out");
        answer.assert_page(OK, text);
        assert_eq!(answer.body.contains("switch=true"), asks_again, "{name}");
        answer.assert_sets_no_cookie();
        let json = browser.fetches(&app, "/auth/session").await.json();
        assert_eq!(json["reason"], name);
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_explains_idle_and_old_sessions() {
    let app = App::start().await;
    let mut idle = app.signed_in(ADA).await;
    app.pass(14 * DAY);
    idle.ignores_expiry();
    idle.opens(&app, "/auth/sign-in").await.assert_page(OK, "was not used for a long time");
    app.pass(16 * DAY);
    let mut old = app.signed_in(ADA).await;
    old.ignores_expiry();
    app.pass(30 * DAY);
    old.opens(&app, "/auth/sign-in").await.assert_page(OK, "From time to time we ask you");
}

#[tokio::test(start_paused = true)]
async fn after_a_sign_out_the_provider_asks_again() {
    let app = App::start().await;
    let answer = Browser::new().opens(&app, "/auth/sign-in?signed_out=true").await;
    answer.assert_page(OK, "You are signed out");
    assert!(answer.body.contains("switch=true"), "somebody else may use this browser now: {}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn a_signed_in_user_is_redirected() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let table = [
        ("/auth/sign-in", "/"),
        ("/auth/sign-in?return_to=/inbox", "/inbox"),
        ("/auth/sign-in?return_to=//evil.example", "/"),
        ("/auth/sign-in?return_to=/inbox&signed_out=true", "/inbox"),
    ];
    for (path, target) in table {
        browser.opens(&app, path).await.assert_leads_to(target);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_leads_to_the_sign_in_page() {
    let app = App::with(|setup| setup.settings.custody = claviger_core::policy::Custody::Device).await;
    app.twitch.mock().settings_mut().rotation = claviger_mock::Rotation::OneTime;
    let mut browser = app.signed_in(ADA).await;
    app.pass(crate::site::TOKEN_LIFE);
    app.twitch.mock().kill_tokens(ADA);
    let answer = browser.opens(&app, "/auth/sign-in").await;
    answer.assert_page(OK, "no longer accepts this sign-in");
    answer.assert_sets_no_cookie();
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_shown_as_signed_out() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    app.store_fails(true);
    let answer = browser.opens(&app, "/auth/sign-in").await;
    answer.assert_passing_failure();
    answer.assert_page(StatusCode::SERVICE_UNAVAILABLE, "you stay signed in");
    app.store_fails(false);
    app.provider_fails_when_needed();
    let answer = browser.opens(&app, "/auth/sign-in").await;
    answer.assert_passing_failure();
    answer.assert_page(StatusCode::SERVICE_UNAVAILABLE, "The sign-in service does not answer");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_parameter_is_refused() {
    let app = App::start().await;
    for query in ["return_to=/a&return_to=/b", "signed_out=true&signed_out=true"] {
        let answer = Browser::new().opens(&app, &format!("/auth/sign-in?{query}")).await;
        answer.assert_page(StatusCode::BAD_REQUEST, "may come only once");
    }
}
