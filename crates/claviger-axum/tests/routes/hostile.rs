//! Hostile requests to every public address: each gets one of our answers, never a 5xx.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use proptest::prelude::*;

use crate::{
    browser::Browser,
    page::without_script,
    site::{App, ORIGIN},
    twitch::ADA,
};

const PATHS: [&str; 20] = [
    "/auth/login",
    "/auth/sign-in",
    "/auth/callback",
    "/auth/failed",
    "/auth/return",
    "/auth/logout",
    "/auth/session",
    "/auth/devices",
    "/auth/devices/end-others",
    "/auth/devices/x/end",
    "/auth/devices/%ff/end",
    "/auth/style.css",
    "/auth/jwks.json",
    "/auth/check",
    "/auth/webhook",
    "/auth/nothing",
    "/auth/%ff%00",
    "/auth//",
    "/healthz",
    "/readyz",
];

fn methods() -> Vec<Method> {
    let names = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"];
    names.iter().map(|name| Method::from_bytes(name.as_bytes()).unwrap()).collect()
}

/// Headers with hostile values.
fn hostile_headers(good: &str) -> Vec<(&'static str, Vec<u8>)> {
    let big = "x".repeat(64 * 1024);
    let text = |name, value: &str| (name, value.as_bytes().to_vec());
    let many: String = (0..3000).map(|n| format!("__Host-claviger-login-{n}=x; ")).collect();
    vec![
        text("accept", "text/html"),
        text("accept", &big),
        text("cookie", &format!("__Host-claviger={big}")),
        text("cookie", &format!("__Host-claviger={good}; x={big}")),
        text("cookie", &many[..15_000]),
        text("cookie", &format!("__Host-claviger={good}; __Host-claviger={good}")),
        text("cookie", "__Host-claviger-login-=; __Host-claviger-login-\"x\"=\"; ="),
        ("cookie", b"__Host-claviger=\xff\xfe; \xff=\xff".to_vec()),
        ("user-agent", b"\xff\xfe<script>".to_vec()),
        text("user-agent", &big),
        ("sec-fetch-site", b"\xff".to_vec()),
        text("sec-fetch-site", "same-origin"),
        text("sec-fetch-mode", "navigate"),
        ("origin", b"\xff".to_vec()),
        text("origin", ORIGIN),
        text("origin", &big),
        text("upgrade", "websocket"),
        text("x-forwarded-method", &big),
        ("x-forwarded-uri", b"\xff//".to_vec()),
        text("x-auth-user", "admin"),
        text("content-length", "99999999999"),
        text("host", "evil.example"),
    ]
}

fn hostile_queries() -> Vec<String> {
    let big = "a".repeat(60 * 1024);
    ["", "&", "=", "%", "%ff=%fe", "state=%00&code=%00", "error=%3Cscript%3E&state=%3Cscript%3E"]
        .into_iter()
        .map(str::to_owned)
        .chain(
            ["return_to", "state", "code", "error", "iss", "assurance", "max_age", "denied"]
                .map(|name| format!("{name}=1&{name}=2")),
        )
        .chain([format!("return_to=/{big}"), format!("state={big}&code={big}"), "a&".repeat(20_000)])
        .filter(|query| query.len() < 65_000)
        .collect()
}

