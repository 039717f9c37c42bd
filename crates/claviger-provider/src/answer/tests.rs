use http::{HeaderValue, header::LOCATION};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::twitch::tests::twitch;

/// 2026-11-20T00:00:00Z
const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_000);

fn client() -> Client {
    twitch("id", "s").client
}

fn answer(status: u16, body: &str) -> Answer {
    let mut answer = Response::new(Bytes::from(body.to_owned()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(answer)
}

/// Twitch's form of a refusal.
fn says(status: u16, message: &str) -> Answer {
    answer(status, &json!({ "status": status, "message": message }).to_string())
}

/// The form of RFC 6749 section 5.2.
fn code(status: u16, code: &str) -> Answer {
    answer(status, &json!({ "error": code, "error_description": "words" }).to_string())
}

fn token_verdict(answer: Answer) -> String {
    match client().read_token(answer, NOW) {
        TokenAnswer::Issued(pair) => {
            assert!(!pair.access.expose().is_empty());
            "issued".to_owned()
        }
        TokenAnswer::Rejected => "rejected".to_owned(),
        TokenAnswer::Misconfigured => "misconfigured".to_owned(),
        TokenAnswer::Unknown(failure) => format!("unknown {:?}", failure.kind),
        TokenAnswer::Lost(failure) => format!("lost {:?}", failure.kind),
    }
}

#[test]
fn every_answer_of_the_token_endpoint_has_its_verdict() {
    let documented = r#"{"access_token":"1ssjqsqfy6bads1ws7m03gras79zfr","refresh_token":"eyJfMzUtNDU0OC04MWYwLTQ5MDY5ODY4NGNlMSJ9%asdfasdf=",
        "scope":["channel:read:subscriptions","channel:manage:polls"],"token_type":"bearer","expires_in":14124}"#;
    let documented_refusal = r#"{"error":"Bad Request","status":400,"message":"Invalid refresh token"}"#;
    let table = [
        (answer(200, documented), "issued"),
        (answer(200, r#"{"access_token":"a","expires_in":5011271,"token_type":"bearer"}"#), "issued"),
        // Dead, as recorded and as documented
        (says(400, "Invalid refresh token"), "rejected"),
        (says(401, "Invalid refresh token"), "rejected"),
        (answer(400, documented_refusal), "rejected"),
        (answer(401, documented_refusal), "rejected"),
        (says(400, "INVALID refresh TOKEN"), "rejected"),
        (says(400, "Invalid authorization code"), "rejected"),
        (code(400, "invalid_grant"), "rejected"),
        (code(401, "invalid_grant"), "rejected"),
        // Our own fault
        (says(403, "invalid client secret"), "misconfigured"),
        (says(400, "invalid client"), "misconfigured"),
        (says(400, "Invalid client_id: x"), "misconfigured"),
        (says(400, "missing client secret"), "misconfigured"),
        (says(400, "missing client id"), "misconfigured"),
        (says(400, "missing refresh token"), "misconfigured"),
        (says(400, "Parameter redirect_uri does not match registered URI"), "misconfigured"),
        (says(400, "invalid scope requested: 'x'"), "misconfigured"),
        (says(403, "anything"), "misconfigured"),
        (says(403, "Invalid refresh token"), "misconfigured"),
        (code(401, "invalid_client"), "misconfigured"),
        (code(400, "unauthorized_client"), "misconfigured"),
        (code(400, "invalid_request"), "misconfigured"),
        (code(400, "unsupported_grant_type"), "misconfigured"),
        (code(400, "invalid_scope"), "misconfigured"),
        // Nothing proven, whatever the words
        (says(404, "Invalid refresh token"), "unknown Status(404)"),
        (says(408, "Invalid refresh token"), "unknown Status(408)"),
        (code(409, "invalid_grant"), "unknown Status(409)"),
        (says(422, "Invalid refresh token"), "unknown Status(422)"),
        (says(429, "Invalid refresh token"), "unknown Status(429)"),
        (code(500, "invalid_grant"), "unknown Status(500)"),
        (says(503, "Invalid refresh token"), "unknown Status(503)"),
        (says(302, "Invalid refresh token"), "unknown Status(302)"),
        (says(400, "Invalid token"), "unknown Status(400)"),
        (says(400, "authorization_pending"), "unknown Status(400)"),
        (says(401, "invalid access token"), "unknown Status(401)"),
        (code(400, "something_new"), "unknown Status(400)"),
        (answer(400, ""), "unknown Status(400)"),
        (answer(401, "<html>Invalid refresh token</html>"), "unknown Status(401)"),
        (answer(400, "\"Invalid refresh token\""), "unknown Status(400)"),
        (answer(403, "<html>blocked</html>"), "unknown Status(403)"),
        (answer(502, "<html>bad gateway</html>"), "unknown Status(502)"),
        (Err(Unanswered::NotSent), "unknown NotSent"),
        // Perhaps spent
        (Err(Unanswered::NoAnswer), "lost NoAnswer"),
        (answer(200, ""), "lost Unreadable"),
        (answer(200, "<html>"), "lost Unreadable"),
        (says(200, "Invalid refresh token"), "lost Unreadable"),
        (answer(204, ""), "lost Status(204)"),
        (answer(201, documented), "issued"),
    ];
    for (answer, expected) in table {
        let shown = format!("{answer:?}");
        assert_eq!(token_verdict(answer), expected, "{shown}");
    }
}

#[test]
fn every_answer_to_a_revocation_has_its_verdict() {
    let unknown = |kind| RevokeAnswer::Unknown(ProviderFailure::new(kind));
    let table = [
        (answer(200, ""), RevokeAnswer::Done),
        (answer(204, ""), RevokeAnswer::Done),
        (says(400, "Invalid token"), RevokeAnswer::Done),
        (says(404, "client does not exist"), RevokeAnswer::Misconfigured),
        (says(400, "Invalid client_id: x"), RevokeAnswer::Misconfigured),
        (says(400, "missing oauth token"), RevokeAnswer::Misconfigured),
        (says(403, "invalid client secret"), RevokeAnswer::Misconfigured),
        (code(401, "invalid_client"), RevokeAnswer::Misconfigured),
        (code(400, "unsupported_token_type"), RevokeAnswer::Misconfigured),
        (says(404, "Invalid token"), unknown(FailureKind::Status(404))),
        (answer(404, "<html>"), unknown(FailureKind::Status(404))),
        (answer(400, ""), unknown(FailureKind::Status(400))),
        (says(429, "Invalid token"), unknown(FailureKind::Status(429))),
        (says(503, "Invalid token"), unknown(FailureKind::Status(503))),
        (Err(Unanswered::NotSent), unknown(FailureKind::NotSent)),
        (Err(Unanswered::NoAnswer), unknown(FailureKind::NoAnswer)),
    ];
    for (answer, expected) in table {
        let shown = format!("{answer:?}");
        assert_eq!(client().read_revoke(answer, NOW), expected, "{shown}");
    }
}

#[test]
fn only_a_dead_token_is_worth_a_refresh() {
    let bearer = Some(r#"Bearer error="invalid_token""#);
    let table = [
        (401, None, "Invalid OAuth token", ApiRefusal::DeadToken),
        (401, None, "invalid access token", ApiRefusal::DeadToken),
        (401, None, "Client ID and OAuth token do not match", ApiRefusal::NotTheToken),
        (401, None, "Missing scope: a or b", ApiRefusal::NotTheToken),
        (401, bearer, "Missing scope: a or b", ApiRefusal::NotTheToken),
        (401, bearer, "anything", ApiRefusal::DeadToken),
        (401, Some(r#"Bearer error="insufficient_scope""#), "", ApiRefusal::NotTheToken),
        (401, Some(r#"OAuth realm="TwitchTV", error="invalid_token""#), "anything", ApiRefusal::Unclear),
        (401, None, "anything", ApiRefusal::Unclear),
        (401, None, "Invalid refresh token", ApiRefusal::Unclear),
        (401, None, "OAuth token is missing", ApiRefusal::Unclear),
        (403, bearer, "Invalid OAuth token", ApiRefusal::NotTheToken),
        (400, None, "Invalid OAuth token", ApiRefusal::NotTheToken),
        (503, None, "Invalid OAuth token", ApiRefusal::NotTheToken),
    ];
    for (status, header, message, expected) in table {
        let body = json!({ "error": "Unauthorized", "status": status, "message": message }).to_string();
        let status = StatusCode::from_u16(status).unwrap();
        let refusal = client().read_api_refusal(status, header, body.as_bytes());
        assert_eq!(refusal, expected, "{status} {header:?} {message}");
    }
    let unclear = client().read_api_refusal(StatusCode::UNAUTHORIZED, None, b"<html>");
    assert_eq!(unclear, ApiRefusal::Unclear);
}

#[test]
fn a_provider_may_say_when_to_come_back() {
    let table = [
        ("7", Some(7)),
        (" 7 ", Some(7)),
        ("0", Some(1)),
        ("3601", Some(3600)),
        ("99999999999999999999999999", Some(3600)),
        ("Fri, 20 Nov 2026 00:00:30 GMT", Some(30)),
        ("Friday, 20-Nov-26 00:00:30 GMT", Some(30)),
        ("Thu, 19 Nov 2026 23:59:59 GMT", Some(1)),
        ("Fri, 20 Nov 2099 00:00:30 GMT", Some(3600)),
        ("-7", None),
        ("7.5", None),
        ("soon", None),
        ("", None),
    ];
    for (value, secs) in table {
        let mut answer = answer(503, "").unwrap();
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(value));
        let TokenAnswer::Unknown(failure) = client().read_token(Ok(answer), NOW) else { panic!("{value}") };
        assert_eq!(failure.retry_after, secs.map(Duration::from_secs), "{value}");
    }
}

#[test]
fn a_redirect_is_not_followed_and_proves_nothing() {
    let mut answer = answer(307, "").unwrap();
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("https://elsewhere.example/"));
    assert_eq!(token_verdict(Ok(answer)), "unknown Status(307)");
}

const DEADLY: [&str; 3] = ["invalid refresh token", "invalid authorization code", "invalid_grant"];

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("Invalid refresh token".to_owned()),
        Just("Invalid authorization code".to_owned()),
        Just("invalid_grant".to_owned()),
        Just("invalid_client".to_owned()),
        Just("invalid client secret".to_owned()),
        Just("Invalid token".to_owned()),
        "\\PC{0,30}",
    ]
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        "\\PC{0,100}".prop_map(String::into_bytes),
        (words(), words()).prop_map(|(error, message)| {
            json!({ "error": error, "message": message, "status": 400 }).to_string().into_bytes()
        }),
        (words(), any::<i64>()).prop_map(|(token, secs)| {
            json!({ "access_token": token, "expires_in": secs }).to_string().into_bytes()
        }),
        words().prop_map(|words| format!("<html>{words}</html>").into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]
    #[test]
    fn no_answer_panics_and_none_rejects_without_saying_so(
        status in prop_oneof![Just(400_u16), Just(401), Just(403), 100_u16..=999],
        body in bodies(),
        retry in proptest::option::of("[ -~]{0,40}"),
        millis: i64,
    ) {
        let now = Timestamp::from_millis(millis);
        let mut answer = Response::new(Bytes::from(body.clone()));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(retry) = retry {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_str(&retry).unwrap());
        }
        let _ = client().read_revoke(Ok(answer.clone()), now);
        let _ = client().read_api_refusal(answer.status(), std::str::from_utf8(&body).ok(), &body);
        match client().read_token(Ok(answer), now) {
            TokenAnswer::Rejected => {
                let said = String::from_utf8(body).unwrap().to_lowercase();
                prop_assert!(status == 400 || status == 401);
                prop_assert!(DEADLY.iter().any(|words| said.contains(words)), "{}", said);
            }
            TokenAnswer::Issued(_) => prop_assert_eq!(status, 200),
            TokenAnswer::Lost(_) => prop_assert!((200..300).contains(&status)),
            TokenAnswer::Unknown(_) => prop_assert!(!(200..300).contains(&status)),
            TokenAnswer::Misconfigured => prop_assert!((400..=403).contains(&status)),
        }
    }
}
