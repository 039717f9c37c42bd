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
        "that this site cannot read",
    ),
    (
        "code twice",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&code=other")).await
        }),
        BAD,
        "that this site cannot read",
    ),
    (
        "oversized",
        failure!(|app, browser| {
            with_query(&app, &mut browser, |callback| format!("{callback}&scope={}", "a".repeat(16 * 1024)))
                .await
        }),
        BAD,
        "that this site cannot read",
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
        let (app, mut browser, answer) = failure(App::start().await, Browser::new()).await;
        println!("{name}");
        let page = browser.reads_failure(&app, &answer).await;
        page.assert_page(status, words);
        page.assert_sets_no_cookie();
        assert!(!page.body.contains("still signed in"), "nobody was: {}", page.body);
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
        let (app, mut browser, answer) = failure(app, browser).await;
        println!("{name}");
        if words == "no longer open" {
            let known = ["stale"].contains(&name);
            answer.assert_leads_to(if known { "/" } else { "/auth/return" });
            answer.assert_sets_no_cookie_of_a_session();
            assert!(browser.is_signed_in(&app).await, "TRANSIENT");
            continue;
        }
        let page = browser.reads_failure(&app, &answer).await;
        page.assert_page(status, words);
        assert_eq!(page.body.matches("still signed in").count(), 1, "{}", page.body);
        assert!(page.body.contains(STILL), "{}", page.body);
        assert!(page.body.contains("Continue"), "{}", page.body);
        assert!(!answer.touches_session(), "{answer:?}");
        assert!(browser.is_signed_in(&app).await, "TRANSIENT");
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_failure_removes_the_sign_in_cookie() {
    for (name, failure, status, _) in FAILURES {
        let (_, browser, answer) = failure(App::start().await, Browser::new()).await;
        let malformed = answer.location().contains("error=bad_request");
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
    browser.follows(&app, &callback, From::User).await.assert_leads_to("/inbox");
    app.pass(limits::LOGIN_LIFETIME);
    let forgotten = browser.follows(&app, &callback, From::User).await;
    forgotten.assert_leads_to("/auth/return");
    let page = browser.follows(&app, "/auth/return", From::User).await;
    page.assert_page(StatusCode::NOT_FOUND, "no longer has the address that you asked for");
    assert_eq!(browser.session(&app), session);
    let mut stranger = Browser::new();
    let answer = stranger.follows(&app, &callback, From::Elsewhere).await;
    stranger.reads_failure(&app, &answer).await.assert_page(BAD, "no longer open");
    assert_eq!(app.twitch.mock().token_calls("authorization_code"), 1, "a code is sent once");
}

#[tokio::test(start_paused = true)]
async fn a_store_failure_keeps_the_sign_in() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    app.store_fails(true);
    let answer = browser.follows(&app, &callback, From::Elsewhere).await;
    answer.assert_sets_no_cookie();
    let page = browser.reads_failure(&app, &answer).await;
    page.assert_page(UNAVAILABLE, "One moment, please");
    page.assert_passing_failure();
    assert!(!page.body.contains("still signed in"), "{}", page.body);
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
    answer.assert_sets_no_cookie();
    let page = browser.reads_failure(&misconfigured, &answer).await;
    page.assert_page(UNAVAILABLE, "This is our fault");
    page.assert_passing_failure();
    let mended = app.restarted_with_keys(&[2, 1]).await;
    browser.follows(&mended, &callback, From::Elsewhere).await.assert_leads_to("/");
}

#[tokio::test(start_paused = true)]
async fn a_failed_sign_in_remembers_its_destination() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let started = browser.follows(&app, "/auth/login?return_to=/inbox%3Fpage%3D2", From::ThisSite).await;
    let back = crate::browser::path_of(&app.twitch.deny(started.location()));
    let answer = browser.follows(&app, &back, From::Elsewhere).await;
    let page = browser.reads_failure(&app, &answer).await;
    let again = "/auth/login?return_to=%2Finbox%3Fpage%3D2";
    assert!(page.body.contains(&format!("href=\"{again}\"")), "{}", page.body);
    let callback = browser.reaches_provider(&app, ADA, again).await;
    browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to("/inbox?page=2");
}

#[tokio::test(start_paused = true)]
async fn each_failure_has_its_words_and_others_have_none() {
    let app = App::start().await;
    for (path, status, words) in [
        ("/auth/failed?error=another_user&return_to=/a", BAD, "/auth/login?switch=true&#38;return_to=%2Fa"),
        ("/auth/failed?error=another_user", BAD, "Choose an account"),
        ("/auth/failed?error=too_many_sign_ins", UNAVAILABLE, "Many sign-ins are under way"),
        ("/auth/failed?error=access_denied&return_to=//evil.example", BAD, "href=\"/auth/login\""),
        ("/auth/failed?error=%3Cscript%3E", StatusCode::NOT_FOUND, "nothing at this address"),
        ("/auth/failed", StatusCode::NOT_FOUND, "nothing at this address"),
    ] {
        Browser::new().opens(&app, path).await.assert_page(status, words);
    }
}

#[tokio::test(start_paused = true)]
async fn programs_get_json() {
    let app = App::start().await;
    for (query, error) in [("", "sign_in_stale"), ("?state=a&state=b", "bad_request")] {
        let answer = Browser::new().fetches(&app, &format!("/auth/callback{query}")).await;
        answer.assert_error(BAD, error);
    }
}
