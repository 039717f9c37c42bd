//! What an app gets: the layer and the extractors.

use axum::{
    Router,
    routing::{any, get},
};
use claviger_axum::{Claviger, MaybeSignedIn, SignedIn};
use claviger_core::request::Assurance;
use claviger_mock::Endpoint;
use http::{HeaderMap, Method, StatusCode, header};

use crate::{
    browser::{Browser, From},
    secrets::captured,
    site::{App, MINUTE, SECOND},
    twitch::{ADA, MALLORY},
};

async fn public(MaybeSignedIn(caller): MaybeSignedIn) -> String {
    caller.map_or("stranger".to_owned(), |caller| caller.display_name().to_owned())
}

async fn optional(caller: Option<SignedIn>) -> String {
    caller.map_or("stranger".to_owned(), |SignedIn(caller)| caller.subject().id.clone())
}

async fn private(SignedIn(caller): SignedIn) -> String {
    caller.subject().id.clone()
}

/// Gives the headers that the handler sees.
async fn seen(headers: HeaderMap) -> String {
    let lines = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    lines.collect()
}

fn pages(claviger: &Claviger) -> Router {
    let payments = Router::new()
        .route("/pay", get(private))
        .layer(claviger.layer_with(Assurance::Provider { max_age: std::time::Duration::ZERO }));
    Router::new()
        .route("/", get(public))
        .route("/optional", get(optional))
        .route("/private", any(private))
        .route("/seen", any(seen))
        .nest("/nested", Router::new().route("/private", get(private)))
        .merge(payments)
        .layer(claviger.layer())
        .route("/unguarded", get(private))
        .route("/cheap", get(private).layer(claviger.layer_with(Assurance::Cookie)))
        .fallback(async || (StatusCode::NOT_FOUND, "the app's own words"))
        .merge(claviger.routes())
}

async fn start() -> App {
    App::with(|setup| setup.pages = pages).await
}

#[tokio::test(start_paused = true)]
async fn handlers_learn_who_is_calling() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    let mut nobody = Browser::new();
    for (path, known, unknown) in [("/", "ada_builds", "stranger"), ("/optional", ADA, "stranger")] {
        assert_eq!(browser.opens(&app, path).await.body, known);
        assert_eq!(nobody.opens(&app, path).await.body, unknown);
    }
    assert_eq!(browser.opens(&app, "/private").await.body, ADA);
    assert_eq!(nobody.opens(&app, "/nothing").await.body, "the app's own words");
}

