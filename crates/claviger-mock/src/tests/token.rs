//! `/oauth2/token` and `/settings/connections`.

use super::{ADA, Bench, GRACE, encode};
use crate::{
    DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_REDIRECT_URI, Endpoint, LiveTokenLimit, MockTwitch, Rotation,
};

#[test]
fn every_bad_request_gets_twitchs_message() {
    let client = ("client_id", DEMO_CLIENT_ID);
    let secret = ("client_secret", DEMO_CLIENT_SECRET);
    let refresh = ("grant_type", "refresh_token");
    let code = ("grant_type", "authorization_code");
    type Form<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Form<'_>, u16, &str)] = &[
        (&[], 400, "missing client id"),
        (&[("client_id", "nobody"), secret, refresh], 400, "invalid client"),
        (&[client, refresh, ("refresh_token", "x")], 400, "missing client secret"),
        (&[client, ("client_secret", "wrong"), refresh], 403, "invalid client secret"),
        (&[client, secret], 400, "missing grant type"),
        (&[client, secret, ("grant_type", "password")], 400, "unsupported grant type"),
        (&[client, secret, refresh], 400, "missing refresh token"),
        (&[client, secret, refresh, ("refresh_token", "")], 400, "missing refresh token"),
        (&[client, secret, refresh, ("refresh_token", "dead")], 400, "Invalid refresh token"),
        (&[client, secret, code], 400, "missing code"),
        (&[client, secret, code, ("code", "bad")], 400, "Invalid authorization code"),
        (&[client, client, secret, refresh], 400, "duplicate parameter"),
    ];
    for (form, status, message) in cases {
        let body = format!(r#"{{"status":{status},"message":"{message}"}}"#);
        Bench::new().post("/oauth2/token", form).is(*status, &body);
    }
}

#[test]
fn get_is_answered_404() {
    Bench::new().get("/oauth2/token").is(404, "404 page not found\n");
}

#[test]
fn a_code_gives_tokens_in_twitchs_shape() {
    let mut bench = Bench::new();
    let code = bench.code(&[("scope", "user:read:email chat:read")]);
    let got = bench.exchange(&code);
    let (access, refresh) = got.tokens();
    let body = format!(
        r#"{{"access_token":"{access}","expires_in":14000,"refresh_token":"{refresh}","scope":["user:read:email","chat:read"],"token_type":"bearer"}}"#
    );
    got.is(200, &body);
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.header("cache-control"), Some("no-store"));
    assert!(bench.is_live(&access));
}

#[test]
fn scope_is_absent_where_none_was_asked() {
    let mut bench = Bench::new();
    let code = bench.code(&[]);
    assert!(bench.exchange(&code).json().get("scope").is_none());
}

