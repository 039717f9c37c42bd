//! Access control, and the identity that the app receives.

use http::{StatusCode, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::Value;

use crate::world::{ADA, Told, World, echo, listen, status_of};

#[tokio::test]
async fn the_app_gets_the_identity_and_no_forged_headers() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    let request = format!(
        "GET /path?q=1&q=%20 HTTP/1.1\r\nhost: localhost:4711\r\n\
         x-claviger-passive: 1\r\nx-auth-user: evil\r\nX-AUTH-USER: evil\r\nx_auth_user: evil\r\nX-Auth_Name: evil\r\nx-auth-roles: admin\r\n\
         x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nforwarded: for=6.6.6.6\r\nx-original-url: /admin\r\n\
         connection: close, x-auth-user, X-Auth-Session, x-mine, cookie\r\nx-mine: 1\r\nte: trailers\r\n\
         keep-alive: 1\r\nproxy-authorization: Basic x\r\nexpect: 100-continue\r\n\
         cookie: app=1; {cookie}; __Host-claviger=x\r\ncookie: claviger-insecure-login-x=y; other=2\r\n\r\n"
    );
    let answer = world.raw(request).await;
    let told = Told::parse(&answer);
    assert_eq!(told.all("x-auth-user"), [ADA]);
    assert_eq!(told.all("x-auth-provider"), ["twitch"]);
    assert_eq!(told.all("x-auth-session").len(), 1);
    assert_eq!(told.all("x-auth-name").len(), 1);
    for gone in [
        "x-claviger-passive",
        "x_auth_user",
        "x-auth_name",
        "x-auth-roles",
        "x-mine",
        "keep-alive",
        "proxy-authorization",
        "forwarded",
        "x-original-url",
        "expect",
        "transfer-encoding",
        "content-length",
    ] {
        assert!(!told.names().contains(&gone), "{gone}: {:?}", told.names());
    }
    assert_eq!((told.all("te"), told.all("connection")), (vec!["trailers"], vec!["te"]), "our own");
    assert_eq!(told.all("cookie"), ["app=1; other=2"]);
    assert_eq!(told.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(told.all("x-forwarded-proto"), ["http"]);
    let host = format!("localhost:{}", world.address.port());
    assert_eq!(told.all("x-forwarded-host"), [host.as_str()]);
    assert_eq!(told.all("host"), [host.as_str()]);
    assert_eq!(told.0["target"], "/path?q=1&q=%20");
}

#[tokio::test]
async fn without_a_session_pages_redirect_and_programs_get_401() {
    let world = World::echoing().await;
    let person = world.get("/page?x=1").header(header::ACCEPT, "text/html").send().await.unwrap();
    assert!(person.status().is_redirection());
    let program = world.get("/page").send().await.unwrap();
    assert_eq!(program.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(program.headers()[header::CACHE_CONTROL], "no-store");
    assert!(program.text().await.unwrap().contains("sign_in_required"));
}

#[tokio::test]
async fn path_rules_apply_to_every_spelling() {
    let settings = "routes = [{ path = \"/open\", assurance = \"none\" }, { path = \"/pay\", assurance = \"provider\" }]";
    let world = World::new(echo(), settings).await;
    let anonymous = world.get("/open/page").header("x-auth-user", "evil").send().await.unwrap();
    assert_eq!(anonymous.status(), StatusCode::OK);
    assert!(Told::parse(&anonymous.text().await.unwrap()).all("x-auth-user").is_empty());
    for path in ["/", "/opened", "/x//open", "/OPEN", "/%6fpen"] {
        assert_eq!(world.raw_status(path, "").await, 401, "{path}");
    }
    for path in ["//open", "//x/open", "/%2fx/open"] {
        assert_eq!(world.raw_status(path, "").await, 400, "{path} could name a host");
    }
    let cookie = world.sign_in(ADA).await;
    let asked = || world.mock.with(|mock| mock.calls(claviger_mock::Endpoint::Validate));
    let before = asked();
    assert_eq!(world.raw_status("/", &cookie).await, 200);
    assert_eq!(asked(), before);
    for (count, path) in (1..).zip(["/pay", "/PAY/x", "/pay//x", "/%70ay", "/pay;x/y"]) {
        assert_eq!(world.raw_status(path, &cookie).await, 200, "{path}");
        assert_eq!(asked(), before + count, "{path} did not ask the provider");
    }
}

/// G12: nobody is turned away, and the app learns who is there.
#[tokio::test]
async fn an_optional_route_tells_who_is_signed_in() {
    let settings = "routes = [{ path = \"/\", assurance = \"optional\" }]";
    let world = World::new(echo(), settings).await;
    let cookie = world.sign_in(ADA).await;
    let user = async |cookie: &str| {
        let request = world.get("/page").header("x-auth-user", "evil").header(header::COOKIE, cookie);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        Told::parse(&answer.text().await.unwrap()).all("x-auth-user").concat()
    };
    assert_eq!(user(&cookie).await, ADA);
    assert_eq!(user("other=1").await, "");
    assert_eq!(user("claviger-insecure=x").await, "");
    let origin = world.url("");
    let out = world.client.post(world.url("/auth/logout")).header(header::COOKIE, &cookie);
    out.header(header::ORIGIN, origin.trim_end_matches('/')).send().await.unwrap();
    assert_eq!(user(&cookie).await, "", "after the sign-out");
}

#[tokio::test]
async fn cross_site_requests_are_refused() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    let post = |origin: Option<&str>, cookie: &str| {
        let request = world.client.post(world.url("/change")).header(header::COOKIE, cookie);
        match origin {
            Some(origin) => request.header(header::ORIGIN, origin),
            None => request,
        }
    };
    assert_eq!(
        post(Some("https://evil.example"), &cookie).send().await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(post(None, &cookie).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(post(Some(&world.origin()), &cookie).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_app_cannot_set_our_cookies() {
    let app = axum::Router::new().fallback(|| async {
        let set = |value: &'static str| (header::SET_COOKIE, value);
        axum::response::AppendHeaders([
            set("claviger-insecure=evil; Path=/"),
            set("__Host-claviger=evil; Path=/; Secure"),
            set("app=1; Path=/"),
        ])
    });
    let world = World::new(app, "").await;
    let cookie = world.sign_in(ADA).await;
    let answer = world.get("/").header(header::COOKIE, cookie).send().await.unwrap();
    let set: Vec<_> = answer.headers().get_all(header::SET_COOKIE).iter().collect();
    assert_eq!(set, ["app=1; Path=/"]);
}

#[tokio::test]
async fn an_app_that_is_down_signs_nobody_out() {
    let nobody = listen().local_addr().unwrap();
    let world = World::before(nobody, "").await;
    let cookie = world.sign_in(ADA).await;
    let program = world.get("/").header(header::COOKIE, &cookie).send().await.unwrap();
    assert_eq!(program.status(), StatusCode::BAD_GATEWAY);
    assert!(program.headers().get(header::SET_COOKIE).is_none());
    assert!(program.text().await.unwrap().contains("app_unreachable"));
    let person = world
        .get("/")
        .header(header::COOKIE, &cookie)
        .header(header::ACCEPT, "text/html")
        .send()
        .await
        .unwrap();
    assert_eq!(person.status(), StatusCode::BAD_GATEWAY);
    assert!(person.text().await.unwrap().contains("you stay signed in"));
    let session = world.get("/auth/session").header(header::COOKIE, &cookie).send().await.unwrap();
    assert_eq!(session.status(), StatusCode::OK);
}

#[tokio::test]
async fn our_own_routes_never_reach_the_app() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    for path in ["/auth/anything", "/auth", "/auth/", "/api/twitch", "/api/twitch/", "/healthz", "/readyz"] {
        let answer = world
            .raw(format!(
                "GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n"
            ))
            .await;
        assert!(!answer.contains("\"target\""), "{path} reached the app: {answer}");
        assert!(status_of(&answer) < 500, "{path}: {answer}");
    }
}

/// The app gets one assertion, which is ours, wherever it learns who calls. It verifies with the
/// public keys.
#[tokio::test]
async fn the_app_gets_an_assertion_that_the_public_keys_verify() {
    let settings = "assertion.audience = \"the app\"\n\
                    routes = [{ path = \"/open\", assurance = \"none\" }, { path = \"/cheap\", assurance = \"cookie\" },\n\
                    { path = \"/maybe\", assurance = \"optional\" }]";
    let world = World::new(echo(), settings).await;
    let cookie = world.sign_in(ADA).await;
    let keys = world.get("/auth/jwks.json").header(header::HOST, "claviger:8080").send().await.unwrap();
    assert_eq!(keys.status(), StatusCode::OK, "the app asks by a name of its own network");
    let keys: JwkSet = serde_json::from_str(&keys.text().await.unwrap()).unwrap();
    let forged = "x-auth-assertion: e30.e30.e30\r\nX_Auth_Assertion: e30.e30.e30\r\n";
    for (path, assurance) in [("/", "session"), ("/cheap", "cookie"), ("/maybe", "cookie")] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost:{}\r\n", world.address.port());
        let answer = world.raw(format!("{head}connection: close\r\n{forged}cookie: {cookie}\r\n\r\n")).await;
        let told = Told::parse(&answer);
        let [assertion] = told.all("x-auth-assertion")[..] else { panic!("{path}: {:?}", told.names()) };
        assert!(!told.names().contains(&"x_auth_assertion"), "GATE");
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&["the app"]);
        rules.set_issuer(&[format!("http://localhost:{}", world.address.port())]);
        let kid = jsonwebtoken::decode_header(assertion).unwrap().kid.unwrap();
        let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
        let claims = jsonwebtoken::decode::<Value>(assertion, &key, &rules).unwrap().claims;
        assert_eq!(
            (&claims["sub"], &claims["assurance"]),
            (&format!("twitch:{ADA}").into(), &assurance.into())
        );
        assert_eq!(claims["sid"], told.all("x-auth-session")[0], "one session in both");
    }
    for path in ["/open", "/maybe"] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost:{}\r\n", world.address.port());
        let answer = world.raw(format!("{head}connection: close\r\n{forged}\r\n")).await;
        let told = Told::parse(&answer);
        assert!(told.names().iter().all(|name| !name.contains("assertion")), "GATE: {path}");
    }
}
