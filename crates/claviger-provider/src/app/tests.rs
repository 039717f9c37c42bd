use claviger_core::FailureKind;
use http::{
    HeaderValue,
    header::{AUTHORIZATION, RETRY_AFTER},
};
use serde_json::json;

use super::*;
use crate::{answer::Unanswered, twitch::tests::twitch};

const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_000);

fn client() -> Client {
    twitch("id&1", "s%/=+").client
}

fn answer(status: u16, body: &str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body.to_owned()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn says(status: u16, message: &str) -> Response<Bytes> {
    answer(status, &json!({ "error": "words", "status": status, "message": message }).to_string())
}

#[test]
fn our_credentials_stand_in_the_body_only() {
    let request = client().app_token_request();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "https://id.twitch.tv/oauth2/token");
    assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(
        request.body().as_ref(),
        b"client_id=id%261&client_secret=s%25%2F%3D%2B&grant_type=client_credentials"
    );
}

#[test]
fn a_call_of_the_api_names_the_client_and_hides_the_token() {
    let app = AccessToken::new("a%/=+");
    let request = client().api_request(Method::GET, &["a", "b"], &[("q", "1&2"), ("q", "é")], &app);
    assert_eq!(request.uri(), "https://api.twitch.tv/helix/a/b?q=1%262&q=%C3%A9");
    assert_eq!(request.headers()["client-id"], "id&1");
    assert_eq!(request.headers()[AUTHORIZATION], "Bearer a%/=+");
    assert!(request.headers()[AUTHORIZATION].is_sensitive());
    assert!(!format!("{request:?}").contains("a%/=+"));
    let bare = client().api_request(Method::POST, &["a"], &[], &AccessToken::new("a\nb"));
    assert_eq!(bare.uri(), "https://api.twitch.tv/helix/a");
    assert!(!bare.headers().contains_key(AUTHORIZATION));
}

#[test]
fn every_answer_to_our_credentials_has_its_meaning() {
    let documented =
        r#"{"access_token":"jostpf5q0uzmxmkba9iyug38kjtgh","expires_in":5011271,"token_type":"bearer"}"#;
    let shown = |answer| match client().read_app_token(answer, NOW) {
        AppTokenAnswer::Issued { token, lifespan } => format!("issued {} {lifespan:?}", token.expose()),
        AppTokenAnswer::Misconfigured => "misconfigured".to_owned(),
        AppTokenAnswer::Unknown(failure) => format!("unknown {:?}", failure.kind),
    };
    let table = [
        (Ok(answer(200, documented)), "issued jostpf5q0uzmxmkba9iyug38kjtgh Lasts(5011271s)"),
        (Ok(answer(200, r#"{"access_token":"a"}"#)), "issued a Unknown"),
        (Ok(says(400, "invalid client")), "misconfigured"),
        (Ok(says(403, "invalid client secret")), "misconfigured"),
        (Ok(says(403, "anything")), "misconfigured"),
        (Ok(says(400, "missing client secret")), "misconfigured"),
        (Ok(answer(401, r#"{"error":"invalid_client"}"#)), "misconfigured"),
        (Ok(answer(400, r#"{"error":"unauthorized_client"}"#)), "misconfigured"),
        (Ok(answer(400, r#"{"error":"invalid_grant"}"#)), "unknown Status(400)"),
        (Ok(answer(403, "<html>")), "unknown Status(403)"),
        (Ok(says(404, "invalid client")), "unknown Status(404)"),
        (Ok(answer(429, "")), "unknown Status(429)"),
        (Ok(says(500, "invalid client")), "unknown Status(500)"),
        (Ok(answer(201, documented)), "unknown Status(201)"),
        (Ok(answer(302, "")), "unknown Status(302)"),
        (Ok(answer(200, "<html>")), "unknown Unreadable"),
        (Ok(answer(200, r#"{"access_token":"a b"}"#)), "unknown Unreadable"),
        (Err(Unanswered::NotSent), "unknown NotSent"),
        (Err(Unanswered::NoAnswer), "unknown NoAnswer"),
    ];
    for (answer, expected) in table {
        let described = format!("{answer:?}");
        assert_eq!(shown(answer), expected, "{described}");
    }
    let issued = client().read_app_token(Ok(answer(200, documented)), NOW);
    assert!(!format!("{issued:?}").contains("jostpf"));
}

#[test]
fn every_refusal_of_the_api_has_its_meaning() {
    let unknown = |status| Fault::Unknown(ProviderFailure::new(FailureKind::Status(status)));
    let table = [
        (says(401, "Invalid OAuth token"), Fault::TokenDead),
        (says(401, "invalid access token"), Fault::TokenDead),
        (says(401, "words that are new"), Fault::TokenDead),
        (answer(401, ""), Fault::TokenDead),
        (says(401, "Client ID and OAuth token do not match"), Fault::Misconfigured),
        (says(401, "Missing scope: a"), Fault::Misconfigured),
        (says(400, "Invalid client_id: x"), Fault::Misconfigured),
        (says(403, "subscription missing proper authorization"), Fault::Misconfigured),
        (says(401, "missing authorization token"), unknown(401)),
        (answer(401, "<html>sign in to the network</html>"), unknown(401)),
        (answer(403, "<html>"), unknown(403)),
        (says(400, "Invalid OAuth token"), unknown(400)),
        (says(400, "anything"), unknown(400)),
        (says(404, "Invalid OAuth token"), unknown(404)),
        (says(429, "Invalid OAuth token"), unknown(429)),
        (says(503, "Invalid OAuth token"), unknown(503)),
        (answer(204, ""), unknown(204)),
    ];
    for (answer, expected) in table {
        assert_eq!(client().fault(&answer, NOW), expected, "{answer:?}");
    }
}

#[test]
fn the_api_may_say_when_to_come_back() {
    let mut answer = answer(429, "");
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("7"));
    let Fault::Unknown(failure) = client().fault(&answer, NOW) else { panic!("{answer:?}") };
    assert_eq!(failure.retry_after, Some(std::time::Duration::from_secs(7)));
}
