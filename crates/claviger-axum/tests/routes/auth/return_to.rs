//! `GET /auth/return`: destinations that are too long for headers and cookies.

use axum::Router;
use claviger_core::limits;
use claviger_engine::Caller;
use http::StatusCode;

use crate::{
    answer::Answer,
    browser::{Browser, From},
    site::App,
    twitch::ADA,
};

const OK: StatusCode = StatusCode::OK;

async fn app() -> App {
    App::with(|setup| {
        setup.pages = |claviger| {
            let page = |claviger::SignedIn(caller): claviger::SignedIn| async move { name(&caller) };
            Router::new().fallback(page).layer(claviger.layer()).merge(claviger.routes())
        };
    })
    .await
}

fn name(caller: &Caller) -> String {
    caller.display_name().to_owned()
}

/// A deep link of this many octets.
fn deep(octets: usize) -> String {
    let start = "/search?q=%3Ca%3E&filter=";
    format!("{start}{}", "x".repeat(octets - start.len()))
}

fn link<'a>(page: &'a Answer, before: &str) -> &'a str {
    page.body.split_once(before).unwrap_or_else(|| panic!("{page:?}")).1.split('"').next().unwrap()
}

fn goes_on_by_itself(page: &Answer) -> bool {
    let refresh = page.body.contains("http-equiv=\"refresh\"");
    assert_eq!(refresh, page.body.contains("data-when=\"now\""), "{page:?}");
    refresh
}

/// All headers of an answer fit what a front proxy takes by default.
fn fits(answer: &Answer) {
    let octets: usize =
        answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    assert!(octets < 4096, "{octets}");
}

/// Goes through the sign-in from a denied page on, and returns what shows at its end.
async fn through_sign_in(app: &App, browser: &mut Browser, denied: &Answer) -> Answer {
    fits(denied);
    let page = browser.follows(app, denied.location(), From::User).await;
    let login = link(&page, "id=\"sign-in\" href=\"").replace("&#38;", "&");
    let begun = browser.follows(app, &login, From::ThisSite).await;
    fits(&begun);
    let callback = crate::browser::path_of(&app.twitch.agree(ADA, begun.location()));
    let answer = browser.follows(app, &callback, From::Elsewhere).await;
    fits(&answer);
    browser.follows(app, answer.location(), From::Elsewhere).await
}

#[tokio::test(start_paused = true)]
async fn a_long_destination_survives_the_sign_in() {
    let app = app().await;
    for octets in [limits::SHORT_RETURN_TO_BYTES + 1, 4000, limits::RETURN_TO_BYTES] {
        let (mut browser, deep) = (Browser::new(), deep(octets));
        let denied = browser.opens(&app, &deep).await;
        assert!(
            denied.location().starts_with("/auth/sign-in?return_to=%2Fauth%2Freturn%3Fto%3D"),
            "{denied:?}"
        );
        let page = through_sign_in(&app, &mut browser, &denied).await;
        page.assert_page(OK, "Opening the page that you asked for.");
        assert!(goes_on_by_itself(&page));
        assert_eq!(link(&page, "id=\"onward\" href=\"").replace("&#38;", "&"), deep);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_return_to_of_an_app_survives_too() {
    let app = app().await;
    let mut browser = Browser::new();
    let login = format!("/auth/login?return_to=/a%23{}", "x".repeat(2000));
    let callback = browser.reaches_provider(&app, ADA, &login).await;
    let answer = browser.follows(&app, &callback, From::Elsewhere).await;
    fits(&answer);
    let page = browser.follows(&app, answer.location(), From::Elsewhere).await;
    assert_eq!(link(&page, "id=\"onward\" href=\""), format!("/a#{}", "x".repeat(2000)));
    let own = format!("/auth/login?return_to=/auth/login%3F{}", "x".repeat(2000));
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, &own).await;
    browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/auth/return");
}

#[tokio::test(start_paused = true)]
async fn a_reference_from_elsewhere_waits_for_a_click() {
    let app = app().await;
    let denied = Browser::new().opens(&app, &deep(2000)).await;
    let address = denied.location().split_once("return_to=").unwrap().1;
    let reference = percent_encoding::percent_decode_str(address).decode_utf8().unwrap().into_owned();
    let mut victim = app.signed_in(ADA).await;
    for (from, expected) in
        [(From::Elsewhere, false), (From::Sibling, false), (From::ThisSite, true), (From::User, true)]
    {
        let page = victim.follows(&app, &reference, from).await;
        page.assert_page(OK, "Go to the page");
        assert_eq!(goes_on_by_itself(&page), expected, "{from:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_lost_is_said() {
    let app = app().await;
    let mut browser = Browser::new();
    app.store_fails(true);
    let denied = browser.opens(&app, &deep(2000)).await;
    app.store_fails(false);
    let page = through_sign_in(&app, &mut browser, &denied).await;
    page.assert_page(StatusCode::NOT_FOUND, "no longer has the address that you asked for");
    for reference in ["", "x", "%00", &"A".repeat(43), &"A".repeat(500)] {
        let page = browser.opens(&app, &format!("/auth/return?to={reference}")).await;
        page.assert_page(StatusCode::NOT_FOUND, "no longer has the address that you asked for");
    }
    app.store_fails(true);
    let page = browser.opens(&app, &format!("/auth/return?to={}", "A".repeat(43))).await;
    page.assert_passing_failure();
}

#[tokio::test(start_paused = true)]
async fn strangers_cannot_fill_the_store() {
    let app = app().await;
    let mut kept = 0;
    for _ in 0..100 {
        let denied = Browser::new().opens(&app, &deep(2000)).await;
        kept += usize::from(denied.location().contains("to%3D"));
    }
    assert!(kept <= 3 * limits::DESTINATIONS_PER_SECOND as usize, "{kept}");
    assert!(kept > 0);
}
