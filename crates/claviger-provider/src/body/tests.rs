use proptest::prelude::*;
use serde_json::json;

use super::*;

fn token_body(field: &str, value: &str) -> String {
    format!(r#"{{"access_token":"a","refresh_token":"r","{field}":{value}}}"#)
}

pub(crate) const fn lasts(secs: u64) -> Lifespan {
    Lifespan::Lasts(Duration::from_secs(secs))
}

/// What `expires_in` may say, in any answer.
pub(crate) const LIFESPANS: [(&str, Lifespan); 16] = [
    ("14124", lasts(14124)),
    ("\"3600\"", lasts(3600)),
    ("\" 3600 \"", lasts(3600)),
    ("3600.9", lasts(3600)),
    ("1e3", lasts(1000)),
    ("18446744073709551615", lasts(LIFESPAN_SECS)),
    ("18446744073709551616", lasts(LIFESPAN_SECS)),
    ("1e300", lasts(LIFESPAN_SECS)),
    ("null", Lifespan::Unknown),
    ("-1", Lifespan::Unknown),
    ("-0.5", Lifespan::Unknown),
    ("\"-1\"", Lifespan::Unknown),
    ("\"soon\"", Lifespan::Unknown),
    ("\"\"", Lifespan::Unknown),
    ("true", Lifespan::Unknown),
    ("[3600]", Lifespan::Unknown),
];

#[test]
fn a_life_span_is_read_from_whatever_stands_there() {
    for (value, expected) in LIFESPANS {
        let pair = issued(token_body("expires_in", value).as_bytes()).unwrap();
        assert_eq!(pair.lifespan, expected, "{value}");
    }
}

#[test]
fn zero_is_no_life_span_of_a_new_token() {
    for zero in ["0", "0.4", "\"0\"", "-0"] {
        let pair = issued(token_body("expires_in", zero).as_bytes()).unwrap();
        assert_eq!(pair.lifespan, Lifespan::Unknown, "{zero}");
    }
}

#[test]
fn a_missing_life_span_is_unknown() {
    assert_eq!(issued(br#"{"access_token":"a"}"#).unwrap().lifespan, Lifespan::Unknown);
}

#[test]
fn scopes_come_in_several_forms() {
    let table: [(&str, Option<&[&str]>); 9] = [
        (r#"["a:b","c"]"#, Some(&["a:b", "c"])),
        (r#""a:b c""#, Some(&["a:b", "c"])),
        (r#""  a  ""#, Some(&["a"])),
        ("[]", Some(&[])),
        (r#""""#, Some(&[])),
        ("null", None),
        ("5", None),
        (r#"{"a":"b"}"#, None),
        (r#"["a",1,null,"b\r\nX: y","q\"","", "ä"]"#, Some(&["a"])),
    ];
    for (value, expected) in table {
        let expected = expected.map(|names| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let pair = issued(token_body("scope", value).as_bytes()).unwrap();
        assert_eq!(pair.scopes, expected, "{value}");
    }
    assert_eq!(issued(br#"{"access_token":"a"}"#).unwrap().scopes, None);
}

#[test]
fn a_pair_that_cannot_be_relied_on_is_not_read() {
    let long = "x".repeat(TOKEN_BYTES + 1);
    let too_large = format!(r#"{{"access_token":"a","x":"{}"}}"#, "x".repeat(PROVIDER_ANSWER_BYTES));
    let deep = format!(r#"{{"access_token":"a","x":{}}}"#, "[".repeat(10_000));
    let bodies = [
        "",
        "null",
        "<html>",
        r#"["a","r","bearer",1,"s"]"#,
        r#"{"access_token":"a""#,
        r#"{"refresh_token":"r"}"#,
        r#"{"access_token":null}"#,
        r#"{"access_token":1}"#,
        r#"{"access_token":""}"#,
        r#"{"access_token":"a b"}"#,
        r#"{"access_token":"a\r\nX: y"}"#,
        r#"{"access_token":"a\u0000"}"#,
        r#"{"access_token":"ä"}"#,
        r#"{"access_token":"a","access_token":"b"}"#,
        r#"{"access_token":"a","expires_in":1,"expires_in":2}"#,
        r#"{"access_token":"a","refresh_token":"r\n"}"#,
        r#"{"access_token":"a","refresh_token":1}"#,
        r#"{"access_token":"a","token_type":"mac"}"#,
        r#"{"access_token":"a","token_type":1}"#,
        r#"{"error":"bad_verification_code"}"#,
        &format!(r#"{{"access_token":"{long}"}}"#),
        &format!(r#"{{"access_token":"a","refresh_token":"{long}"}}"#),
        &too_large,
        &deep,
    ];
    for body in bodies {
        assert!(issued(body.as_bytes()).is_none(), "{body:.80}");
    }
}

/// L6: an optional field that is empty is absent, and a byte order mark is ignored.
#[test]
fn empty_fields_and_a_byte_order_mark_spoil_no_pair() {
    for body in
        [r#"{"access_token":"a","refresh_token":"","token_type":""}"#, "\u{feff}{\"access_token\":\"a\"}"]
    {
        let pair = issued(body.as_bytes()).unwrap();
        assert!(pair.access.expose() == "a" && pair.refresh.is_none(), "{body}");
    }
}

#[test]
fn a_pair_needs_no_more_than_an_access_token() {
    for body in [
        r#"{"access_token":"a"}"#,
        r#" {"access_token":"a","refresh_token":null,"token_type":null,"scope":null} "#,
        r#"{"access_token":"a","token_type":"BEARER"}"#,
        r#"{"access_token":"a","token_type":"bearer","id_token":"x","nonce":1,"more":{"a":[]}}"#,
    ] {
        let pair = issued(body.as_bytes()).unwrap();
        assert_eq!(pair.access.expose(), "a", "{body}");
        assert!(pair.refresh.is_none(), "{body}");
    }
}

proptest! {
    #[test]
    fn an_issued_pair_reads_back(
        access in "[!-~]{1,200}",
        refresh in proptest::option::of("[!-~]{1,200}"),
        secs in 1..LIFESPAN_SECS,
        scope in proptest::option::of(proptest::collection::vec("[a-z:]{1,20}", 0..10)),
        kind in prop_oneof![Just("bearer"), Just("Bearer"), Just("BEARER")],
        as_list: bool,
    ) {
        let written = match &scope {
            Some(names) if as_list => json!(names.join(" ")),
            names => json!(names),
        };
        let body = json!({
            "access_token": access, "refresh_token": refresh, "expires_in": secs, "scope": written,
            "token_type": kind, "unknown": ["a"],
        });
        let pair = issued(body.to_string().as_bytes()).unwrap();
        prop_assert_eq!(pair.access.expose(), access.as_str());
        prop_assert_eq!(pair.refresh.map(|token| token.expose().to_owned()), refresh);
        prop_assert_eq!(pair.lifespan, lasts(secs));
        prop_assert_eq!(pair.scopes, scope);
    }

    #[test]
    fn no_body_makes_a_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = issued(&body);
    }

    #[test]
    fn no_number_makes_a_parser_panic(number in "-?[0-9]{1,40}(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,4})?") {
        let _ = issued(token_body("expires_in", &number).as_bytes());
        let _ = issued(token_body("expires_in", &format!("\"{number}\"")).as_bytes());
    }
}
