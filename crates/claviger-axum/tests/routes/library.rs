//! The layer and the extractors, as an app uses them.

use std::convert::Infallible;

use axum::{
    Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use claviger_axum::{Claviger, MaybeSignedIn, RequestHead, SignedIn};
use claviger_core::{Assurance, Presence, limits};
use claviger_engine::Denied;
use claviger_mock::Endpoint;
use http::{HeaderMap, Method, StatusCode, header};
use tower::{Layer as _, ServiceExt as _};

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

/// Returns the headers that the handler sees.
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
async fn extractors_return_the_caller() {
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
async fn what_a_session_sees_is_private() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    let mut nobody = Browser::new();
    for path in ["/", "/private"] {
        assert_eq!(browser.opens(&app, path).await.header(header::CACHE_CONTROL), Some("private"), "{path}");
    }
    assert_eq!(nobody.opens(&app, "/").await.header(header::CACHE_CONTROL), None);
}

#[tokio::test(start_paused = true)]
async fn navigations_are_redirected_and_others_get_json() {
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
async fn a_nested_route_keeps_its_return_to() {
    let app = start().await;
    let answer = Browser::new().opens(&app, "/nested/private?a=b").await;
    answer.assert_leads_to("/auth/sign-in?return_to=%2Fnested%2Fprivate%3Fa%3Db");
}

async fn everywhere_private() -> App {
    App::with(|setup| {
        setup.pages =
            |claviger| Router::new().fallback(private).layer(claviger.layer()).merge(claviger.routes());
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_an_unsafe_path_is_said() {
    let app = everywhere_private().await;
    let long = format!("/{}", "a".repeat(limits::RETURN_TO_BYTES));
    for path in ["//evil.example/", "/.//evil.example", &long] {
        let answer = Browser::new().opens(&app, path).await;
        answer.assert_leads_to("/auth/sign-in?return_to=%2Fauth%2Freturn");
    }
    let answer = Browser::new().opens(&app, "/\\evil.example").await;
    answer.assert_leads_to("/auth/sign-in?return_to=%2F%255Cevil.example");
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login?return_to=/auth/return").await;
    browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/auth/return");
    let page = browser.follows(&app, "/auth/return", From::Elsewhere).await;
    page.assert_page(StatusCode::NOT_FOUND, "no longer has the address that you asked for");
}

#[tokio::test(start_paused = true)]
async fn handlers_see_no_cookies_of_ours_and_no_inbound_identity() {
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
async fn cross_site_requests_are_refused() {
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
async fn a_provider_failure_is_not_shown_as_signed_out() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    app.provider_fails_when_needed();
    for path in ["/", "/optional", "/private"] {
        browser.fetches(&app, path).await.assert_passing_failure();
        let page = browser.opens(&app, path).await;
        page.assert_page(StatusCode::SERVICE_UNAVAILABLE, "You are still signed in");
        page.assert_passing_failure();
    }
    assert_eq!(Browser::new().opens(&app, "/").await.body, "stranger");
    app.twitch.mend();
    app.pass(MINUTE);
    assert_eq!(browser.opens(&app, "/").await.body, "ada_builds", "TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn a_store_failure_is_not_shown_as_signed_out() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    app.store_fails(true);
    browser.fetches(&app, "/").await.assert_passing_failure();
    assert_eq!(browser.fetches(&app, "/cheap").await.body, ADA, "the cookie vouches");
    app.store_fails(false);
    assert_eq!(browser.fetches(&app, "/").await.body, "ada_builds", "TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn an_inner_layer_can_be_stricter() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    let before = app.twitch.mock().calls(Endpoint::Validate);
    app.pass(SECOND);
    assert_eq!(browser.opens(&app, "/pay").await.body, ADA);
    assert_eq!(app.twitch.mock().calls(Endpoint::Validate), before + 1);
    app.pass(SECOND);
    app.twitch.breaks(Endpoint::Validate, 500);
    browser.fetches(&app, "/pay").await.assert_passing_failure();
    assert_eq!(browser.fetches(&app, "/private").await.body, ADA);
    let answer = Browser::new().opens(&app, "/pay").await;
    answer.assert_leads_to("/auth/sign-in?return_to=%2Fpay");
}

#[tokio::test(start_paused = true)]
async fn an_extractor_without_the_layer_logs_an_error() {
    let app = start().await;
    let mut browser = app.signed_in(ADA).await;
    let (log, answer) = captured(browser.opens(&app, "/unguarded")).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, ""));
    assert!(log.contains("without Claviger's layer"), "{log}");
}

fn head_of(app: &App, request: http::request::Builder) -> RequestHead {
    app.claviger.head(&mut request.body(()).unwrap().into_parts().0).unwrap()
}

/// What the app reads of a request of this browser.
fn shown_by(app: &App, browser: &Browser) -> RequestHead {
    head_of(app, browser.bare(app, Method::GET, "/"))
}

#[tokio::test(start_paused = true)]
async fn the_browser_carries_the_cached_token() {
    let app = App::with(|setup| setup.settings.carry_access_token = true).await;
    let mut browser = Browser::new();
    let answer = browser.signs_in(&app, ADA).await;
    let value = answer.cookie_value("__Host-claviger-hint").to_owned();
    let line =
        format!("__Host-claviger-hint={value}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2592000");
    assert!(answer.set_cookies().contains(&line.as_str()), "{answer:?}");
    let head = shown_by(&app, &browser);
    let cached = app.claviger.cached_token(&head).expect("a cached token");
    assert_eq!(cached.session, browser.session(&app));
    assert!(app.twitch.secrets().contains(&cached.token.expose().to_owned()));
    assert!(!value.contains(cached.token.expose()), "SECRET");
    let reads = app.store.reads();
    let cookie = app.claviger.cookie(&head).unwrap();
    let grant = app.claviger.engine().grant(&cookie, Some(cached.clone()), Presence::Active).await.unwrap();
    assert_eq!((grant.token.expose(), app.store.reads()), (cached.token.expose(), reads));
    let mut fresh = HeaderMap::new();
    app.claviger.set_cached_token(&mut fresh, &cookie, &grant);
    let line = fresh[header::SET_COOKIE].to_str().unwrap();
    assert!(line.starts_with("__Host-claviger-hint=") && !line.contains(cached.token.expose()));
    browser.posts(&app, "/auth/logout").await;
    assert!(browser.lasting_cookie_names().is_empty());
    assert!(
        app.claviger.engine().grant(&cookie, Some(cached), Presence::Active).await.is_err(),
        "a cached token proves nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cached_token_of_another_session_is_ignored() {
    let app = App::with(|setup| setup.settings.carry_access_token = true).await;
    let (ada, mut mallory) = (app.signed_in(ADA).await, app.signed_in(MALLORY).await);
    mallory.plant("__Host-claviger-hint", ada.cookie("__Host-claviger-hint").unwrap());
    let head = shown_by(&app, &mallory);
    let cached = app.claviger.cached_token(&head).unwrap();
    let cookie = app.claviger.cookie(&head).unwrap();
    let grant = app.claviger.engine().grant(&cookie, Some(cached.clone()), Presence::Active).await.unwrap();
    assert_ne!(grant.token.expose(), cached.token.expose(), "ISO");
    let other = mallory.cookie("__Host-claviger-hint").unwrap().to_owned();
    let planted = mallory.bare(&app, Method::GET, "/").header("cookie", "__Host-claviger-hint=planted");
    assert!(app.claviger.cached_token(&head_of(&app, planted)).is_none());
    let twice =
        mallory.bare(&app, Method::GET, "/").header("cookie", format!("__Host-claviger-hint={other}"));
    assert!(app.claviger.cached_token(&head_of(&app, twice)).is_some(), "equal ones count once");
    mallory.plant("__Host-claviger-hint", "garbage");
    let head = shown_by(&app, &mallory);
    assert!(app.claviger.cached_token(&head).is_none());
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_no_token_is_cached() {
    let (carries, app) =
        (App::with(|setup| setup.settings.carry_access_token = true).await, App::start().await);
    let browser = carries.signed_in(ADA).await;
    let head = shown_by(&app, &browser);
    assert!(app.claviger.cached_token(&head).is_none());
    let answer = Browser::new().signs_in(&app, ADA).await;
    assert!(!answer.set_cookies().iter().any(|line| line.contains("-hint")), "{answer:?}");
}

async fn own_health(State(number): State<u8>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], format!("the app's own {number}"))
}

/// An app with a state, and with health routes of its own.
fn with_state(claviger: &Claviger) -> Router {
    Router::new().route("/healthz", get(own_health)).merge(claviger.routes()).with_state(7)
}

#[tokio::test]
async fn the_routes_fit_an_app_with_a_state_and_health_routes_of_its_own() {
    let app = App::with(|setup| setup.pages = with_state).await;
    assert_eq!(Browser::new().fetches(&app, "/healthz").await.body, "the app's own 7");
    assert_eq!(Browser::new().fetches(&app, "/auth/style.css").await.status, StatusCode::OK);
}

/// The layer around a service that knows nothing of axum.
fn of_strings(claviger: &Claviger) -> Router {
    let inner = tower::service_fn(async |request: http::Request<String>| {
        Ok::<_, Infallible>(http::Response::new(request.into_body() + " and back"))
    });
    let layered = claviger.layer().layer(inner);
    let ask = async || layered.oneshot(http::Request::new("there".to_owned())).await;
    Router::new().route("/", get(ask))
}

#[tokio::test]
async fn the_layer_works_on_any_bodies() {
    let app = App::with(|setup| setup.pages = of_strings).await;
    assert_eq!(Browser::new().fetches(&app, "/").await.body, "there and back");
}

/// An app that tells why a request was denied.
fn telling(claviger: &Claviger) -> Router {
    pages(claviger).layer(middleware::map_response(async |mut answer: Response| {
        if let Some(denied) = answer.extensions().get::<Denied>().map(ToString::to_string) {
            answer.headers_mut().insert("x-denied", denied.parse().unwrap());
        }
        answer
    }))
}

#[tokio::test]
async fn outer_layers_learn_why_somebody_was_denied() {
    let app = App::with(|setup| setup.pages = telling).await;
    let answer = Browser::new().fetches(&app, "/private").await;
    assert_eq!(answer.headers["x-denied"], "nobody is signed in");
    let answer = Browser::new().fetches(&app, "/optional").await;
    assert!(!answer.headers.contains_key("x-denied"));
}
