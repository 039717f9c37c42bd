//! The mock neither panics nor answers 5xx to any input.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use proptest::prelude::*;

use super::{ADA, Bench};
use crate::DEMO_CLIENT_ID;

const PATHS: &[&str] = &[
    "/",
    "/oauth2/authorize",
    "/oauth2/token",
    "/oauth2/validate",
    "/oauth2/revoke",
    "/oauth2/.well-known/openid-configuration",
    "/oauth2/userinfo",
    "/helix/users",
    "/helix/authorization/users",
    "/helix/subscriptions",
    "/helix/eventsub/subscriptions",
    "/settings/connections",
    "/mock/settings",
    "/mock/faults",
    "/mock/clients",
    "/mock/users",
    "/mock/users/100000001/disconnect",
    "/mock/tokens",
    "/mock/tokens/kill",
    "/mock/eventsub/subscriptions",
    "/mock/eventsub/subscriptions/x/revoke",
    "/mock/eventsub/deliveries",
    "/mock/eventsub/notify",
    "/mock/eventsub/release",
    "/mock/log",
    "/mock/counters",
    "/mock/",
    "/nowhere",
];

fn pair() -> impl Strategy<Value = (String, String)> {
    let names = prop::sample::select(vec![
        "client_id",
        "client_secret",
        "grant_type",
        "code",
        "refresh_token",
        "redirect_uri",
        "response_type",
        "scope",
        "state",
        "claims",
        "nonce",
        "user",
        "decision",
        "token",
        "id",
        "login",
        "user_id",
        "action",
        "after",
        "code_challenge",
        "code_challenge_method",
        "force_verify",
    ]);
    let values = prop_oneof![
        any::<String>(),
        Just(DEMO_CLIENT_ID.to_owned()),
        Just(crate::DEMO_CLIENT_SECRET.to_owned()),
        Just(crate::DEMO_REDIRECT_URI.to_owned()),
        Just(ADA.to_owned()),
        prop::sample::select(vec![
            "code",
            "authorize",
            "deny",
            "openid",
            "true",
            "S256",
            "refresh_token",
            "disconnect"
        ])
        .prop_map(str::to_owned),
    ];
    (names.prop_map(str::to_owned), values)
}

fn request() -> impl Strategy<Value = Request<Bytes>> {
    let methods = prop::sample::select(vec!["GET", "POST", "PATCH", "DELETE", "HEAD", "BREW"]);
    let form = || {
        prop::collection::vec(pair(), 0..8)
            .prop_map(|pairs| form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
    };
    let body = prop_oneof![form().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..200)];
    let header_names = prop::sample::select(vec![
        "authorization",
        "client-id",
        "cookie",
        "host",
        "origin",
        "sec-fetch-site",
        "content-type",
    ]);
    let headers = prop::collection::vec((header_names, prop::collection::vec(any::<u8>(), 0..40)), 0..5);
    (methods, prop::sample::select(PATHS), form(), headers, body).prop_map(
        |(method, path, query, headers, body)| {
            let mut request = Request::builder().method(method).uri(format!("{path}?{query}"));
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    request = request.header(HeaderName::from_static(name), value);
                }
            }
            request.body(Bytes::from(body)).unwrap()
        },
    )
}

proptest! {
    #[test]
    fn no_request_causes_a_panic_or_a_5xx(
        requests in prop::collection::vec((request(), any::<i64>()), 1..12)
    ) {
        let mut bench = Bench::new();
        for (request, now_ms) in requests {
            // A fault may demand 5xx, so requests for faults are left out here.
            bench.mock.clear_faults();
            let status = bench.mock.handle(&request, now_ms).response.status().as_u16();
            prop_assert!(status < 500, "{request:?} got {status}");
        }
    }
}

#[test]
fn an_oversized_body_is_refused() {
    let body = "x".repeat(64 * 1024 + 1);
    for path in ["/oauth2/token", "/mock/faults"] {
        Bench::new()
            .send("POST", path, &[], &body)
            .is(413, r#"{"status":413,"message":"request body too large"}"#);
    }
}

#[test]
fn too_many_parameters_are_refused() {
    let form: String = (0..300).map(|number| format!("p{number}=1&")).collect();
    Bench::new()
        .send("POST", "/oauth2/token", &[], &form)
        .is(400, r#"{"status":400,"message":"too many parameters"}"#);
}

#[test]
fn the_log_is_bounded_and_the_counters_are_not() {
    let mut bench = Bench::new();
    for _ in 0..10_050 {
        bench.validate("any");
    }
    assert_eq!(bench.mock.log().count(), 10_000);
    assert_eq!(bench.mock.log().next_back().unwrap().sequence, 10_050);
    assert_eq!(bench.mock.calls(crate::Endpoint::Validate), 10_050);
}
