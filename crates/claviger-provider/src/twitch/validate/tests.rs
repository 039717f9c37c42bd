use claviger_core::limits::DISPLAY_NAME_CHARS;
use http::Response;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    answer::Unanswered,
    body::{
        ID_BYTES,
        tests::{LIFESPANS, lasts},
    },
    twitch::tests::twitch,
};

const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_000);

fn answer(status: u16, body: &str) -> Answer {
    let mut answer = Response::new(Bytes::from(body.to_owned()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(answer)
}

fn says(status: u16, message: &str) -> Answer {
    answer(status, &json!({ "status": status, "message": message }).to_string())
}

fn read(answer: Answer) -> ValidateAnswer {
    let provider = twitch("id", "s");
    provider.identity.read(&provider.client, answer, NOW)
}

#[test]
fn a_validation_carries_its_token_in_a_sensitive_header() {
    let provider = twitch("id", "s");
    let request = provider.identity.request(&provider.client, &AccessToken::new("a%/=+"));
    assert_eq!((request.method(), request.body().len()), (&Method::GET, 0));
    assert_eq!(request.uri(), "https://id.twitch.tv/oauth2/validate");
    assert_eq!(request.headers()["accept"], "application/json");
    assert_eq!(request.headers()["authorization"], "OAuth a%/=+");
    assert!(request.headers()["authorization"].is_sensitive());
    assert!(!format!("{request:?}").contains("a%/=+"));
}

#[test]
fn a_token_that_no_header_can_carry_is_not_sent() {
    let provider = twitch("id", "s");
    let request = provider.identity.request(&provider.client, &AccessToken::new("a\r\nx: y"));
    assert!(!request.headers().contains_key("authorization"));
}

#[test]
fn every_validation_has_its_verdict() {
    let good = r#"{"client_id":"id","login":"n","scopes":[],"user_id":"1","expires_in":1}"#;
    let verdict = |answer| match read(answer) {
        ValidateAnswer::Valid(proof) => format!("valid {}", proof.client_id),
        ValidateAnswer::Rejected => "rejected".to_owned(),
        ValidateAnswer::Unknown(failure) => format!("unknown {:?}", failure.kind),
    };
    let table = [
        (answer(200, good), "valid id"),
        (says(401, "invalid access token"), "rejected"),
        (says(401, "anything new"), "rejected"),
        (answer(401, ""), "rejected"),
        (says(401, "missing authorization token"), "unknown Status(401)"),
        (answer(401, "<html>sign in to the network</html>"), "unknown Status(401)"),
        (answer(200, ""), "unknown Unreadable"),
        (answer(200, "<html>"), "unknown Unreadable"),
        (says(400, "invalid access token"), "unknown Status(400)"),
        (says(403, "invalid access token"), "unknown Status(403)"),
        (says(404, "invalid access token"), "unknown Status(404)"),
        (answer(429, ""), "unknown Status(429)"),
        (says(503, "invalid access token"), "unknown Status(503)"),
        (answer(204, ""), "unknown Status(204)"),
        (answer(301, ""), "unknown Status(301)"),
        (Err(Unanswered::NotSent), "unknown NotSent"),
        (Err(Unanswered::NoAnswer), "unknown NoAnswer"),
    ];
    for (answer, expected) in table {
        let shown = format!("{answer:?}");
        assert_eq!(verdict(answer), expected, "{shown}");
    }
}

#[test]
fn a_life_span_is_read_from_whatever_stands_there() {
    for (value, expected) in LIFESPANS {
        let body = format!(r#"{{"client_id":"c","expires_in":{value}}}"#);
        assert_eq!(proof(body.as_bytes()).unwrap().lifespan, expected, "{value}");
    }
    assert_eq!(proof(br#"{"client_id":"c"}"#).unwrap().lifespan, Lifespan::Unknown);
}

#[test]
fn zero_is_an_endless_life_span_of_an_old_client() {
    for zero in ["0", "0.4", "\"0\"", "-0"] {
        let body = format!(r#"{{"client_id":"c","expires_in":{zero}}}"#);
        assert_eq!(proof(body.as_bytes()).unwrap().lifespan, Lifespan::Endless, "{zero}");
    }
}

#[test]
fn scopes_that_are_not_named_are_none() {
    for (scopes, expected) in [(r#"["a:b","c"]"#, vec!["a:b", "c"]), ("[]", vec![]), ("null", vec![])] {
        let body = format!(r#"{{"client_id":"c","scopes":{scopes}}}"#);
        assert_eq!(proof(body.as_bytes()).unwrap().scopes, expected, "{scopes}");
    }
    assert!(proof(br#"{"client_id":"c"}"#).unwrap().scopes.is_empty());
}

#[test]
fn a_proof_says_whose_token_it_is() {
    let documented = br#"{"client_id":"wbmytr93xzw8zbg0p1izqyzzc5mbiz","login":"twitchdev",
        "scopes":["channel:read:subscriptions"],"user_id":"141981764","expires_in":5520838}"#;
    assert_eq!(
        proof(documented),
        Some(Proof {
            client_id: "wbmytr93xzw8zbg0p1izqyzzc5mbiz".into(),
            subject_id: Some("141981764".into()),
            display_name: Some("twitchdev".into()),
            lifespan: lasts(5_520_838),
            scopes: vec!["channel:read:subscriptions".into()],
        })
    );
    for app in [
        r#"{"client_id":"c","login":null,"scopes":null,"user_id":null,"expires_in":1}"#,
        r#"{"client_id":"c","scopes":[],"expires_in":1}"#,
    ] {
        let proof = proof(app.as_bytes()).unwrap();
        assert_eq!((proof.subject_id, proof.display_name, proof.scopes), (None, None, vec![]));
    }
}

#[test]
fn a_proof_without_sound_ids_is_not_read() {
    let long = "1".repeat(ID_BYTES + 1);
    let bodies = [
        r#"{"user_id":"1"}"#,
        r#"{"client_id":"","user_id":"1"}"#,
        r#"{"client_id":null,"user_id":"1"}"#,
        r#"{"client_id":1,"user_id":"1"}"#,
        r#"{"client_id":"c","user_id":""}"#,
        r#"{"client_id":"c","user_id":1}"#,
        r#"{"client_id":"c","user_id":"1\n"}"#,
        r#"{"client_id":"c","user_id":"1","user_id":"2"}"#,
        r#"{"client_id":"c","client_id":"d"}"#,
        &format!(r#"{{"client_id":"c","user_id":"{long}"}}"#),
        &format!(r#"{{"client_id":"{long}"}}"#),
        "",
        "[]",
    ];
    for body in bodies {
        assert_eq!(proof(body.as_bytes()), None, "{body:.80}");
    }
}

#[test]
fn a_display_name_is_fit_to_be_shown() {
    let long = "ä".repeat(DISPLAY_NAME_CHARS + 1);
    let table = [
        (json!("TwitchDev"), Some("TwitchDev".to_owned())),
        (json!(" a\r\nX: y\u{0} "), Some("aX: y".to_owned())),
        (json!(long), Some("ä".repeat(DISPLAY_NAME_CHARS))),
        (json!("\n "), None),
        (json!(""), None),
        (json!(5), None),
        (json!({}), None),
    ];
    for (login, expected) in table {
        let body = json!({ "client_id": "c", "user_id": "1", "login": login }).to_string();
        assert_eq!(proof(body.as_bytes()).unwrap().display_name, expected, "{login}");
    }
}

proptest! {
    #[test]
    fn only_a_401_rejects_and_nothing_panics(
        status in prop_oneof![Just(400_u16), Just(401), Just(403), 100_u16..=999],
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = proof(&body);
        let mut answer = Response::new(Bytes::from(body));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        if read(Ok(answer)) == ValidateAnswer::Rejected {
            prop_assert_eq!(status, 401);
        }
    }
}
