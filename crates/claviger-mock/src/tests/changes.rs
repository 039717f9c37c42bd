//! Answers with changed fields, headers, status and encoding; the request takes effect.

use std::io::Read as _;

use serde_json::{Value, json};

use super::{ADA, Bench};
use crate::{Change, Config, DEMO_CLIENT_ID, Encoding, Endpoint, Fault, FaultKind, MockTwitch, Rotation};

/// The answer to a refresh that this changes.
fn changed(change: Change) -> super::Got {
    let mut bench = Bench::new();
    let (_, refresh) = bench.sign_in("user:read:email");
    bench.mock.add_fault(Fault::once(Endpoint::Token, FaultKind::Change(change)));
    let got = bench.refresh(&refresh);
    assert_eq!(bench.refresh(&refresh).status, 400, "the effect happened");
    got
}

#[test]
fn single_fields_of_an_answer_get_other_values_or_are_left_out() {
    let change = Change {
        set: [("expires_in".to_owned(), json!(0)), ("refresh_token".to_owned(), json!(""))].into(),
        remove: vec!["scope".to_owned(), "no.such".to_owned()],
        ..Change::default()
    };
    let body = changed(change).json();
    assert_eq!((&body["expires_in"], &body["refresh_token"]), (&json!(0), &json!("")));
    assert_eq!((body.get("scope"), &body["token_type"]), (None, &json!("bearer")));
}

#[test]
fn fields_within_lists_are_named_by_their_place() {
    let mut bench = Bench::new();
    let (access, _) = bench.sign_in("");
    for change in
        [Change::set("data.0.login", "other"), Change::remove("data.0.email"), Change::remove("data.7")]
    {
        bench.mock.add_fault(Fault::once(Endpoint::HelixUsers, FaultKind::Change(change)));
    }
    let bearer = format!("Bearer {access}");
    let headers = [("authorization", bearer.as_str()), ("client-id", DEMO_CLIENT_ID)];
    let body = bench.send("GET", "/helix/users", &headers, "").json();
    assert_eq!((&body["data"][0]["login"], &body["data"][0]["id"]), (&json!("other"), &json!(ADA)));
}

#[test]
fn headers_and_status_change_while_the_body_stays() {
    let change = Change {
        status: Some(201),
        headers: [("X-New".to_owned(), Some("1".to_owned())), ("Cache-Control".to_owned(), None)].into(),
        ..Change::default()
    };
    let got = changed(change);
    assert_eq!((got.status, got.header("x-new"), got.header("cache-control")), (201, Some("1"), None));
    assert!(got.json()["access_token"].is_string());
}

#[test]
fn a_body_is_compressed_or_marked_and_stays_the_same_inside() {
    let inside = |encoding, body: &[u8]| {
        let mut text = String::new();
        match encoding {
            Encoding::Gzip => flate2::read::GzDecoder::new(body).read_to_string(&mut text),
            Encoding::Deflate => flate2::read::ZlibDecoder::new(body).read_to_string(&mut text),
            Encoding::RawDeflate => flate2::read::DeflateDecoder::new(body).read_to_string(&mut text),
        }
        .unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    for (encoding, name) in
        [(Encoding::Gzip, "gzip"), (Encoding::Deflate, "deflate"), (Encoding::RawDeflate, "deflate")]
    {
        let got = changed(Change::encoding(encoding));
        assert_eq!(got.header("content-encoding"), Some(name));
        assert_eq!(inside(encoding, got.reply.response.body())["token_type"], "bearer", "{encoding:?}");
    }
    let marked = changed(Change { byte_order_mark: true, ..Change::default() });
    assert!(marked.body.starts_with('\u{feff}') && marked.body.ends_with('}'));
}

#[test]
fn an_answer_of_ones_own_may_be_a_success_or_a_redirect_with_headers() {
    let mut bench = Bench::new();
    let own = FaultKind::Status { status: 302, body: String::new(), retry_after: None };
    bench.mock.add_fault(Fault::once(Endpoint::Validate, own));
    let header = Change::header("Location", "https://elsewhere.example/");
    bench.mock.add_fault(Fault::once(Endpoint::Validate, FaultKind::Change(header)));
    let got = bench.validate("any");
    assert_eq!((got.status, got.header("location")), (302, Some("https://elsewhere.example/")));
    let own = FaultKind::Status { status: 200, body: r#"{"user_id":"1"}"#.to_owned(), retry_after: None };
    bench.mock.add_fault(Fault::once(Endpoint::Validate, own));
    bench.validate("any").is(200, r#"{"user_id":"1"}"#);
}

#[test]
fn what_cannot_be_sent_is_refused() {
    for (change, said) in [
        (Change::default(), "say what is different"),
        (Change::status(199), "from 200 to 599"),
        (Change::header("Content-Length", "1"), "how long the body is"),
        (Change::header("no name", "1"), "not the name of a header"),
        (Change::header("x", "a\nb"), "cannot be sent"),
    ] {
        let told = Fault::once(Endpoint::Token, FaultKind::Change(change)).check().unwrap_err();
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn a_new_token_is_unknown_to_reads_for_as_long_as_they_lag() {
    let mut bench = Bench::with(|settings| settings.token_lag_ms = 200);
    let (access, refresh) = bench.sign_in("");
    assert!(!bench.is_live(&access));
    assert_eq!(bench.refresh(&refresh).status, 200, "the token endpoint knows its own tokens");
    bench.now_ms += 200;
    assert!(bench.is_live(&access));
}

#[test]
fn by_default_a_refresh_token_is_not_one_time() {
    assert_eq!(Config::demo().settings.rotation, Rotation::Rotates);
    let mut bench = Bench { mock: MockTwitch::new(Config::strict(), 1), now_ms: super::NOW };
    let (_, refresh) = bench.sign_in("");
    let (_, next) = bench.refresh(&refresh).tokens();
    assert_ne!(next, refresh);
    assert_eq!(bench.refresh(&refresh).status, 200);
}