#[tokio::test(start_paused = true)]
async fn navigations_are_led_to_the_sign_in_and_others_get_json() {
    let app = start().await;
    let mut nobody = Browser::new();
    let mut ended = app.signed_in(ADA).await;
    app.end(ended.session(&app), claviger_core::session::EndReason::Idle).await;
    for browser in [&mut nobody, &mut ended] {
        let answer = browser.opens(&app, "/private?a=b&c").await;
        answer.assert_leads_to("/auth/sign-in?return_to=%2Fprivate%3Fa%3Db%26c");
        assert_eq!(answer.header(header::CACHE_CONTROL), Some("no-store"));
        answer.assert_sets_no_cookie();
        for answer in [browser.fetches(&app, "/private").await, browser.posts(&app, "/private").await] {
            answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
            assert_eq!(answer.header(header::CACHE_CONTROL), Some("no-store"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_nested_page_is_found_again_after_the_sign_in() {
    let app = start().await;
    let answer = Browser::new().opens(&app, "/nested/private?a=b").await;
    answer.assert_leads_to("/auth/sign-in?return_to=%2Fnested%2Fprivate%3Fa%3Db");
}

#[tokio::test(start_paused = true)]
async fn a_path_that_could_lead_away_leads_to_the_front_page() {
    let app = App::with(|setup| {
        setup.pages = |claviger| Router::new().fallback(private).layer(claviger.layer());
    })
    .await;
    let long = format!("/{}", "a".repeat(2000));
    for path in ["//evil.example/", "/.//evil.example", "/\\evil.example", &long] {
        let answer = Browser::new().opens(&app, path).await;
        answer.assert_leads_to("/auth/sign-in?return_to=%2F");
    }
}

#[tokio::test(start_paused = true)]
async fn handlers_see_neither_our_cookies_nor_claims_of_clients() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    browser.reaches_provider(&app, ADA, "/auth/login").await;
    browser.plant("theme", "dark");
    let value = browser.cookie("__Host-claviger").unwrap().to_owned();
    let request = browser
        .bare(&app, Method::GET, "/seen")
        .header("x-auth-user", "admin")
        .header("X-AUTH-NAME", "admin")
        .header("x_auth_user", "admin")
        .header("x-auth_anything", "admin")
        .header("x-authority", "stays");
    let seen = browser.send(&app, request).await.body;
    assert_eq!(seen, "x-authority: stays\ncookie: theme=dark\n");
    assert!(!seen.contains(&value), "SECRET");
}

#[tokio::test(start_paused = true)]
async fn other_sites_change_nothing() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    for from in [From::Elsewhere, From::Sibling] {
        let answer = browser.submits(&app, "/private", from).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(browser.submits(&app, "/private", From::ThisSite).await.body, ADA);
    let request = browser.bare(&app, Method::GET, "/private").header("upgrade", "websocket");
    let answer = browser.send(&app, request.header("origin", "https://evil.example")).await;
    answer.assert_error(StatusCode::FORBIDDEN, "cross_site");
    let program = Browser::new().bare(&app, Method::POST, "/seen");
    assert_eq!(Browser::new().send(&app, program).await.status, StatusCode::OK, "a webhook shows no session");
}

#[tokio::test(start_paused = true)]
async fn provider_trouble_is_not_taken_for_signed_out() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    app.provider_fails_when_needed();
    for path in ["/", "/optional", "/private"] {
        browser.fetches(&app, path).await.assert_passing_trouble();
        let page = browser.opens(&app, path).await;
        page.assert_page(StatusCode::SERVICE_UNAVAILABLE, "You are still signed in");
        page.assert_passing_trouble();
    }
    assert_eq!(Browser::new().opens(&app, "/").await.body, "stranger");
    app.twitch.mend();
    app.pass(MINUTE);
    assert_eq!(browser.opens(&app, "/").await.body, "ada_builds", "TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn store_trouble_is_not_taken_for_signed_out() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    app.store_fails(true);
    browser.fetches(&app, "/").await.assert_passing_trouble();
    assert_eq!(browser.fetches(&app, "/cheap").await.body, ADA, "the cookie vouches");
    app.store_fails(false);
    assert_eq!(browser.fetches(&app, "/").await.body, "ada_builds", "TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn a_stricter_layer_inside_asks_for_more() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    let before = app.twitch.mock().calls(Endpoint::Validate);
    app.pass(SECOND);
    assert_eq!(browser.opens(&app, "/pay").await.body, ADA);
    assert_eq!(app.twitch.mock().calls(Endpoint::Validate), before + 1);
    app.pass(SECOND);
    app.twitch.breaks(Endpoint::Validate, 500);
    browser.fetches(&app, "/pay").await.assert_passing_trouble();
    assert_eq!(browser.fetches(&app, "/private").await.body, ADA);
    let answer = Browser::new().opens(&app, "/pay").await;
    answer.assert_leads_to("/auth/sign-in?return_to=%2Fpay");
}

#[tokio::test(start_paused = true)]
async fn a_handler_without_the_layer_fails_loudly() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    let (log, answer) = captured(browser.opens(&app, "/unguarded")).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, ""));
    assert!(log.contains("without Claviger's layer"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn the_access_hint_is_carried_beside_the_session() {
    let app = App::with(|setup| setup.settings.carry_access_token = true).await;
    let mut browser = Browser::new();
    let answer = browser.signs_in(&app, ADA).await;
    let value = answer.cookie_value("__Host-claviger-hint").to_owned();
    let line =
        format!("__Host-claviger-hint={value}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2592000");
    assert!(answer.set_cookies().contains(&line.as_str()), "{answer:?}");
    let headers = browser.bare(&app, Method::GET, "/").body(()).unwrap().headers().clone();
    let hint = app.claviger.access_hint(&headers).expect("a hint");
    assert_eq!(hint.session, browser.session(&app));
    assert!(app.twitch.secrets().contains(&hint.token.expose().to_owned()));
    assert!(!value.contains(hint.token.expose()), "SECRET");
    let reads = app.store.reads();
    let cookie = app.claviger.cookie(&headers).unwrap();
    let grant = app.claviger.engine().grant(&cookie, Some(hint.clone())).await.unwrap();
    assert_eq!((grant.token.expose(), app.store.reads()), (hint.token.expose(), reads));
    let mut fresh = HeaderMap::new();
    app.claviger.set_access_hint(&mut fresh, &cookie, &grant);
    let line = fresh[header::SET_COOKIE].to_str().unwrap();
    assert!(line.starts_with("__Host-claviger-hint=") && !line.contains(hint.token.expose()));
    browser.posts(&app, "/auth/logout").await;
    assert!(browser.cookie_names().is_empty());
    assert!(app.claviger.engine().grant(&cookie, Some(hint)).await.is_err(), "a hint is no authority");
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_another_session_is_no_hint() {
    let app = App::with(|setup| setup.settings.carry_access_token = true).await;
    let (ada, mut mallory) = (app.signed_in(ADA).await, app.signed_in(MALLORY).await);
    mallory.plant("__Host-claviger-hint", ada.cookie("__Host-claviger-hint").unwrap());
    let headers = mallory.bare(&app, Method::GET, "/").body(()).unwrap().headers().clone();
    let hint = app.claviger.access_hint(&headers).unwrap();
    let cookie = app.claviger.cookie(&headers).unwrap();
    let grant = app.claviger.engine().grant(&cookie, Some(hint.clone())).await.unwrap();
    assert_ne!(grant.token.expose(), hint.token.expose(), "ISO");
    let mut two = headers.clone();
    two.append(header::COOKIE, headers[header::COOKIE].clone());
    assert!(app.claviger.access_hint(&two).is_none());
    mallory.plant("__Host-claviger-hint", "garbage");
    let headers = mallory.bare(&app, Method::GET, "/").body(()).unwrap().headers().clone();
    assert!(app.claviger.access_hint(&headers).is_none());
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_no_hint_is_set_or_read() {
    let (carries, app) =
        (App::with(|setup| setup.settings.carry_access_token = true).await, App::start().await);
    let browser = carries.signed_in(ADA).await;
    let headers = browser.bare(&app, Method::GET, "/").body(()).unwrap().headers().clone();
    assert!(app.claviger.access_hint(&headers).is_none());
    let answer = Browser::new().signs_in(&app, ADA).await;
    assert!(!answer.set_cookies().iter().any(|line| line.contains("-hint")), "{answer:?}");
}
