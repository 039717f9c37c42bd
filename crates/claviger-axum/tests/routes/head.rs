//! What is read of a request's head: large cookies, and what shows the answer.

use axum::{Router, routing::any};
use claviger_axum::SignedIn;
use claviger_core::limits;
use http::{Method, StatusCode, header};

use crate::{
    answer::Answer,
    browser::{Browser, From},
    site::{App, ORIGIN},
    twitch::ADA,
};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn with_a_private_page() -> App {
    App::with(|setup| {
        setup.pages = |claviger| {
            Router::new()
                .route("/private", any(|SignedIn(_): SignedIn| async { "private" }))
                .layer(claviger.layer())
                .merge(claviger.routes())
        };
    })
    .await
}

/// Sends a request whose Cookie header has this many octets besides our own cookies.
async fn with_octets(app: &App, browser: &mut Browser, method: Method, path: &str, octets: usize) -> Answer {
    let request = browser.bare(app, method, path).header("origin", ORIGIN);
    let request = request.header(header::COOKIE, format!("app={}", "x".repeat(octets)));
    browser.send(app, request).await
}

#[tokio::test(start_paused = true)]
async fn our_cookies_are_read_among_20_kib_of_others() {
    let app = with_a_private_page().await;
    let mut browser = app.signed_in(ADA).await;
    for path in ["/auth/session", "/auth/devices", "/auth/check", "/private"] {
        let answer = with_octets(&app, &mut browser, Method::GET, path, 20 * 1024).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let answer = with_octets(&app, &mut browser, Method::GET, &callback, 20 * 1024).await;
    answer.assert_leads_to("/");
    let answer = with_octets(&app, &mut browser, Method::POST, "/auth/logout", 20 * 1024).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(browser.cookie("__Host-claviger").is_none());
}

#[tokio::test(start_paused = true)]
async fn more_cookies_than_are_read_are_never_no_cookie() {
    let app = with_a_private_page().await;
    let mut browser = app.signed_in(ADA).await;
    let table = [
        (Method::GET, "/auth/session"),
        (Method::GET, "/auth/devices"),
        (Method::GET, "/auth/check"),
        (Method::GET, "/auth/check?assurance=cookie"),
        (Method::GET, "/auth/login"),
        (Method::GET, "/auth/sign-in"),
        (Method::GET, "/auth/callback?state=x&code=y"),
        (Method::POST, "/auth/logout"),
        (Method::POST, "/auth/devices/end-others"),
        (Method::GET, "/private"),
        (Method::POST, "/private"),
    ];
    for (method, path) in table {
        let answer = with_octets(&app, &mut browser, method, path, limits::COOKIE_HEADER_BYTES).await;
        answer.assert_error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_cookies");
        answer.assert_sets_no_cookie();
    }
    assert!(browser.is_signed_in(&app).await);
    let window = browser.bare(&app, Method::GET, "/auth/devices").header("accept", HTML);
    let window = window.header(header::COOKIE, format!("a={}", "x".repeat(limits::COOKIE_HEADER_BYTES)));
    let answer = browser.send(&app, window).await;
    answer.assert_page(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Delete this site&#39;s cookies");
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_navigation_is_led_to_the_sign_in() {
    let app = with_a_private_page().await;
    let mut nobody = Browser::new();
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);
    let table: &[Case<'_>] = &[
        ("a window", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], true),
        ("a service worker", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "empty")], true),
        ("a frame", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], true),
        ("iPadOS 15", &[("accept", HTML)], true),
        ("a script", &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", HTML)], false),
        ("an image", &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], false),
    ];
    for (who, fields, navigates) in table {
        let mut request = nobody.bare(&app, Method::GET, "/private");
        let mut check = nobody.bare(&app, Method::GET, "/auth/check");
        for (name, value) in *fields {
            request = request.header(*name, *value);
            check = check.header(*name, *value);
        }
        let answer = nobody.send(&app, request).await;
        if *navigates {
            answer.assert_leads_to("/auth/sign-in?return_to=%2Fprivate");
        } else {
            answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
        }
        let answer = nobody.send(&app, check).await;
        answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
        let address = answer.headers.get("x-auth-sign-in").map(|address| address.to_str().unwrap());
        assert_eq!(address, navigates.then_some("/auth/sign-in?return_to=%2F"), "{who}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_shows_the_sign_in_page_and_leaves_the_provider_to_a_window() {
    let app = with_a_private_page().await;
    let mut browser = app.signed_in(ADA).await;
    let in_frame = |browser: &Browser, path| {
        let request = browser.bare(&app, Method::GET, path).header("sec-fetch-site", "same-origin");
        request.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "iframe")
    };
    let answer = Browser::new().send(&app, in_frame(&Browser::new(), "/auth/sign-in")).await;
    answer.assert_page(StatusCode::OK, "target=\"_top\"");
    assert_eq!(answer.header(header::X_FRAME_OPTIONS), Some("SAMEORIGIN"));
    let devices = in_frame(&browser, "/auth/devices");
    let answer = browser.send(&app, devices).await;
    assert_eq!(answer.header(header::X_FRAME_OPTIONS), Some("DENY"), "its buttons change something");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_no_websocket_is_an_ordinary_get() {
    let app = with_a_private_page().await;
    let mut browser = app.signed_in(ADA).await;
    for (upgrade, expected) in [
        ("TLS/1.2", StatusCode::OK),
        ("h2c", StatusCode::OK),
        ("HTTP/2.0, SHTTP/1.3", StatusCode::OK),
        ("websocket", StatusCode::FORBIDDEN),
        ("h2c, WebSocket", StatusCode::FORBIDDEN),
    ] {
        for path in ["/private", "/auth/check"] {
            let request = browser.bare(&app, Method::GET, path).header("upgrade", upgrade);
            let answer = browser.send(&app, request.header("origin", "https://evil.example")).await;
            assert_eq!(answer.status, expected, "{path} {upgrade}");
        }
    }
    let from = browser.follows(&app, "/private", From::Elsewhere).await;
    assert_eq!(from.status, StatusCode::OK);
}
