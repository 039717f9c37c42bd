//! `GET /auth/callback`: sign-ins that fail. None of them touches a good session.

use claviger_core::limits;
use claviger_mock::{Endpoint, Fault, FaultKind, MalformedBody};
use http::{StatusCode, header};

use crate::{
    answer::Answer,
    browser::{Browser, From},
    site::{App, SECOND},
    twitch::ADA,
};

const STILL: &str = "You are still signed in as before.";
const BAD: StatusCode = StatusCode::BAD_REQUEST;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// Causes the failure in a browser, and returns the callback's answer.
type Failure = fn(App, Browser) -> futures_util::future::BoxFuture<'static, (App, Browser, Answer)>;

macro_rules! failure {
    (|$app:ident, $browser:ident| $body:expr) => {
        |$app, mut $browser| {
            Box::pin(async move {
                let answer: Answer = $body;
                ($app, $browser, answer)
            })
        }
    };
}

async fn with_query(app: &App, browser: &mut Browser, change: impl Fn(&str) -> String) -> Answer {
    let callback = browser.reaches_provider(app, ADA, "/auth/login").await;
    browser.follows(app, &change(&callback), From::Elsewhere).await
}

async fn with_fault(app: &App, browser: &mut Browser, fault: Fault) -> Answer {
    app.twitch.mock().add_fault(fault);
    let answer = with_query(app, browser, str::to_owned).await;
    app.twitch.mend();
    answer
}

fn part<'a>(callback: &'a str, name: &str) -> &'a str {
    let query = callback.split_once('?').unwrap().1;
    query.split('&').find(|pair| pair.starts_with(&format!("{name}="))).unwrap()
}

const FAILURES: [(&str, Failure, StatusCode, &str); 16] = [
    (
        "stale",
        failure!(|app, browser| {
            let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
            app.pass(limits::LOGIN_LIFETIME - SECOND);
            app.pass(SECOND);
            let forgotten = browser.clone().follows(&app, &callback, From::Elsewhere).await;
            assert!(!forgotten.touches_session(), "{forgotten:?}");
            browser.ignores_expiry();
            browser.follows(&app, &callback, From::Elsewhere).await
        }),
        BAD,
        "no longer open",
    ),
    (
        "foreign state",
        failure!(|app, browser| {
            let foreign = Browser::new().reaches_provider(&app, ADA, "/auth/login").await;
            browser.follows(&app, &foreign, From::Elsewhere).await
        }),
        BAD,
        "no longer open",
    ),
    (
        "denied",
        failure!(|app, browser| {
            let started = browser.follows(&app, "/auth/login", From::ThisSite).await;
            let back = crate::browser::path_of(&app.twitch.deny(started.location()));
            browser.follows(&app, &back, From::Elsewhere).await
        }),
        BAD,
        "You chose not to give access",
    ),
    (
        "provider error",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| {
                let error = "error=%3Cscript%3E&error_description=%3Cscript%3E";
                format!("/auth/callback?{error}&{}", part(callback, "state"))
            })
            .await
        }),
        BAD,
        "refused this sign-in",
    ),
    (
        "error and code",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&error=access_denied")).await
        }),
        BAD,
        "You chose not to give access",
    ),
    (
        "wrong issuer",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&iss=https://evil.example")).await
        }),
        BAD,
        "another sign-in service",
    ),
    (
        "wrong code",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| {
                format!("/auth/callback?code=wrong&{}", part(callback, "state"))
            })
            .await
        }),
        BAD,
        "no longer accepts this answer",
    ),
    (
        "no code",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("/auth/callback?{}", part(callback, "state")))
                .await
        }),
        BAD,
        "refused this sign-in",
    ),
    (
        "no state",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("/auth/callback?{}", part(callback, "code")))
                .await
        }),
        BAD,
        "no longer open",
    ),
    (
        "nothing",
        failure!(|app, browser| { browser.follows(&app, "/auth/callback", From::Elsewhere).await }),
        BAD,
        "no longer open",
    ),
    (
        "state twice",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&{}", part(callback, "state"))).await
        }),
        BAD,
        "may come only once",
    ),
    (
        "code twice",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&code=other")).await
        }),
        BAD,
        "may come only once",
    ),
    (
        "oversized",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&scope={}", "a".repeat(16 * 1024)))
                .await
        }),
        BAD,
        "in the address is too long",
    ),
    (
        "provider down",
        failure!(|app, browser| {
            with_fault(&app, &mut browser, Fault::always(Endpoint::Token, FaultKind::status(503))).await
        }),
        UNAVAILABLE,
        "The sign-in service does not answer",
    ),
    (
        "nobody confirms the token",
        failure!(|app, browser| {
            let kind = FaultKind::Malformed { body: MalformedBody::Garbage };
            with_fault(&app, &mut browser, Fault::always(Endpoint::Validate, kind)).await
        }),
        UNAVAILABLE,
        "The sign-in service does not answer",
    ),
    (
        "our own credentials are refused",
        failure!(|app, browser| {
            let (body, retry_after) =
                (r#"{"status":403,"message":"invalid client secret"}"#.to_owned(), None);
            let kind = FaultKind::Status { status: 403, body, retry_after };
            with_fault(&app, &mut browser, Fault::always(Endpoint::Token, kind)).await
        }),
        UNAVAILABLE,
        "This is our fault",
    ),
];

