//! `/auth/check`, for front proxies.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use claviger_mock::Endpoint;
use claviger_store::Method as Call;
use http::{HeaderValue, Method, StatusCode, header, request::Builder};

use crate::{
    answer::Answer,
    browser::{Browser, From},
    site::{App, MINUTE, ORIGIN, SECOND},
    twitch::{ADA, MALLORY},
};

const PROXY: &str = "10.0.0.1:4000";

async fn behind_proxy() -> App {
    App::with(|setup| setup.site.trusted_proxies = vec!["10.0.0.1".parse().unwrap()]).await
}

fn from_peer(request: Builder, peer: &str) -> Builder {
    request.extension(ConnectInfo(peer.parse::<SocketAddr>().unwrap()))
}

/// Sends the proxy's question about a request of this browser.
async fn asks(app: &App, browser: &mut Browser, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = from_peer(browser.bare(app, Method::GET, path), PROXY);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    browser.send(app, request).await
}

#[tokio::test(start_paused = true)]
async fn a_passing_check_returns_only_identity_headers() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let answer = browser.fetches(&app, "/auth/check").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""));
    let session = browser.session(&app).to_string();
    let mut headers: Vec<_> =
        answer.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            ("cache-control", "no-store"),
            ("content-length", "0"),
            ("x-auth-login", "ada_builds"),
            ("x-auth-name", "ada_builds"),
            ("x-auth-provider", "twitch"),
            ("x-auth-session", &session),
            ("x-auth-user", ADA),
            ("x-content-type-options", "nosniff"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_hostile_name_stays_in_its_header() {
    let app = App::start().await;
    let mut browser = app.signed_in(MALLORY).await;
    for assurance in ["cookie", "session"] {
        let answer = browser.fetches(&app, &format!("/auth/check?assurance={assurance}")).await;
        let name = answer.headers.get("x-auth-name").unwrap();
        assert_eq!(name, "</p><script>\"'&x=%250d", "{assurance}");
    }
}

#[tokio::test(start_paused = true)]
async fn inbound_identity_headers_never_come_back() {
    let app = App::start().await;
    let mut signed_in = app.signed_in(ADA).await;
    let spoofed = [("x-auth-user", "admin"), ("x-auth-name", "admin"), ("x-auth-session", "x")];
    let answer = asks(&app, &mut signed_in, "/auth/check", &spoofed).await;
    assert_eq!(answer.headers.get_all("x-auth-user").iter().collect::<Vec<_>>(), [ADA]);
    let answer = asks(&app, &mut Browser::new(), "/auth/check", &spoofed).await;
    answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
    assert!(!answer.body.contains("admin"));
}

#[tokio::test(start_paused = true)]
async fn assurance_cookie_needs_no_store() {
    let app = behind_proxy().await;
    let mut browser = app.signed_in(ADA).await;
    let before = (app.store.reads(), app.store.writes());
    for _ in 0..3 {
        let answer = asks(&app, &mut browser, "/auth/check?assurance=cookie", &[]).await;
        assert_eq!((answer.status, answer.headers["x-auth-user"].to_str().unwrap()), (StatusCode::OK, ADA));
        app.pass(60 * MINUTE);
    }
    assert_eq!((app.store.reads(), app.store.writes()), before);
    app.store_fails(true);
    assert_eq!(asks(&app, &mut browser, "/auth/check?assurance=cookie", &[]).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn assurance_session_reads_the_store_once() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let before = app.store.calls(Call::Load);
    for path in ["/auth/check", "/auth/check?assurance=session"] {
        assert_eq!(browser.fetches(&app, path).await.status, StatusCode::OK);
    }
    assert_eq!(app.store.calls(Call::Load), before + 1);
    assert_eq!(app.twitch.mock().calls(Endpoint::Validate), 1, "at the sign-in");
}

#[tokio::test(start_paused = true)]
async fn assurance_provider_validates_as_often_as_max_age_says() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let table =
        [("", 1), ("", 1), ("&max_age=60", 0), ("&max_age=0", 1), ("&max_age=18446744073709551615", 0)];
    for (max_age, asked) in table {
        app.pass(SECOND);
        let before = app.twitch.mock().calls(Endpoint::Validate);
        let answer = browser.fetches(&app, &format!("/auth/check?assurance=provider{max_age}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{max_age}");
        assert_eq!(app.twitch.mock().calls(Endpoint::Validate), before + asked, "{max_age}");
    }
    app.pass(SECOND);
    app.twitch.breaks(Endpoint::Validate, 500);
    let answer = browser.fetches(&app, "/auth/check?assurance=provider").await;
    answer.assert_error(StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable");
    answer.assert_passing_failure();
    assert_eq!(browser.fetches(&app, "/auth/check").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_never_passes() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let thief = browser.clone();
    browser.posts(&app, "/auth/logout").await;
    for assurance in ["cookie", "session", "provider"] {
        let answer = thief.clone().fetches(&app, &format!("/auth/check?assurance={assurance}")).await;
        answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_parameter_never_passes() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    for query in [
        "assurance=none",
        "assurance=",
        "assurance=Cookie",
        "assurance=cookie&assurance=session",
        "assurance=provider&max_age=soon",
        "assurance=provider&max_age=-1",
        "assurance=provider&max_age=1.5",
        "assurance=provider&max_age=",
        "assurance=provider&max_age=18446744073709551616",
        "max_age=1&max_age=2",
        "max_age=5",
        "assurance=session&max_age=1",
        "assurance=cookie&max_age=1",
        "denied=redirect&denied=redirect",
        "denied=page",
        "denied=",
    ] {
        let answer = browser.opens(&app, &format!("/auth/check?{query}")).await;
        answer.assert_error(StatusCode::BAD_REQUEST, "bad_request");
    }
    let long = format!("/auth/check?assurance=cookie&x={}", "a".repeat(16 * 1024));
    browser.fetches(&app, &long).await.assert_error(StatusCode::BAD_REQUEST, "bad_request");
}

/// What leads to the page that says that the destination is not known.
const LOST: &str = "%2Fauth%2Freturn";

#[tokio::test(start_paused = true)]
async fn denied_redirect_sends_navigations_to_the_sign_in() {
    let app = behind_proxy().await;
    let mut nobody = Browser::new();
    let navigation = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let table: [Case<'_>; 7] = [
        (
            "raw UTF-8 and a backslash",
            &[("x-original-uri", "/k\u{e4}se?a=\\b")],
            "%2Fk%25C3%25A4se%3Fa%3D%255Cb",
        ),
        ("original of Caddy and Traefik", &[("x-forwarded-uri", "/inbox?page=2")], "%2Finbox%3Fpage%3D2"),
        ("original of nginx", &[("x-original-uri", "/inbox")], "%2Finbox"),
        ("none", &[], "%2F"),
        ("another site", &[("x-forwarded-uri", "//evil.example")], LOST),
        ("an address", &[("x-forwarded-uri", "https://evil.example/")], LOST),
        ("a post that is forwarded as get", &[("x-forwarded-method", "GET")], "%2F"),
    ];
    for (name, fields, target) in table {
        let fields = [&navigation[..], fields].concat();
        let answer = asks(&app, &mut nobody, "/auth/check?denied=redirect", &fields).await;
        answer.assert_leads_to(&format!("/auth/sign-in?return_to={target}"));
        answer.assert_sets_no_cookie();
        let answer = asks(&app, &mut nobody, "/auth/check", &fields).await;
        answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
        println!("{name}");
    }
    let script = [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")];
    let post = [("x-forwarded-method", "POST"), ("sec-fetch-site", "same-origin")];
    let answer = asks(&app, &mut nobody, "/auth/check?denied=redirect", &script).await;
    answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
    let form = [navigation, post].concat();
    let answer = asks(&app, &mut nobody, "/auth/check?denied=redirect", &form).await;
    answer.assert_page(StatusCode::UNAUTHORIZED, "Your form was not sent.");
    let answer = asks(&app, &mut nobody, "/auth/check", &form).await;
    answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
    let address = answer.headers["x-auth-sign-in"].to_str().unwrap().to_owned();
    let page = nobody.opens(&app, &address).await;
    page.assert_page(StatusCode::UNAUTHORIZED, "Your form was not sent.");
    let later = app.signed_in(ADA).await.opens(&app, &address).await;
    later.assert_page(StatusCode::UNAUTHORIZED, "Your form was not sent.");
    assert!(later.body.contains("You are signed in.") && !later.body.contains("Sign in"), "{}", later.body);
    assert!(page.body.contains("href=\"/auth/sign-in\" target=\"_blank\""), "{}", page.body);
    let answer = asks(&app, &mut nobody, "/auth/check", &script).await;
    assert!(!answer.headers.contains_key("x-auth-sign-in"), "{answer:?}");
}

/// Envoy asks so.
#[tokio::test(start_paused = true)]
async fn what_a_proxy_appends_is_the_original_address() {
    let app = behind_proxy().await;
    let navigation = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    for (appended, return_to) in [
        ("/", "%2F"),
        ("/inbox", "%2Finbox"),
        ("/inbox?page=2&q=%26+%3D", "%2Finbox%3Fpage%3D2%26q%3D%2526%2B%253D"),
        ("/a%2Fb%20%C3%A4/", "%2Fa%252Fb%2520%25C3%25A4%2F"),
        ("//evil.example", LOST),
        ("/auth/check/x", "%2Fauth%2Fcheck%2Fx"),
    ] {
        let told = [&navigation[..], &[("x-forwarded-uri", "/of-the-client")]].concat();
        let answer = asks(&app, &mut Browser::new(), &format!("/auth/check{appended}"), &told).await;
        answer.assert_leads_to(&format!("/auth/sign-in?return_to={return_to}"));
    }
    let answer = asks(&app, &mut Browser::new(), "/auth/check/inbox", &[("sec-fetch-mode", "cors")]).await;
    answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
}

#[tokio::test(start_paused = true)]
async fn the_query_of_an_appended_address_is_the_clients() {
    let app = behind_proxy().await;
    let mut browser = app.signed_in(ADA).await;
    let thief = browser.clone();
    for path in ["/auth/check/", "/auth/check/inbox?assurance=none&x=1&x=2", "/auth/check/a%2Fb"] {
        let answer = asks(&app, &mut browser, path, &[]).await;
        assert_eq!(
            (answer.status, &answer.headers["x-auth-user"]),
            (StatusCode::OK, &HeaderValue::from_static(ADA))
        );
    }
    // The proxy asks with the method itself, so headers that say another are the client's.
    let post = browser.bare(&app, Method::POST, "/auth/check/inbox").header("sec-fetch-site", "cross-site");
    let answer = browser.send(&app, from_peer(post, PROXY).header("x-forwarded-method", "GET")).await;
    answer.assert_error(StatusCode::FORBIDDEN, "cross_site");
    browser.posts(&app, "/auth/logout").await;
    let answer = thief.clone().fetches(&app, "/auth/check/inbox?assurance=cookie").await;
    answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_never_redirected_to_the_sign_in() {
    let app = behind_proxy().await;
    let mut browser = app.signed_in(ADA).await;
    app.provider_fails_when_needed();
    let answer = browser.opens(&app, "/auth/check?denied=redirect").await;
    answer.assert_page(StatusCode::SERVICE_UNAVAILABLE, "The sign-in service does not answer");
    answer.assert_passing_failure();
    let answer = browser.opens(&app, "/auth/check").await;
    answer.assert_error(StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable");
}

#[tokio::test(start_paused = true)]
async fn untrusted_forwarded_headers_only_make_the_check_stricter() {
    let app = behind_proxy().await;
    let browser = app.signed_in(ADA).await;
    let table = [
        (Some("10.0.0.1:4000"), true),
        (Some("[::ffff:10.0.0.1]:4000"), true),
        (Some("10.0.0.2:4000"), false),
        (Some("[::1]:4000"), false),
        (None, false),
    ];
    for (peer, trusted) in table {
        // Method of the proxy's own request, method in the header, whether it passes.
        for (method, told, passes) in [
            (Method::GET, "GET", true),
            (Method::GET, "POST", false),
            (Method::POST, "GET", trusted),
            (Method::POST, "POST", false),
        ] {
            let mut request = browser
                .bare(&app, method.clone(), "/auth/check")
                .header("x-forwarded-method", told)
                .header("sec-fetch-site", "cross-site");
            if let Some(peer) = peer {
                request = from_peer(request, peer);
            }
            let answer = browser.clone().send(&app, request).await;
            let expected = if passes { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(answer.status, expected, "{peer:?} asks with {method} and tells {told}");
        }
        let mut request = Browser::new()
            .bare(&app, Method::GET, "/auth/check?denied=redirect")
            .header("x-forwarded-uri", "/inbox")
            .header("sec-fetch-mode", "navigate");
        if let Some(peer) = peer {
            request = from_peer(request, peer);
        }
        let answer = Browser::new().send(&app, request).await;
        assert_eq!(answer.location().ends_with("%2Finbox"), trusted, "{peer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_cross_site_request_does_not_pass() {
    let app = behind_proxy().await;
    let mut browser = app.signed_in(ADA).await;
    for method in ["x-forwarded-method", "x-original-method"] {
        for (name, value, expected) in [
            ("sec-fetch-site", "cross-site", StatusCode::FORBIDDEN),
            ("sec-fetch-site", "same-site", StatusCode::FORBIDDEN),
            ("origin", "https://evil.example", StatusCode::FORBIDDEN),
            ("accept", "*/*", StatusCode::FORBIDDEN),
            ("sec-fetch-site", "same-origin", StatusCode::OK),
            ("origin", ORIGIN, StatusCode::OK),
        ] {
            for unsafe_method in ["POST", "PUT", "DELETE", "PATCH", "MKCOL"] {
                let fields = [(method, unsafe_method), (name, value)];
                let answer = asks(&app, &mut browser, "/auth/check", &fields).await;
                assert_eq!(answer.status, expected, "{fields:?}");
            }
        }
    }
    let upgrade = [("upgrade", "websocket"), ("origin", "https://evil.example")];
    let answer = asks(&app, &mut browser, "/auth/check", &upgrade).await;
    answer.assert_error(StatusCode::FORBIDDEN, "cross_site");
    let answer = browser.submits(&app, "/auth/check", From::Elsewhere).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "proxies may ask with the method itself");
    assert_eq!(browser.submits(&app, "/auth/check", From::ThisSite).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn an_unclear_method_never_passes() {
    let app = behind_proxy().await;
    let mut browser = app.signed_in(ADA).await;
    for fields in [
        [("x-forwarded-method", ""), ("sec-fetch-site", "cross-site")],
        [("x-forwarded-method", "PO ST"), ("sec-fetch-site", "cross-site")],
        [("x-forwarded-method", "GET, POST"), ("sec-fetch-site", "cross-site")],
        [("x-forwarded-method", "GET"), ("x-forwarded-method", "POST")],
        // One of them is the client's: proxies pass on headers that they do not set.
        [("x-forwarded-method", "GET"), ("x-original-method", "POST")],
        [("x-original-method", "GET"), ("x-forwarded-method", "POST")],
    ] {
        let answer = asks(&app, &mut browser, "/auth/check", &fields).await;
        answer.assert_error(StatusCode::BAD_REQUEST, "bad_request");
    }
    let same = [("x-forwarded-method", "GET"), ("x-original-method", "GET")];
    assert_eq!(asks(&app, &mut browser, "/auth/check", &same).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn two_session_cookies_pass_only_if_they_are_equal() {
    let app = App::start().await;
    let browser = app.signed_in(ADA).await;
    let good = format!("__Host-claviger={}", browser.cookie("__Host-claviger").unwrap());
    for assurance in ["cookie", "session", "provider"] {
        let mut nobody = Browser::new();
        let request = nobody.bare(&app, Method::GET, &format!("/auth/check?assurance={assurance}"));
        let answer = nobody.send(&app, request.header(header::COOKIE, format!("{good}; {good}x"))).await;
        answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
        let request = nobody.bare(&app, Method::GET, &format!("/auth/check?assurance={assurance}"));
        let answer = nobody.send(&app, request.header(header::COOKIE, format!("{good}; {good}"))).await;
        assert_eq!(answer.status, StatusCode::OK, "{assurance}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_failure_neither_passes_nor_signs_out() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    app.store_fails(true);
    for assurance in ["session", "provider"] {
        let answer = browser.fetches(&app, &format!("/auth/check?assurance={assurance}")).await;
        answer.assert_error(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable");
        answer.assert_passing_failure();
    }
}