#[test]
fn parameters_may_be_in_the_query_of_a_post() {
    let mut bench = Bench::new();
    let query = encode(&[
        ("client_id", DEMO_CLIENT_ID),
        ("client_secret", DEMO_CLIENT_SECRET),
        ("grant_type", "client_credentials"),
    ]);
    let got = bench.send("POST", &format!("/oauth2/token?{query}"), &[], "");
    let token = got.json()["access_token"].as_str().unwrap().to_owned();
    got.is(200, &format!(r#"{{"access_token":"{token}","expires_in":5011271,"token_type":"bearer"}}"#));
}

#[test]
fn a_json_body_counts_as_no_parameters() {
    let got = Bench::new().send("POST", "/oauth2/token", &[("content-type", "application/json")], "{}");
    got.is(400, r#"{"status":400,"message":"missing client id"}"#);
}

#[test]
fn a_code_works_once_for_its_client_and_redirect_uri_and_ten_minutes() {
    let dead = r#"{"status":400,"message":"Invalid authorization code"}"#;
    let mut bench = Bench::new();
    let code = bench.code(&[]);
    let grant = [("grant_type", "authorization_code"), ("code", code.as_str())];
    let other = [("client_id", super::OTHER_CLIENT), ("client_secret", "other-secret")];
    bench.post("/oauth2/token", &[&other[..], &grant].concat()).is(400, dead);
    let mismatch = r#"{"status":400,"message":"Parameter redirect_uri does not match registered URI"}"#;
    bench.token(&grant).is(400, mismatch);
    bench.token(&[&grant[..], &[("redirect_uri", "http://localhost:3000/")]].concat()).is(400, mismatch);
    assert_eq!(bench.exchange(&code).status, 200);
    bench.exchange(&code).is(400, dead);

    let code = bench.code(&[]);
    bench.now_ms += 600_000;
    bench.exchange(&code).is(400, dead);
    let code = bench.code(&[]);
    bench.now_ms += 599_999;
    assert_eq!(bench.exchange(&code).status, 200);
}

#[test]
fn a_public_client_refreshes_without_a_secret() {
    let mut bench = Bench::new();
    let tokens = bench.mock.sign_in(ADA, "public", &[], bench.now_ms).unwrap();
    let form = [
        ("client_id", "public"),
        ("grant_type", "refresh_token"),
        ("refresh_token", tokens.refresh_token.as_str()),
    ];
    assert_eq!(bench.post("/oauth2/token", &form).status, 200);
}

#[test]
fn a_refresh_token_of_another_client_is_invalid() {
    let mut bench = Bench::new();
    let tokens = bench.mock.sign_in(ADA, "public", &[], bench.now_ms).unwrap();
    bench.refresh(&tokens.refresh_token).is(400, r#"{"status":400,"message":"Invalid refresh token"}"#);
}

#[test]
fn without_rotation_the_refresh_token_stays() {
    let mut bench = Bench::with(|settings| settings.rotation = Rotation::None);
    let (_, first) = bench.sign_in("");
    assert_eq!(bench.refresh(&first).tokens().1, first);
    assert_eq!(bench.refresh(&first).tokens().1, first);
    assert_eq!(bench.mock.counters().reused_refresh_tokens, 0);
}

#[test]
fn with_rotation_the_old_refresh_token_still_works() {
    let mut bench = Bench::with(|settings| settings.rotation = Rotation::Rotates);
    let (_, first) = bench.sign_in("");
    let (_, second) = bench.refresh(&first).tokens();
    assert_ne!(first, second);
    assert_eq!(bench.refresh(&first).status, 200);
    assert_eq!(bench.refresh(&second).status, 200);
    assert_eq!(bench.mock.counters().reused_refresh_tokens, 1);
}

#[test]
fn a_one_time_refresh_token_dies_and_its_successor_lives() {
    let mut bench = Bench::with(|settings| settings.rotation = Rotation::OneTime);
    let (access, first) = bench.sign_in("");
    let (_, second) = bench.refresh(&first).tokens();
    bench.refresh(&first).is(400, r#"{"status":400,"message":"Invalid refresh token"}"#);
    let entry = bench.mock.log().next_back().unwrap();
    assert!(entry.reused);
    assert_eq!(entry.user_id.as_deref(), Some(ADA));
    assert_eq!(entry.token.as_ref(), Some(&bench.mock.fingerprint(&first)));
    assert_eq!(bench.refresh(&second).status, 200);
    assert!(bench.is_live(&access));
}

#[test]
fn reuse_can_kill_the_whole_connection_once() {
    let mut bench = Bench::with(|settings| settings.rotation = Rotation::OneTimeKillsConnection);
    let (device_a, first) = bench.sign_in("");
    let (device_b, _) = bench.sign_in("");
    let (_, second) = bench.refresh(&first).tokens();
    assert_eq!(bench.refresh(&first).status, 400);
    assert!(!bench.is_live(&device_a) && !bench.is_live(&device_b));
    assert_eq!(bench.refresh(&second).status, 400);
    assert!(!bench.mock.is_connected(ADA, DEMO_CLIENT_ID));

    let (anew, _) = bench.sign_in("");
    assert_eq!(bench.refresh(&first).status, 400);
    assert!(bench.is_live(&anew), "a token of the old connection cannot harm the new one");
}

#[test]
fn a_refresh_can_kill_the_old_access_token_of_its_own_sign_in() {
    for kills in [false, true] {
        let mut bench = Bench::with(|settings| settings.refresh_kills_old_access_token = kills);
        let (old, refresh) = bench.sign_in("");
        let (other_device, _) = bench.sign_in("");
        let (new, _) = bench.refresh(&refresh).tokens();
        assert_eq!(bench.is_live(&old), !kills);
        assert!(bench.is_live(&new) && bench.is_live(&other_device));
    }
}

#[test]
fn a_refresh_may_narrow_scopes_but_not_widen_them() {
    let mut bench = Bench::new();
    let (_, refresh) = bench.sign_in("chat:read chat:edit");
    let form = |refresh: &str, scope: &'static str| {
        [
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", refresh.to_owned()),
            ("scope", scope.to_owned()),
        ]
    };
    let wide = form(&refresh, "chat:read bits:read");
    let wide: Vec<(&str, &str)> = wide.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = r#"{"status":400,"message":"invalid scope requested: 'chat:read bits:read'"}"#;
    bench.token(&wide).is(400, body);
    let narrow = form(&refresh, "chat:read");
    let narrow: Vec<(&str, &str)> = narrow.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(bench.token(&narrow).json()["scope"], serde_json::json!(["chat:read"]));
}

#[test]
fn token_51_kills_the_oldest_of_that_client_and_user() {
    let mut bench = Bench::new();
    let tokens: Vec<String> = (0..50).map(|_| bench.sign_in("").0).collect();
    let grace = bench.mock.sign_in(GRACE, DEMO_CLIENT_ID, &[], bench.now_ms).unwrap().access_token;
    assert!(bench.is_live(&tokens[0]));
    bench.sign_in("");
    assert!(!bench.is_live(&tokens[0]) && bench.is_live(&tokens[1]) && bench.is_live(&grace));
    assert_eq!(bench.mock.live_access_tokens(ADA), 50);
}

#[test]
fn expired_tokens_do_not_count_towards_the_limit() {
    let mut bench = Bench::with(|settings| settings.live_token_limit = LiveTokenLimit::Refuses(2));
    bench.sign_in("");
    bench.now_ms += 14_000_000;
    bench.sign_in("");
    let (_, refresh) = bench.sign_in("");
    assert_eq!(bench.refresh(&refresh).status, 400);
}

#[test]
fn a_limit_that_refuses_changes_nothing() {
    let full = r#"{"status":400,"message":"too many valid access tokens"}"#;
    let mut bench = Bench::with(|settings| settings.live_token_limit = LiveTokenLimit::Refuses(1));
    let (access, refresh) = bench.sign_in("");
    bench.refresh(&refresh).is(400, full);
    let code = bench.code(&[]);
    bench.exchange(&code).is(400, full);
    bench.mock.settings_mut().refresh_kills_old_access_token = true;
    assert_eq!(bench.refresh(&refresh).status, 200, "the family's own token makes room");
    assert!(!bench.is_live(&access));
    bench.mock.settings_mut().live_token_limit = LiveTokenLimit::Off;
    assert_eq!(bench.exchange(&code).status, 200);
}

#[test]
fn disconnecting_kills_every_token_and_code_between_the_two() {
    let mut bench = Bench::new();
    let (access, refresh) = bench.sign_in("");
    let code = bench.code(&[]);
    let elsewhere = bench.mock.sign_in(ADA, super::OTHER_CLIENT, &[], bench.now_ms).unwrap();
    assert!(bench.get("/settings/connections").body.contains(&format!("disconnect-{ADA}-{DEMO_CLIENT_ID}")));
    let form = [("action", "disconnect"), ("user", ADA), ("client_id", DEMO_CLIENT_ID)];
    assert_eq!(bench.post("/settings/connections", &form).status, 303);
    assert!(!bench.is_live(&access) && bench.is_live(&elsewhere.access_token));
    assert_eq!(bench.refresh(&refresh).status, 400);
    assert_eq!(bench.exchange(&code).status, 400);
    assert!(!bench.mock.is_connected(ADA, DEMO_CLIENT_ID));
}

#[test]
fn expired_access_tokens_leave_the_refresh_token_alive() {
    let mut bench = Bench::new();
    let (access, refresh) = bench.sign_in("");
    assert_eq!(bench.mock.expire_access_tokens(ADA), 1);
    assert!(!bench.is_live(&access));
    assert_eq!(bench.refresh(&refresh).status, 200);
    assert_eq!(bench.mock.kill_tokens(ADA), 2);
    assert_eq!(bench.mock.live_refresh_tokens(ADA), 0);
    assert!(bench.mock.is_connected(ADA, DEMO_CLIENT_ID));
}

#[test]
fn awkward_refresh_tokens_survive_a_proper_form_encoder_only() {
    let mut bench = Bench::with(|settings| settings.awkward_refresh_tokens = true);
    let (_, refresh) = bench.sign_in("");
    let head =
        format!("client_id={DEMO_CLIENT_ID}&client_secret={DEMO_CLIENT_SECRET}&grant_type=refresh_token");
    let raw = bench.send("POST", "/oauth2/token", &[], &format!("{head}&refresh_token={refresh}"));
    assert_eq!(raw.status, 400);
    assert_eq!(bench.refresh(&refresh).status, 200);
}

#[test]
fn pkce_is_checked_only_when_switched_on() {
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let asked = [("code_challenge", challenge), ("code_challenge_method", "S256")];
    for (pkce, presented, status) in
        [(false, "", 200), (true, verifier, 200), (true, "wrong", 400), (true, "", 400)]
    {
        let mut bench = Bench::with(|settings| settings.pkce = pkce);
        let code = bench.code(&asked);
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", DEMO_REDIRECT_URI),
            ("code_verifier", presented),
        ];
        assert_eq!(bench.token(&form).status, status, "pkce {pkce}, verifier {presented:?}");
    }
}

#[test]
fn calls_are_counted_by_endpoint_and_grant_type() {
    let mut bench = Bench::new();
    let (_, refresh) = bench.sign_in("");
    bench.refresh(&refresh);
    let mock: &MockTwitch = &bench.mock;
    assert_eq!(mock.calls(Endpoint::Token), 2);
    assert_eq!(mock.token_calls("refresh_token"), 1);
    assert_eq!(mock.token_calls("authorization_code"), 1);
    let grants: Vec<_> = mock.log().filter_map(|entry| entry.grant_type.as_deref()).collect();
    assert_eq!(grants, ["authorization_code", "refresh_token"]);
}
