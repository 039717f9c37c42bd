//! A session whose tokens no refresh can renew: a navigation goes to the provider and back, and the
//! session continues.

use claviger_mock::{Endpoint, Fault, FaultKind, Rotation};
use http::StatusCode;

use crate::{
    browser::{Browser, From},
    site::{App, MINUTE, TOKEN_LIFE},
    twitch::{ADA, GRACE},
};

/// Where a page of the app sends a session that needs a renewal.
const PAGE: &str = "/auth/sign-in?return_to=%2Fauth%2Fdevices";

/// A browser whose session lost the answer to a refresh, and whose replay came too late.
async fn beyond_refresh() -> (App, Browser) {
    let app = App::start().await;
    app.twitch.mock().settings_mut().rotation = Rotation::OneTime;
    let mut browser = app.signed_in(ADA).await;
    app.pass(TOKEN_LIFE);
    app.twitch.mock().add_fault(Fault::once(Endpoint::Token, FaultKind::CloseAfter));
    for _ in 0..2 {
        browser.fetches(&app, "/auth/session").await.assert_passing_failure();
        app.pass(MINUTE);
    }
    (app, browser)
}

/// Follows this site's redirects to the provider.
async fn is_led_to_provider(app: &App, browser: &mut Browser, path: &str) -> String {
    let mut answer = browser.opens(app, path).await;
    while answer.location().starts_with('/') {
        assert!(!answer.touches_session(), "TRANSIENT {answer:?}");
        let next = answer.location().to_owned();
        answer = browser.follows(app, &next, From::ThisSite).await;
    }
    answer.location().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_navigation_renews_the_session_at_the_provider() {
    let (app, mut browser) = beyond_refresh().await;
    let session = browser.session(&app);
    let location = is_led_to_provider(&app, &mut browser, PAGE).await;
    assert!(!location.contains("force_verify=true"), "silent {location}");
    let callback = crate::browser::path_of(&app.twitch.agree(ADA, &location));
    let answer = browser.follows(&app, &callback, From::Elsewhere).await;
    answer.assert_leads_to("/auth/devices");
    assert!(!answer.touches_session(), "the cookie goes on");
    assert_eq!(browser.session(&app), session);
    assert!(browser.is_signed_in(&app).await, "LIVE");
    let devices = browser.fetches(&app, "/auth/devices").await.json();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1, "the same row: {devices}");
}

#[tokio::test(start_paused = true)]
async fn a_link_on_another_site_renews_the_session_too() {
    let (app, mut browser) = beyond_refresh().await;
    let mut answer = browser.follows(&app, PAGE, From::Elsewhere).await;
    while answer.location().starts_with('/') {
        let next = answer.location().to_owned();
        answer = browser.follows(&app, &next, From::Elsewhere).await;
    }
    assert!(answer.location().starts_with("http://mock.test/"), "no click is needed: {answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_script_gets_json_instead_of_a_redirect() {
    let (app, mut browser) = beyond_refresh().await;
    let answer = browser.fetches(&app, "/auth/session").await;
    answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
    assert_eq!(answer.json()["reason"], "renewal_needed");
    assert_eq!(answer.json()["login"], "/auth/login", "which repairs");
    answer.assert_sets_no_cookie();
}

#[tokio::test(start_paused = true)]
async fn another_account_at_the_provider_is_explained() {
    let (app, mut browser) = beyond_refresh().await;
    let session = browser.session(&app);
    let location = is_led_to_provider(&app, &mut browser, PAGE).await;
    let callback = crate::browser::path_of(&app.twitch.agree(GRACE, &location));
    let answer = browser.follows(&app, &callback, From::Elsewhere).await;
    let page = browser.reads_failure(&app, &answer).await;
    page.assert_page(StatusCode::BAD_REQUEST, "Another account is signed in there");
    let again = "/auth/login?switch=true&#38;return_to=%2Fauth%2Fdevices";
    assert!(page.body.contains(again), "{}", page.body);
    assert!(!answer.touches_session(), "ISO");
    assert_eq!(app.end_reason(session).await, None);
    let callback = browser.reaches_provider(&app, GRACE, "/auth/login?switch=true").await;
    assert!(browser.follows(&app, &callback, From::Elsewhere).await.touches_session());
    assert_ne!(browser.session(&app), session, "another account gets a new session");
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_during_the_renewal_is_not_undone() {
    let (app, mut browser) = beyond_refresh().await;
    let session = browser.session(&app);
    let location = is_led_to_provider(&app, &mut browser, PAGE).await;
    let reason = claviger_core::session::EndReason::SignedOutFromAnotherDevice;
    app.end(session, reason).await;
    let callback = crate::browser::path_of(&app.twitch.agree(ADA, &location));
    let answer = browser.follows(&app, &callback, From::Elsewhere).await;
    let page = browser.reads_failure(&app, &answer).await;
    page.assert_page(StatusCode::BAD_REQUEST, "This device was signed out in the meantime");
    assert!(!browser.is_signed_in(&app).await, "ENDED");
    assert_eq!(app.end_reason(session).await, Some(reason), "ENDED");
}
