//! The query of a callback. It signs in only the browser that began, and nothing of it is shown.
//!
//! `{state}` in an input stands for the state of a sign-in that this browser began.

use axum::body::Body;
use http::{Request, Uri, header};

use crate::app::{App, Begun, session_of};

pub(crate) const OUTCOMES: [&str; 3] = ["signed-in", "refused", "no-input"];

const ISSUER: &str = "https://id.twitch.tv/oauth2";
const CANARY: &str = "canary";

/// Sends a callback, and checks the answer.
pub(crate) fn check(input: &[u8]) -> &'static str {
    let Ok(text) = std::str::from_utf8(input.strip_suffix(b"\n").unwrap_or(input)) else { return "no-input" };
    let app = App::new();
    let Begun { state, cookie } = app.begin();
    let query = text.replace("{state}", &state);
    let Ok(uri) = format!("/auth/callback?{query}").parse::<Uri>() else { return "no-input" };
    let query = uri.query().unwrap_or_default().to_owned();
    let request = Request::get(uri).header(header::COOKIE, cookie).header(header::ACCEPT, "text/html");
    let answer = app.send(request.body(Body::empty()).unwrap());

    let status = answer.status().as_u16();
    assert!(status < 500, "{query}: {status}");
    let field = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    assert_eq!(field(header::CACHE_CONTROL), Some("no-store"), "{query}");
    assert_eq!(field(header::REFERRER_POLICY), Some("no-referrer"), "{query}");
    let signed_in = session_of(&answer).is_some();
    if signed_in {
        let all = |name: &str| -> Vec<String> {
            let pairs = form_urlencoded::parse(query.as_bytes());
            pairs.filter(|(known, _)| known == name).map(|(_, value)| value.into_owned()).collect()
        };
        assert_eq!(all("state"), [state], "only the browser that began: {query}");
        assert_eq!(all("code").len(), 1, "{query}");
        assert!(all("error").is_empty(), "{query}");
        assert!(all("iss").iter().all(|issuer| issuer == ISSUER), "another issuer's code: {query}");
        assert_eq!(field(header::LOCATION), Some("/inbox"), "the sign-in's own address: {query}");
    } else {
        let page = field(header::LOCATION).unwrap_or_default();
        assert!(page.starts_with("/auth/failed?error="), "{query}: {page}");
    }
    for (name, value) in answer.headers() {
        assert!(!value.as_bytes().windows(6).any(|part| part == CANARY.as_bytes()), "{query}: {name}");
    }
    let body = String::from_utf8(app.body(answer)).unwrap();
    assert!(!body.contains(CANARY) && !body.contains("<script"), "{query}: {body}");
    if signed_in { "signed-in" } else { "refused" }
}
