//! `GET /auth/session`.

use claviger_core::{Custody, EndReason};
use claviger_mock::Endpoint;
use http::{Method, StatusCode, header};

use crate::{
    browser::{Browser, From},
    site::{App, DAY, MINUTE, TOKEN_LIFE},
    twitch::ADA,
};

#[tokio::test(start_paused = true)]
async fn session_shows_the_user_and_no_token() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let session = browser.session(&app).to_string();
    let answer = browser.fetches(&app, "/auth/session").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.json(),
        serde_json::json!({
            "provider": "twitch",
            "user": ADA,
            "name": "ada_builds",
            "session": session,
            "device": "Firefox 140 on Linux",
            "signed_in_at": "2027-01-15T08:00:00Z",
            "ends_at": "2027-02-14T08:00:00Z",
            "idle_ends_at": "2027-01-29T08:00:00Z",
        })
    );
    answer.assert_sets_no_cookie();
    for secret in app.twitch.secrets() {
        assert!(!answer.body.contains(&secret), "SECRET");
    }
    assert!(!answer.body.contains(browser.cookie("__Host-claviger").unwrap()), "SECRET");
}

/// IDLE: how a page polls without keeping its user signed in.
#[tokio::test(start_paused = true)]
async fn a_passive_question_is_no_use() {
    let app = App::with(|setup| setup.settings.custody = Custody::None).await;
    let mut browser = app.signed_in(ADA).await;
    let born = app.now();
    let fields = [("/auth/session", "1"), ("/auth/check", "1"), ("/auth/check/inbox?x=1", "1")];
    let params =
        ["/auth/session?passive=1", "/auth/check?passive=1", "/auth/check?passive=1&assurance=cookie"];
    let asked = fields.into_iter().chain(params.map(|path| (path, "0")));
    for (path, field) in asked {
        app.pass(DAY);
        let request = browser.bare(&app, Method::GET, path).header("x-claviger-passive", field);
        let answer = browser.send(&app, request).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} {field}");
        if path.starts_with("/auth/session") {
            assert_eq!(answer.json()["idle_ends_at"], "2027-01-29T08:00:00Z");
        }
        app.claviger.engine().end_overdue().await.unwrap();
        assert_eq!(app.last_seen(browser.session(&app)).await, born, "IDLE: {path} {field}");
    }
    for (path, field) in
        [("/auth/session", "0"), ("/auth/session", "true"), ("/auth/check?assurance=cookie", "")]
    {
        app.pass(DAY);
        let request = browser.bare(&app, Method::GET, path).header("x-claviger-passive", field);
        assert_eq!(browser.send(&app, request).await.status, StatusCode::OK);
        app.claviger.engine().end_overdue().await.unwrap();
        assert_eq!(app.last_seen(browser.session(&app)).await, app.now(), "{path} {field}");
    }
    for path in ["/auth/session?passive=yes", "/auth/session?passive=1&passive=1", "/auth/check?passive="] {
        browser.fetches(&app, path).await.assert_error(StatusCode::BAD_REQUEST, "bad_request");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_session_the_answer_is_json_and_no_redirect() {
    let app = App::start().await;
    let mut ended = app.signed_in(ADA).await;
    app.end(ended.session(&app), EndReason::Administrator).await;
    for (browser, reason) in [(&mut Browser::new(), None), (&mut ended, Some("administrator"))] {
        for answer in
            [browser.fetches(&app, "/auth/session").await, browser.opens(&app, "/auth/session").await]
        {
            answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
            assert_eq!(answer.json()["reason"].as_str(), reason);
            assert_eq!(answer.json()["login"], "/auth/login");
            answer.assert_sets_no_cookie();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_failure_signs_nobody_out() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    app.store_fails(true);
    let answer = browser.fetches(&app, "/auth/session").await;
    answer.assert_error(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable");
    answer.assert_passing_failure();
    assert!(!answer.body.contains("a test"), "the answer does not say how the store failed");
    app.store_fails(false);
    assert!(browser.is_signed_in(&app).await, "TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn a_provider_failure_signs_nobody_out() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    app.twitch.breaks(Endpoint::Validate, 500);
    app.pass(60 * MINUTE);
    assert!(browser.is_signed_in(&app).await, "the access token lives");
    app.pass(TOKEN_LIFE - 60 * MINUTE);
    app.twitch.breaks(Endpoint::Token, 503);
    let answer = browser.fetches(&app, "/auth/session").await;
    answer.assert_error(StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable");
    answer.assert_passing_failure();
    app.twitch.mend();
    app.pass(MINUTE);
    assert!(browser.is_signed_in(&app).await, "TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_signs_nobody_out() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let misconfigured = app.restarted_with_keys(&[2]).await;
    let answer = browser.fetches(&misconfigured, "/auth/session").await;
    answer.assert_error(StatusCode::SERVICE_UNAVAILABLE, "key_missing");
    assert!(answer.json()["message"].as_str().unwrap().contains("Key 1 "), "it names the key: {answer:?}");
    answer.assert_passing_failure();
    let mended = app.restarted_with_keys(&[2, 1]).await;
    assert!(browser.is_signed_in(&mended).await, "TRANSIENT");
}

#[tokio::test(start_paused = true)]
async fn a_forged_cookie_is_no_session() {
    let app = App::start().await;
    let browser = app.signed_in(ADA).await;
    let good = browser.cookie("__Host-claviger").unwrap();
    let login = {
        let mut other = Browser::new();
        other.reaches_provider(&app, ADA, "/auth/login").await;
        other.cookie(other.cookie_names()[0]).unwrap().to_owned()
    };
    let turned: String = good.chars().rev().collect();
    for value in
        ["", "garbage", "====", &good[1..], &good[..good.len() - 1], &format!("{good}A"), &turned, &login]
    {
        let mut forger = Browser::new();
        forger.plant("__Host-claviger", value);
        let answer = forger.fetches(&app, "/auth/session").await;
        answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
        answer.assert_sets_no_cookie();
    }
}

#[tokio::test(start_paused = true)]
async fn two_session_cookies_are_refused_unless_they_are_equal() {
    let app = App::start().await;
    let browser = app.signed_in(ADA).await;
    let good = format!("__Host-claviger={}", browser.cookie("__Host-claviger").unwrap());
    let mut nobody = Browser::new();
    for (fields, equal) in [
        (vec![format!("{good}; __Host-claviger=planted")], false),
        (vec![format!("__Host-claviger=planted; {good}")], false),
        (vec![good.clone(), "__Host-claviger=planted".to_owned()], false),
        (vec![format!("{good}; {good}; __Host-claviger=planted")], false),
        (vec![format!("{good}; {good}")], true),
        (vec![good.clone(), good.clone()], true),
    ] {
        let mut request = nobody.bare(&app, Method::GET, "/auth/session");
        for field in &fields {
            request = request.header(header::COOKIE, field);
        }
        let answer = nobody.send(&app, request).await;
        if equal {
            assert_eq!(answer.status, StatusCode::OK, "{fields:?}");
        } else {
            answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
        }
        answer.assert_sets_no_cookie();
    }
}

#[tokio::test(start_paused = true)]
async fn other_cookies_do_not_hide_ours() {
    let app = App::start().await;
    let browser = app.signed_in(ADA).await;
    let good = format!("__Host-claviger={}", browser.cookie("__Host-claviger").unwrap());
    let mut nobody = Browser::new();
    for field in [
        format!("theme=dark; {good}; lang=de").into_bytes(),
        format!("name=Zoë; {good}").into_bytes(),
        [b"bytes=\xff\xfe; ".as_slice(), good.as_bytes()].concat(),
        format!("nothing; =; ;; {good}").into_bytes(),
        format!("__host-claviger=x; __Host-clavigers=y; {good}").into_bytes(),
    ] {
        let request =
            nobody.bare(&app, Method::GET, "/auth/session").header(header::COOKIE, field.as_slice());
        let answer = nobody.send(&app, request).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&field));
    }
}

#[tokio::test(start_paused = true)]
async fn only_get_is_allowed() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let answer = browser.posts(&app, "/auth/session").await;
    answer.assert_error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    let answer = browser.submits(&app, "/auth/session", From::Elsewhere).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

/// An old key can be removed when every browser has come back once.
#[tokio::test(start_paused = true)]
async fn a_cookie_sealed_with_an_older_key_is_renewed() {
    let app = App::start().await;
    let first = app.signed_in(ADA).await;
    app.uses_keys(&[2, 1]).await;
    for path in ["/auth/session", "/auth/check"] {
        let mut browser = first.clone();
        let answer = browser.fetches(&app, path).await;
        assert!(answer.status.is_success() && answer.touches_session(), "{answer:?}");
        browser.fetches(&app, path).await.assert_sets_no_cookie();
        app.claviger.engine().reseal().await.unwrap();
        let keyless = app.restarted_with_keys(&[2]).await;
        assert!(browser.is_signed_in(&keyless).await, "the new cookie needs the new key alone");
    }
    let keyless = app.restarted_with_keys(&[2]).await;
    let mut away = first.clone();
    assert!(!away.is_signed_in(&keyless).await);
    away.signs_in(&keyless, ADA).await;
    assert!(away.is_signed_in(&keyless).await, "a missing key keeps nobody from signing in");
    let mut late = first.clone();
    let mut another = first.clone();
    another.signs_in(&app, ADA).await;
    let answer = late.fetches(&app, "/auth/session").await;
    assert!(!answer.status.is_success(), "{answer:?}");
}
