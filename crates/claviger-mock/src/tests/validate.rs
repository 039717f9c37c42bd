//! `/oauth2/validate` and `/oauth2/revoke`.

use super::{ADA, Bench, OTHER_CLIENT};
use crate::DEMO_CLIENT_ID;

#[test]
fn a_live_token_is_described_under_either_scheme_in_any_case() {
    for scheme in ["OAuth", "oauth", "Bearer", "bEARER"] {
        let mut bench = Bench::new();
        let (access, _) = bench.sign_in("chat:read");
        bench.now_ms += 1_500;
        let got =
            bench.send("GET", "/oauth2/validate", &[("authorization", &format!("{scheme} {access}"))], "");
        let body = format!(
            r#"{{"client_id":"{DEMO_CLIENT_ID}","login":"ada_builds","scopes":["chat:read"],"user_id":"{ADA}","expires_in":13998}}"#
        );
        got.is(200, &body);
    }
}

#[test]
fn scopes_are_null_for_a_user_token_without_and_empty_for_an_app_token() {
    let mut bench = Bench::new();
    let (access, _) = bench.sign_in("");
    let body = format!(
        r#"{{"client_id":"{DEMO_CLIENT_ID}","login":"ada_builds","scopes":null,"user_id":"{ADA}","expires_in":14000}}"#
    );
    bench.validate(&access).is(200, &body);
    let app = bench.app_token();
    let body = format!(r#"{{"client_id":"{DEMO_CLIENT_ID}","scopes":[],"expires_in":5011271}}"#);
    bench.validate(&app).is(200, &body);
}

#[test]
fn missing_and_dead_tokens_get_different_answers() {
    let mut bench = Bench::new();
    bench.get("/oauth2/validate").is(401, r#"{"status":401,"message":"missing authorization token"}"#);
    let dead = r#"{"status":401,"message":"invalid access token"}"#;
    bench.validate("never-was").is(401, dead);
    let (access, refresh) = bench.sign_in("");
    bench.validate(&refresh).is(401, dead);
    bench.now_ms += 13_999_999;
    assert!(bench.is_live(&access));
    bench.now_ms += 1;
    bench.validate(&access).is(401, dead);
    let (access, _) = bench.sign_in("");
    bench.mock.delete_user(ADA);
    bench.validate(&access).is(401, dead);
}

#[test]
fn revoking_answers_as_twitch_does() {
    let mut bench = Bench::new();
    let (access, refresh) = bench.sign_in("");
    let mut revoke = |form: &[(&str, &str)]| bench.post("/oauth2/revoke", form);
    let invalid = r#"{"status":400,"message":"Invalid token"}"#;
    revoke(&[]).is(400, r#"{"status":400,"message":"missing client id"}"#);
    let nobody = r#"{"status":404,"message":"client does not exist"}"#;
    revoke(&[("client_id", "nobody"), ("token", &access)]).is(404, nobody);
    revoke(&[("client_id", DEMO_CLIENT_ID)]).is(400, r#"{"status":400,"message":"missing oauth token"}"#);
    revoke(&[("client_id", OTHER_CLIENT), ("token", &access)]).is(400, invalid);
    revoke(&[("client_id", DEMO_CLIENT_ID), ("token", &refresh)]).is(400, invalid);
    revoke(&[("client_id", DEMO_CLIENT_ID), ("token", &access)]).is(200, "");
    revoke(&[("client_id", DEMO_CLIENT_ID), ("token", &access)]).is(400, invalid);
    assert!(!bench.is_live(&access));
    assert_eq!(bench.refresh(&refresh).status, 200, "the refresh token survives");
}
