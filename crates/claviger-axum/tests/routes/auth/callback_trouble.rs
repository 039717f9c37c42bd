//! `GET /auth/callback`, where the sign-in does not succeed. Whatever comes in, a good session stays as it is.

use claviger_core::policy::limits;
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

/// Brings the trouble about in a browser, and gives the callback's answer.
type Trouble = fn(App, Browser) -> futures_util::future::BoxFuture<'static, (App, Browser, Answer)>;

macro_rules! trouble {
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

const TROUBLES: [(&str, Trouble, StatusCode, &str); 16] = [
    (
        "stale",
        trouble!(|app, browser| {
            let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
            app.pass(limits::LOGIN_LIFETIME - SECOND);
            app.pass(SECOND);
            let forgotten = browser.clone().follows(&app, &callback, From::Elsewhere).await;
            forgotten.assert_page(BAD, "no longer open");
            browser.ignores_expiry();
            browser.follows(&app, &callback, From::Elsewhere).await
        }),
        BAD,
        "no longer open",
    ),
    (
        "foreign state",
        trouble!(|app, browser| {
            let foreign = Browser::new().reaches_provider(&app, ADA, "/auth/login").await;
            browser.follows(&app, &foreign, From::Elsewhere).await
        }),
        BAD,
        "no longer open",
    ),
    (
        "denied",
        trouble!(|app, browser| {
            let started = browser.follows(&app, "/auth/login", From::ThisSite).await;
            let back = crate::browser::path_of(&app.twitch.deny(started.location()));
            browser.follows(&app, &back, From::Elsewhere).await
        }),
        BAD,
        "You chose not to give access",
    ),
    (
        "provider error",
        trouble!(|app, browser| {
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
        trouble!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&error=access_denied")).await
        }),
        BAD,
        "You chose not to give access",
    ),
    (
        "wrong issuer",
        trouble!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&iss=https://evil.example")).await
        }),
        BAD,
        "another sign-in service",
    ),
    (
        "wrong code",
        trouble!(|app, browser| {
            with_query(&app, &mut browser, |callback| {
                format!("/auth/callback?code=wrong&{}", part(callback, "state"))
            })
            .await
        }),
        BAD,
        "does not accept this answer any more",
    ),
    (
        "no code",
        trouble!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("/auth/callback?{}", part(callback, "state")))
                .await
        }),
        BAD,
        "refused this sign-in",
    ),
    (
        "no state",
        trouble!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("/auth/callback?{}", part(callback, "code")))
                .await
        }),
        BAD,
        "no longer open",
    ),
    (
        "nothing",
        trouble!(|app, browser| { browser.follows(&app, "/auth/callback", From::Elsewhere).await }),
        BAD,
        "no longer open",
    ),
    (
        "state twice",
        trouble!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&{}", part(callback, "state"))).await
        }),
        BAD,
        "may come only once",
    ),
    (
        "code twice",
        trouble!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&code=other")).await
        }),
        BAD,
        "may come only once",
    ),
    (
        "oversized",
        trouble!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&scope={}", "a".repeat(16 * 1024)))
                .await
        }),
        BAD,
        "too long a query",
    ),
    (
        "provider down",
        trouble!(|app, browser| {
            with_fault(&app, &mut browser, Fault::always(Endpoint::Token, FaultKind::status(503))).await
        }),
        UNAVAILABLE,
        "The sign-in service does not answer",
    ),
    (
        "nobody confirms the token",
        trouble!(|app, browser| {
            let kind = FaultKind::Malformed { body: MalformedBody::Garbage };
            with_fault(&app, &mut browser, Fault::always(Endpoint::Validate, kind)).await
        }),
        UNAVAILABLE,
        "The sign-in service does not answer",
    ),
    (
        "our own credentials are refused",
        trouble!(|app, browser| {
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
async fn trouble_is_a_page_that_says_what_to_do() {
    for (name, trouble, status, words) in TROUBLES {
        let (app, browser, answer) = trouble(App::start().await, Browser::new()).await;
        println!("{name}");
        answer.assert_page(status, words);
        assert!(!answer.body.contains("still signed in"), "nobody was: {}", answer.body);
        assert_eq!(answer.header(header::REFERRER_POLICY), Some("no-referrer"));
        assert!(!answer.touches_session(), "{answer:?}");
        assert!(!browser.is_signed_in(&app).await);
    }
}

#[tokio::test(start_paused = true)]
async fn no_trouble_touches_a_good_session_and_the_page_says_so() {
    for (name, trouble, status, words) in TROUBLES {
        let app = App::start().await;
        let browser = app.signed_in(ADA).await;
        let (app, browser, answer) = trouble(app, browser).await;
        println!("{name}");
        answer.assert_page(status, words);
        assert_eq!(answer.body.matches("still signed in").count(), 1, "{}", answer.body);
        assert!(answer.body.contains(STILL), "{}", answer.body);
        assert!(answer.body.contains("Go on"), "{}", answer.body);
        assert!(!answer.touches_session(), "{answer:?}");
        assert!(browser.is_signed_in(&app).await, "TRANSIENT");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_that_failed_for_good_is_forgotten() {
    for (name, trouble, status, _) in TROUBLES {
        let (_, browser, answer) = trouble(App::start().await, Browser::new()).await;
        let malformed =
            answer.body.contains("may come only once") || answer.body.contains("too long a query");
        let tied = status == BAD && !malformed && name != "no state";
        assert!(!tied || browser.cookie_names().is_empty(), "{name}: {:?}", browser.cookie_names());
    }
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_is_loaded_again_does_no_harm() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let mut other_tab = browser.clone();
    browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/");
    let answer = browser.follows(&app, &callback, From::User).await;
    answer.assert_page(BAD, "no longer open");
    assert!(answer.body.contains(STILL), "{}", answer.body);
    assert!(browser.is_signed_in(&app).await);
    let answer = other_tab.follows(&app, &callback, From::Elsewhere).await;
    answer.assert_page(BAD, "already finished");
    assert_eq!(app.twitch.mock().token_calls("authorization_code"), 1, "a code is sent once");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_forgets_no_sign_in() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    app.store_fails(true);
    let answer = browser.follows(&app, &callback, From::Elsewhere).await;
    answer.assert_page(UNAVAILABLE, "One moment, please");
    answer.assert_passing_trouble();
    assert!(!answer.body.contains("still signed in"), "{}", answer.body);
    app.store_fails(false);
    browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_missing_forgets_no_sign_in() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let misconfigured = app.restarted_with_keys(&[2]).await;
    let answer = browser.follows(&misconfigured, &callback, From::Elsewhere).await;
    answer.assert_page(UNAVAILABLE, "This is our fault");
    answer.assert_passing_trouble();
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
