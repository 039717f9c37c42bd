//! Rules for certain methods, and pages of other origins.

use axum::{Router, routing::any};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::world::{ADA, Told, World, echo};

const FRIEND: &str = "https://www.app.example";
const STRANGER: &str = "https://evil.example";

/// The preflight of a request with this method from a page of this origin.
async fn preflight(world: &World, path: &str, origin: &str, method: &str) -> reqwest::Response {
    let asked = world.client.request(Method::OPTIONS, world.url(path)).header(header::ORIGIN, origin);
    let asked = asked.header(header::ACCESS_CONTROL_REQUEST_METHOD, method);
    asked.header(header::ACCESS_CONTROL_REQUEST_HEADERS, "content-type").send().await.unwrap()
}

/// What `Access-Control-…` and `Vary` say, without that prefix, in order.
fn said(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let names = headers.keys().map(header::HeaderName::as_str);
    let named = names.filter_map(|name| Some((name, name.strip_prefix("access-control-")?)));
    let mut said: Vec<_> = named.chain([("vary", "vary")]).collect();
    said.sort_unstable();
    let values = |name| headers.get_all(name).iter().map(|value: &HeaderValue| value.to_str().unwrap());
    said.into_iter().flat_map(|(name, short)| values(name).map(move |value| (short, value))).collect()
}

#[tokio::test]
async fn a_rule_may_be_for_certain_methods() {
    let world = World::new(
        echo(),
        r#"
        routes = [
            { path = "/api", methods = ["GET"], assurance = "none" },
            { path = "/form", methods = ["POST"], assurance = "none" },
        ]
        proxy.pass_headers = ["X-HTTP-Method-Override"]
        "#,
    )
    .await;
    let table = [
        (Method::GET, "/api/x", None, StatusCode::OK),
        (Method::HEAD, "/api/x", None, StatusCode::OK),
        (Method::POST, "/api/x", None, StatusCode::UNAUTHORIZED),
        (Method::OPTIONS, "/api/x", None, StatusCode::UNAUTHORIZED),
        (Method::GET, "/form", None, StatusCode::UNAUTHORIZED),
        (Method::POST, "/form", None, StatusCode::OK),
        (Method::POST, "/form", Some("DELETE"), StatusCode::UNAUTHORIZED),
        (Method::POST, "/form", Some("POST"), StatusCode::UNAUTHORIZED),
    ];
    for (method, path, overridden, expected) in table {
        let mut request = world.client.request(method.clone(), world.url(path));
        if let Some(overridden) = overridden {
            request = request.header("x-http-method-override", overridden);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), expected, "{method} {path} {overridden:?}");
    }
}

#[tokio::test]
async fn a_preflight_is_an_ordinary_request_unless_a_route_says_otherwise() {
    let world = World::new(
        echo(),
        r#"
        routes = [
            { path = "/api", assurance = "session", allowed_origins = ["https://www.app.example"] },
            { path = "/own", assurance = "session", passes_preflights = true },
        ]
        "#,
    )
    .await;
    for (path, origin) in [("/", FRIEND), ("/api", STRANGER), ("/API", FRIEND), ("/api", "null")] {
        let refused = preflight(&world, path, origin, "POST").await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path} {origin}");
        assert_eq!(said(refused.headers()), [], "{path} {origin}");
    }

    let allowed = preflight(&world, "/api/x", FRIEND, "PUT").await;
    assert_eq!(allowed.status(), StatusCode::NO_CONTENT);
    let expected = [
        ("allow-credentials", "true"),
        ("allow-headers", "content-type"),
        ("allow-methods", "PUT"),
        ("allow-origin", FRIEND),
        ("max-age", "600"),
        ("vary", "origin"),
        ("vary", "access-control-request-method"),
        ("vary", "access-control-request-headers"),
    ];
    assert_eq!(said(allowed.headers()), expected);

    let passed = preflight(&world, "/own/x", STRANGER, "PUT").await;
    assert_eq!(passed.status(), StatusCode::OK);
    let told = Told::parse(&passed.text().await.unwrap());
    assert_eq!((&told.0["method"], told.all("x-auth-user")), (&"OPTIONS".into(), vec![]));
    let ordinary = world.client.request(Method::OPTIONS, world.url("/own/x")).send().await.unwrap();
    assert_eq!(ordinary.status(), StatusCode::UNAUTHORIZED, "no preflight");
}

#[tokio::test]
async fn pages_of_an_allowed_origin_send_changes_and_read_answers() {
    let own =
        any(|| async { [("access-control-allow-origin", "https://third.example"), ("vary", "accept")] });
    let app = Router::new().route("/api/own", own).fallback_service(echo());
    let world = World::new(
        app,
        r#"
        routes = [
            { path = "/api", assurance = "session", allowed_origins = ["https://www.app.example"] },
            { path = "/api/admin", assurance = "session" },
        ]
        "#,
    )
    .await;
    let session = world.sign_in(ADA).await;
    let post = async |path: &str, origin: &str, cookie: &str| {
        let request = world.client.post(world.url(path)).header(header::ORIGIN, origin);
        let request = request.header("sec-fetch-site", "same-site").header(header::COOKIE, cookie);
        request.send().await.unwrap()
    };
    let opened = [("allow-credentials", "true"), ("allow-origin", FRIEND), ("vary", "origin")];

    let done = post("/api/x", FRIEND, &session).await;
    assert_eq!((done.status(), said(done.headers())), (StatusCode::OK, opened.to_vec()));
    assert_eq!(Told::parse(&done.text().await.unwrap()).all("x-auth-user"), [ADA]);
    let signed_out = post("/api/x", FRIEND, "").await;
    assert_eq!(
        (signed_out.status(), said(signed_out.headers())),
        (StatusCode::UNAUTHORIZED, opened.to_vec())
    );
    let decided = post("/api/own", FRIEND, &session).await;
    let expected = vec![("allow-origin", "https://third.example"), ("vary", "accept"), ("vary", "origin")];
    assert_eq!((decided.status(), said(decided.headers())), (StatusCode::OK, expected));

    for (path, origin) in [
        ("/api/x", STRANGER),
        ("/api/x", "null"),
        ("/api/admin", FRIEND),
        ("/api/%61dmin", FRIEND),
        ("/", FRIEND),
    ] {
        let refused = post(path, origin, &session).await;
        assert_eq!(
            (refused.status(), said(refused.headers())),
            (StatusCode::FORBIDDEN, vec![]),
            "{path} {origin}"
        );
    }
}
