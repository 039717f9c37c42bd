//! `/auth/check`: what a client can ask for, and what it costs.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use claviger_core::{
    limits,
    request::{
        Assurance,
        routes::{Admission, Policy, Route},
    },
};
use claviger_mock::Endpoint;
use http::{Method, StatusCode};

use crate::{
    answer::Answer,
    browser::Browser,
    site::{App, MINUTE, SECOND},
    twitch::{ADA, GRACE},
};

const PROXY: &str = "10.0.0.1:4000";
const STRANGER: &str = "6.6.6.6:4000";

fn routes() -> Policy {
    let minute = Admission::Vouched(Assurance::Provider { max_age: MINUTE });
    let table = [
        ("/open", Admission::Anyone),
        ("/maybe", Admission::Optional),
        ("/light", Admission::Vouched(Assurance::Cookie)),
        ("/admin", minute),
    ];
    let route =
        |(path, admission): (&str, Admission)| Route { path: path.to_owned(), admission, ..Route::default() };
    Policy::new(table.map(route))
}

async fn app(policy: Policy) -> App {
    App::with(|setup| {
        setup.site.trusted_proxies = vec!["10.0.0.1".parse().unwrap()];
        setup.site.routes = policy;
    })
    .await
}

/// Asks about a request of this browser for `target`.
async fn asks(app: &App, browser: &mut Browser, peer: &str, query: &str, target: Option<&str>) -> Answer {
    let request = browser.bare(app, Method::GET, &format!("/auth/check{query}"));
    let mut request = request.extension(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
    if let Some(target) = target {
        request = request.header("x-forwarded-uri", target);
    }
    browser.send(app, request).await
}

fn validations(app: &App) -> usize {
    usize::try_from(app.twitch.mock().calls(Endpoint::Validate)).unwrap()
}

/// S6: stricter parameters count from anybody, laxer ones from a trusted proxy only.
#[tokio::test(start_paused = true)]
async fn a_stranger_makes_the_check_stricter_and_never_laxer() {
    let app = app(Policy::default()).await;
    let mut browser = app.signed_in(ADA).await;
    app.provider_fails_when_needed();
    let table = [
        (PROXY, "?assurance=optional", StatusCode::OK),
        (PROXY, "?assurance=cookie", StatusCode::OK),
        (PROXY, "", StatusCode::SERVICE_UNAVAILABLE),
        (STRANGER, "?assurance=optional", StatusCode::SERVICE_UNAVAILABLE),
        (STRANGER, "?assurance=cookie", StatusCode::SERVICE_UNAVAILABLE),
        (STRANGER, "?assurance=provider", StatusCode::SERVICE_UNAVAILABLE),
    ];
    for (peer, query, status) in table {
        assert_eq!(asks(&app, &mut browser, peer, query, None).await.status, status, "{peer} {query}");
    }
}

/// S6: the site's rules for the original address are the minimum.
#[tokio::test(start_paused = true)]
async fn the_rules_of_the_site_are_the_minimum() {
    let app = app(routes()).await;
    let (mut browser, mut nobody) = (app.signed_in(ADA).await, Browser::new());
    app.pass(10 * MINUTE);
    // The query, the original address, how often the provider is asked, and the status for nobody.
    let table = [
        ("?assurance=cookie", "/admin/users?a=b", 1, StatusCode::UNAUTHORIZED),
        ("?assurance=provider&max_age=3000", "/ADMIN/users", 1, StatusCode::UNAUTHORIZED),
        ("?assurance=provider&max_age=1", "/admin", 1, StatusCode::UNAUTHORIZED),
        ("?assurance=cookie", "/open", 0, StatusCode::UNAUTHORIZED),
        ("?assurance=optional", "/open", 0, StatusCode::OK),
        ("?assurance=optional", "/maybe", 0, StatusCode::OK),
        ("?assurance=optional", "/light", 0, StatusCode::UNAUTHORIZED),
        ("?assurance=optional", "/other", 0, StatusCode::OK),
        ("", "/other", 0, StatusCode::UNAUTHORIZED),
    ];
    for (query, target, asked, for_nobody) in table {
        app.pass(2 * MINUTE);
        let before = validations(&app);
        let answer = asks(&app, &mut browser, PROXY, query, Some(target)).await;
        assert_eq!(answer.status, StatusCode::OK, "{query} {target}");
        assert_eq!(answer.headers["x-auth-user"], ADA, "{query} {target}");
        assert_eq!(validations(&app) - before, asked, "{query} {target}");
        let answer = asks(&app, &mut nobody, PROXY, query, Some(target)).await;
        assert_eq!(answer.status, for_nobody, "{query} {target}");
        assert!(!answer.headers.contains_key("x-auth-user"), "{query} {target}");
    }
    let unclear = asks(&app, &mut browser, PROXY, "", Some("/open/../admin")).await;
    unclear.assert_error(StatusCode::BAD_REQUEST, "bad_request");
    app.pass(2 * MINUTE);
    let before = validations(&app);
    asks(&app, &mut browser, STRANGER, "", Some("/admin")).await;
    assert_eq!(validations(&app) - before, 1, "a stranger's word makes it stricter");
}

/// S6: one user's questions are limited, and no other user notices.
#[tokio::test(start_paused = true)]
async fn one_user_cannot_use_up_the_validations() {
    let app = app(Policy::default()).await;
    let mut devices = Vec::new();
    for _ in 0..10 {
        devices.push(app.signed_in(ADA).await);
    }
    let mut other = app.signed_in(GRACE).await;
    let before = validations(&app);
    let seconds = 60;
    let mut refused = 0;
    for _ in 0..seconds {
        app.pass(SECOND);
        for device in &mut devices {
            let answer = asks(&app, device, STRANGER, "?assurance=provider&max_age=0", None).await;
            refused += usize::from(answer.status == StatusCode::SERVICE_UNAVAILABLE);
        }
    }
    let places = limits::EARLY_PROOFS_PER_USER;
    let most = places.count as usize + seconds / usize::try_from(places.back_after.as_secs()).unwrap();
    assert!(validations(&app) - before <= most, "{} questions", validations(&app) - before);
    assert!(refused > 0);
    let answer = asks(&app, &mut other, STRANGER, "?assurance=provider&max_age=0", None).await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = asks(&app, &mut devices[0], STRANGER, "", None).await;
    assert_eq!(answer.status, StatusCode::OK, "what is not asked early is served");
}

/// G12: nobody is turned away, and the provider is not asked.
#[tokio::test(start_paused = true)]
async fn optional_tells_who_is_there_and_turns_nobody_away() {
    let app = app(Policy::default()).await;
    let mut browser = app.signed_in(ADA).await;
    app.provider_fails_when_needed();
    let optional = "?assurance=optional";
    let answer = asks(&app, &mut browser, PROXY, optional, None).await;
    assert_eq!((answer.status, &answer.headers["x-auth-user"]), (StatusCode::OK, &ADA.parse().unwrap()));
    let ended = browser.clone();
    browser.posts(&app, "/auth/logout").await;
    for mut nobody in [ended, Browser::new()] {
        let answer = asks(&app, &mut nobody, PROXY, optional, None).await;
        assert_eq!((answer.status, answer.headers.get("x-auth-user")), (StatusCode::OK, None));
    }
}
