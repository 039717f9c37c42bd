//! `/auth/jwks.json`, and the assertions that its keys verify.

use claviger_axum::{HEADER_ASSERTION, SignedIn};
use claviger_core::Assurance;
use claviger_engine::AssertionSettings;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;

use crate::{
    browser::Browser,
    site::{App, ORIGIN},
    twitch::ADA,
};

fn wanted(setup: &mut crate::site::Setup) {
    setup.assertions = Some(AssertionSettings { issuer: ORIGIN.to_owned(), audience: "app".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn everybody_gets_the_public_keys_and_may_keep_them_for_minutes() {
    let app = App::with(wanted).await;
    let answer = Browser::new().fetches(&app, "/auth/jwks.json").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/jwk-set+json");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "public, max-age=300");
    let keys: Value = serde_json::from_str(&answer.body).unwrap();
    let [key] = keys["keys"].as_array().unwrap().as_slice() else { panic!("{keys}") };
    let members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"], "SECRET: no private half");
    assert_eq!((&key["kty"], &key["alg"], &key["use"]), (&"EC".into(), &"ES256".into(), &"sig".into()));
    let posted = Browser::new().bare(&app, Method::POST, "/auth/jwks.json");
    assert_ne!(Browser::new().send(&app, posted).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn without_assertions_there_are_no_keys() {
    let app = App::start().await;
    let answer = Browser::new().fetches(&app, "/auth/jwks.json").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

/// SECRET: a page's script may ask the check, and would read the assertion.
#[tokio::test(start_paused = true)]
async fn no_answer_of_ours_has_an_assertion() {
    let app = App::with(wanted).await;
    let mut browser = app.signed_in(ADA).await;
    let paths = [
        "/auth/check",
        "/auth/check?assurance=cookie",
        "/auth/check?assurance=optional",
        "/auth/check?assurance=provider&max_age=1",
        "/auth/check/path",
        "/auth/session",
        "/auth/devices",
    ];
    for path in paths {
        let answer = browser.fetches(&app, path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(!answer.headers.contains_key(&HEADER_ASSERTION), "{path}");
        assert!(!answer.body.contains("eyJ"), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_gets_an_assertion_and_never_one_from_outside() {
    let app = App::with(|setup| {
        wanted(setup);
        setup.pages = |claviger| {
            let of = claviger.clone();
            let handler = async move |SignedIn(caller): SignedIn, headers: HeaderMap| {
                assert!(!headers.contains_key(&HEADER_ASSERTION), "GATE: the layer removes it");
                of.assertion(&caller).unwrap().unwrap().expose().to_owned()
            };
            let pages = axum::Router::new().route("/", axum::routing::get(handler));
            pages.layer(claviger.layer_with(Assurance::Session)).merge(claviger.routes())
        };
    })
    .await;
    let mut browser = app.signed_in(ADA).await;
    let request = browser.bare(&app, Method::GET, "/").header("X-Auth-Assertion", "e30.e30.e30");
    let answer = browser.send(&app, request).await;
    assert_eq!((answer.status, answer.body.split('.').count()), (StatusCode::OK, 3), "{}", answer.body);
}