#[tokio::test(start_paused = true)]
async fn a_failed_sign_in_gets_a_page_that_says_what_to_do() {
    for (name, failure, status, words) in FAILURES {
        let (app, browser, answer) = failure(App::start().await, Browser::new()).await;
        println!("{name}");
        answer.assert_page(status, words);
        assert!(!answer.body.contains("still signed in"), "nobody was: {}", answer.body);
        assert_eq!(answer.header(header::REFERRER_POLICY), Some("no-referrer"));
        assert!(!answer.touches_session(), "{answer:?}");
        assert!(!browser.is_signed_in(&app).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sign_in_keeps_the_good_session() {
    for (name, failure, status, words) in FAILURES {
        let app = App::start().await;
        let browser = app.signed_in(ADA).await;
        let (app, browser, answer) = failure(app, browser).await;
        println!("{name}");
        if words == "no longer open" {
            answer.assert_leads_to("/");
            answer.assert_sets_no_cookie_of_a_session();
            assert!(browser.is_signed_in(&app).await, "TRANSIENT");
            continue;
        }
        answer.assert_page(status, words);
        assert_eq!(answer.body.matches("still signed in").count(), 1, "{}", answer.body);
        assert!(answer.body.contains(STILL), "{}", answer.body);
        assert!(answer.body.contains("Continue"), "{}", answer.body);
        assert!(!answer.touches_session(), "{answer:?}");
        assert!(browser.is_signed_in(&app).await, "TRANSIENT");
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_failure_removes_the_sign_in_cookie() {
    for (name, failure, status, _) in FAILURES {
        let (_, browser, answer) = failure(App::start().await, Browser::new()).await;
        let malformed =
            answer.body.contains("may come only once") || answer.body.contains("in the address is too long");
        let tied = status == BAD && !malformed && name != "no state";
        assert!(!tied || browser.cookie_names().is_empty(), "{name}: {:?}", browser.cookie_names());
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_callback_leads_on() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login?return_to=/inbox").await;
    let mut without_the_answer = browser.clone();
    browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/inbox");
    let session = browser.session(&app);
    let reload = browser.follows(&app, &callback, From::User).await;
    reload.assert_leads_to("/inbox");
    assert!(!reload.touches_session(), "it has its cookie");
    without_the_answer.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/inbox");
    assert_eq!(without_the_answer.session(&app), session);

    app.pass(2 * limits::CALLBACK_REPEATS);
    browser.follows(&app, &callback, From::User).await.assert_leads_to("/");
    assert_eq!(browser.session(&app), session);
    let stranger = Browser::new().follows(&app, &callback, From::Elsewhere).await;
    stranger.assert_page(BAD, "no longer open");
    assert_eq!(app.twitch.mock().token_calls("authorization_code"), 1, "a code is sent once");
}

#[tokio::test(start_paused = true)]
async fn a_store_failure_keeps_the_sign_in() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    app.store_fails(true);
    let answer = browser.follows(&app, &callback, From::Elsewhere).await;
    answer.assert_page(UNAVAILABLE, "One moment, please");
    answer.assert_passing_failure();
    assert!(!answer.body.contains("still signed in"), "{}", answer.body);
    app.store_fails(false);
    browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/");
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_keeps_the_sign_in() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let misconfigured = app.restarted_with_keys(&[2]).await;
    let answer = browser.follows(&misconfigured, &callback, From::Elsewhere).await;
    answer.assert_page(UNAVAILABLE, "This is our fault");
    answer.assert_passing_failure();
    let mended = app.restarted_with_keys(&[2, 1]).await;
    browser.follows(&mended, &callback, From::Elsewhere).await.assert_leads_to("/");
}

#[tokio::test(start_paused = true)]
async fn programs_get_json() {
    let app = App::start().await;
    for (query, error) in [("", "sign_in_stale"), ("?state=a&state=b", "bad_request")] {
        let answer = Browser::new().fetches(&app, &format!("/auth/callback{query}")).await;
        answer.assert_error(BAD, error);
    }
}
