//! `/oauth2/authorize`.

use super::{ADA, Bench, GRACE, encode};
use crate::{Config, DEMO_CLIENT_ID, DEMO_REDIRECT_URI, MockTwitch};

fn path(more: &[(&str, &str)]) -> String {
    let asked =
        [("client_id", DEMO_CLIENT_ID), ("redirect_uri", DEMO_REDIRECT_URI), ("response_type", "code")];
    format!("/oauth2/authorize?{}", encode(&[&asked, more].concat()))
}

#[test]
fn the_page_shows_app_scopes_users_and_buttons_and_escapes_what_it_is_given() {
    let mut bench = Bench::new();
    let state = r#""><script>alert(1)</script>"#;
    let got = bench.get(&path(&[("scope", "user:read:email custom:scope"), ("state", state)]));
    assert_eq!(got.status, 200);
    for part in [
        "Demo app",
        "See your e-mail address",
        "custom:scope",
        r#"name="user" id="user-100000001" value="100000001""#,
        r#"name="decision" value="authorize" id="authorize""#,
        r#"name="decision" value="deny" id="deny""#,
        r#"name="state""#,
    ] {
        assert!(got.body.contains(part), "{part} is missing in {}", got.body);
    }
    assert!(!got.body.contains("<script"));
    assert!(got.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[test]
fn consent_returns_a_code_the_scopes_and_the_state_unchanged_and_remembers_the_user() {
    let mut bench = Bench::new();
    let got = bench.decide(GRACE, "authorize", &[("scope", "a:b c:d"), ("state", "s &%ü")]);
    assert_eq!(got.status, 303);
    let code = got.callback("code").unwrap();
    let expected = format!("{DEMO_REDIRECT_URI}?code={code}&scope=a%3Ab+c%3Ad&state=s+%26%25%C3%BC");
    assert_eq!(got.header("location"), Some(expected.as_str()));
    assert_eq!(
        got.header("set-cookie").unwrap(),
        "mock_twitch_user=100000002; Path=/; HttpOnly; SameSite=Lax"
    );
}

#[test]
fn denial_returns_twitchs_words() {
    let got = Bench::new().decide(ADA, "deny", &[("state", "xyz")]);
    let expected = format!(
        "{DEMO_REDIRECT_URI}?error=access_denied&error_description=The+user+denied+you+access&state=xyz"
    );
    assert_eq!((got.status, got.header("location")), (303, Some(expected.as_str())));
}

#[test]
fn a_wrong_redirect_uri_leads_to_the_registered_one_with_the_state() {
    let expected = format!(
        "{DEMO_REDIRECT_URI}?error=redirect_mismatch&error_description=Parameter+redirect_uri+does+not+match+registered+URI&state=xyz"
    );
    for wrong in [
        "http://localhost:3000/auth/callback/",
        "https://evil.example/",
        "",
        "HTTP://LOCALHOST:3000/auth/callback",
    ] {
        let form = [
            ("client_id", DEMO_CLIENT_ID),
            ("redirect_uri", wrong),
            ("response_type", "code"),
            ("state", "xyz"),
        ];
        let got = Bench::new().get(&format!("/oauth2/authorize?{}", encode(&form)));
        assert_eq!((got.status, got.header("location")), (302, Some(expected.as_str())), "{wrong}");
    }
}

#[test]
fn any_loopback_redirect_is_accepted_only_when_allowed_and_only_as_plain_http() {
    for (uri, status) in [
        ("http://localhost:9999/x", 200),
        ("http://127.0.0.1/", 200),
        ("http://[::1]:1/cb?a=b", 200),
        ("https://localhost/", 302),
        ("http://localhost.evil.example/", 302),
        ("http://user@localhost/", 302),
        ("http://localhost/#f", 302),
        ("http://localhost/\r\nx", 302),
    ] {
        let mut bench = Bench { mock: MockTwitch::new(Config::demo(), 1), now_ms: 0 };
        let form = [("client_id", DEMO_CLIENT_ID), ("redirect_uri", uri), ("response_type", "code")];
        assert_eq!(bench.get(&format!("/oauth2/authorize?{}", encode(&form))).status, status, "{uri}");
    }
}

#[test]
fn errors_that_cannot_go_back_are_pages_with_status_400() {
    let mut bench = Bench::new();
    for (query, message) in [
        ("", "missing client id"),
        ("client_id=nobody", "invalid client"),
        ("client_id=a&client_id=b", "duplicate parameter"),
    ] {
        let got = bench.get(&format!("/oauth2/authorize?{query}"));
        assert_eq!(got.status, 400);
        assert!(got.body.contains(message) && got.body.starts_with("<!doctype html>"));
    }
    assert_eq!(bench.decide("404", "authorize", &[]).status, 400);
    assert_eq!(bench.decide(ADA, "maybe", &[]).status, 400);
}

#[test]
fn other_response_types_and_malformed_scopes_go_back_as_errors() {
    let mut bench = Bench::new();
    let form =
        [("client_id", DEMO_CLIENT_ID), ("redirect_uri", DEMO_REDIRECT_URI), ("response_type", "token")];
    let got = bench.get(&format!("/oauth2/authorize?{}", encode(&form)));
    assert_eq!(got.callback("error").as_deref(), Some("unsupported_response_type"));
    let got = bench.get(&path(&[("scope", "Bad!"), ("state", "s")]));
    assert_eq!(got.callback("error").as_deref(), Some("invalid_scope"));
    assert_eq!(got.callback("state").as_deref(), Some("s"));
}

#[test]
fn a_known_browser_is_sent_back_silently_unless_scopes_are_new_or_force_verify_asks() {
    let mut bench = Bench::new();
    bench.decide(ADA, "authorize", &[("scope", "chat:read")]);
    let cookie = [("cookie", "x=y; mock_twitch_user=100000001")];
    let mut ask = |more: &[(&str, &str)]| bench.send("GET", &path(more), &cookie, "").status;
    assert_eq!(ask(&[("scope", "chat:read")]), 302);
    assert_eq!(ask(&[("scope", "chat:read chat:edit")]), 200);
    assert_eq!(ask(&[("scope", "chat:read"), ("force_verify", "true")]), 200);
    bench.mock.disconnect(ADA, DEMO_CLIENT_ID);
    assert_eq!(bench.send("GET", &path(&[("scope", "chat:read")]), &cookie, "").status, 200);
    assert_eq!(bench.get(&path(&[("scope", "chat:read")])).status, 200);
}

#[test]
fn programs_may_skip_the_page() {
    let mut bench = Bench::with(|settings| settings.authorize_at_once_as = Some(GRACE.to_owned()));
    let code = bench.get(&path(&[])).callback("code").unwrap();
    let (access, _) = bench.exchange(&code).tokens();
    assert_eq!(bench.validate(&access).json()["user_id"], GRACE);
}

#[test]
fn the_callback_names_the_issuer_only_when_switched_on() {
    let mut bench = Bench::new();
    assert_eq!(bench.decide(ADA, "authorize", &[]).callback("iss"), None);
    bench.mock.settings_mut().callback_iss = true;
    let iss = bench.decide(ADA, "authorize", &[]).callback("iss");
    assert_eq!(iss.as_deref(), Some("http://mock.test/oauth2"));
}

#[test]
fn another_site_cannot_decide_for_the_user() {
    let mut bench = Bench::new();
    let form = encode(&[
        ("client_id", DEMO_CLIENT_ID),
        ("redirect_uri", DEMO_REDIRECT_URI),
        ("response_type", "code"),
        ("user", ADA),
        ("decision", "authorize"),
    ]);
    for (header, value, status) in [
        ("sec-fetch-site", "cross-site", 403),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "same-origin", 303),
        ("origin", "http://mock.test", 303),
    ] {
        assert_eq!(bench.send("POST", "/oauth2/authorize", &[(header, value)], &form).status, status);
    }
}