/// Sends a request and checks that the app answers it properly.
async fn survives(app: &App, request: Request<Body>) {
    let (asked, cookies) = (format!("{} {}", request.method(), request.uri()), request.headers().clone());
    let answer = app.send(request).await;
    let asked = asked.chars().take(120).collect::<String>();
    assert!(answer.status.as_u16() < 500, "{asked} {:?}: {answer:?}", cookies.keys().collect::<Vec<_>>());
    assert!(!without_script(&answer.body).contains("<script"), "{asked}");
    let names: BTreeSet<_> =
        answer.set_cookies().iter().map(|line| line.split('=').next().unwrap().to_owned()).collect();
    assert_eq!(names.len(), answer.set_cookies().len(), "{asked}: a cookie is set twice");
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        assert!(answer.headers.contains_key(header::ALLOW), "{asked} (RFC 9110 section 15.5.6)");
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_headers_and_methods_are_survived() {
    let app = App::start().await;
    let browser = app.signed_in(ADA).await;
    let headers = hostile_headers(browser.cookie("__Host-claviger").unwrap());
    for path in PATHS {
        for method in methods() {
            for (name, value) in &headers {
                for repeat in 1..=2 {
                    let mut request = Request::builder().method(method.clone()).uri(path);
                    for _ in 0..repeat {
                        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
                    }
                    survives(&app, request.body(Body::empty()).unwrap()).await;
                }
            }
        }
    }
    assert!(browser.is_signed_in(&app).await, "none of it came from the user");
}

#[tokio::test(start_paused = true)]
async fn hostile_queries_and_bodies_are_survived() {
    let app = App::start().await;
    let browser = app.signed_in(ADA).await;
    let big = vec![0xff; 64 * 1024];
    for path in PATHS {
        for query in hostile_queries() {
            for accept in ["text/html", "application/json"] {
                let request =
                    browser.bare(&app, Method::GET, &format!("{path}?{query}")).header("accept", accept);
                survives(&app, request.body(Body::empty()).unwrap()).await;
            }
        }
        for kind in ["application/x-www-form-urlencoded", "application/json", "multipart/form-data", "\u{ff}"]
        {
            for body in
                [Body::empty(), Body::from("a=b&a=b"), Body::from("{\"a\":["), Body::from(big.clone())]
            {
                let request = Request::post(path).header("content-type", kind).header("accept", "text/html");
                survives(&app, request.body(body).unwrap()).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_addresses_get_our_404() {
    let app = App::start().await;
    let mut nobody = Browser::new();
    nobody
        .opens(&app, "/auth/nothing")
        .await
        .assert_page(StatusCode::NOT_FOUND, "There is nothing at this address.");
    nobody.fetches(&app, "/auth/nothing").await.assert_error(StatusCode::NOT_FOUND, "not_found");
    let style = nobody.fetches(&app, "/auth/style.css").await;
    assert_eq!(style.header(header::CONTENT_TYPE), Some("text/css; charset=utf-8"));
    assert_eq!(style.header(header::X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
    assert_eq!(style.headers["cross-origin-resource-policy"], "same-origin");
    assert!(style.body.len() < 20 * 1024 && !style.body.contains("@import") && !style.body.contains("url("));
}

#[derive(Clone, Debug)]
struct Wild {
    method: Method,
    path: String,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

fn wild_path() -> impl Strategy<Value = String> {
    let tail = "[ -~]{0,40}"
        .prop_map(|text| text.chars().filter(|c| !"\"<>\\^`{|}# ".contains(*c)).collect::<String>());
    let query = prop_oneof![
        Just(String::new()),
        "(return_to|state|code|error|iss|assurance|max_age|denied|switch|signed_out|hop)=[%0-9a-fA-F/&=+]{0,40}",
    ];
    (prop::sample::select(PATHS.to_vec()), tail, query, any::<bool>()).prop_map(
        |(path, tail, query, extend)| {
            if extend {
                format!("{path}{tail}?{query}")
            } else {
                format!("{path}?{query}&{}", tail.replace('?', ""))
            }
        },
    )
}

fn wild_field(good: String) -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let names = [
        "accept",
        "cookie",
        "user-agent",
        "origin",
        "sec-fetch-site",
        "sec-fetch-mode",
        "sec-fetch-dest",
        "x-forwarded-method",
        "x-forwarded-uri",
        "x-requested-with",
        "upgrade",
        "x-auth-user",
        "content-type",
    ];
    let words: Vec<String> = [
        "text/html",
        "same-origin",
        "cross-site",
        "none",
        "navigate",
        "document",
        ORIGIN,
        "null",
        "POST",
        "//",
        "\t",
        "__Host-claviger=",
        "__Host-claviger-login-",
        "=",
        ";",
        "; ",
        ",",
        "\"",
        &good,
    ]
    .map(str::to_owned)
    .to_vec();
    let value = prop_oneof![
        prop::collection::vec(prop::sample::select(words), 0..6)
            .prop_map(|words| words.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..60),
    ];
    (prop::sample::select(names.to_vec()), value).prop_filter_map("not a header", |(name, value)| {
        Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?))
    })
}

fn wild(good: String) -> impl Strategy<Value = Wild> {
    let method = prop_oneof![Just(Method::GET), Just(Method::POST), prop::sample::select(methods())];
    let fields = prop::collection::vec(wild_field(good), 0..6);
    let body = prop::collection::vec(any::<u8>(), 0..40);
    (method, wild_path(), fields, body)
        .prop_map(|(method, path, fields, body)| Wild { method, path, fields, body })
        .prop_filter("not an address", |wild| wild.path.parse::<Uri>().is_ok())
}

#[test]
fn random_requests_are_survived() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (app, good) = runtime.block_on(async {
        let app = App::start().await;
        let browser = app.signed_in(ADA).await;
        let good = browser.cookie("__Host-claviger").unwrap().to_owned();
        (app, good)
    });
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) };
    proptest!(config, |(wild in wild(good))| {
        let mut request = Request::builder().method(wild.method).uri(wild.path);
        for (name, value) in wild.fields {
            request = request.header(name, value);
        }
        runtime.block_on(survives(&app, request.body(Body::from(wild.body)).unwrap()));
    });
}
