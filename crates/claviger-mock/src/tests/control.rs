//! The control API.

use serde_json::{Value, json};

use super::{ADA, Bench, Got};
use crate::{DEMO_CLIENT_ID, Rotation};

fn order(bench: &mut Bench, method: &str, path: &str, body: &Value) -> Got {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    bench.send(method, path, &[("content-type", "application/json")], &body)
}

#[test]
fn settings_are_patched_by_field_and_invalid_patches_change_nothing() {
    let mut bench = Bench::new();
    let patch = json!({"token_lifetime_secs": 5, "rotation": "one_time_kills_connection", "live_token_limit": {"refuses": 3}});
    assert_eq!(order(&mut bench, "PATCH", "/mock/settings", &patch).status, 200);
    assert_eq!(bench.mock.settings().token_lifetime_secs, 5);
    assert_eq!(bench.mock.settings().rotation, Rotation::OneTimeKillsConnection);
    assert_eq!(bench.get("/mock/settings").json()["live_token_limit"], json!({"refuses": 3}));
    for nonsense in [
        json!({"no_such": 1}),
        json!({"token_lifetime_secs": -1}),
        json!({"live_token_limit": {"refuses": 0}}),
        json!([]),
    ] {
        assert_eq!(order(&mut bench, "PATCH", "/mock/settings", &nonsense).status, 400, "{nonsense}");
    }
    assert_eq!(bench.mock.settings().token_lifetime_secs, 5);
}

#[test]
fn faults_are_added_listed_and_cleared() {
    let mut bench = Bench::new();
    for fault in [
        json!({"endpoint": "token", "grant_type": "refresh_token", "calls": 2, "kind": "close_after"}),
        json!({"endpoint": "validate", "kind": "status", "status": 429, "retry_after": {"seconds": 5}}),
        json!({"endpoint": "validate", "kind": "delay", "delay_ms": 5}),
        json!({"endpoint": "keys", "kind": "malformed", "body": "truncated", "skip": 1}),
    ] {
        assert_eq!(order(&mut bench, "POST", "/mock/faults", &fault).status, 201, "{fault}");
    }
    assert_eq!(bench.get("/mock/faults").json()["faults"].as_array().unwrap().len(), 4);
    assert_eq!(bench.validate("any").header("retry-after"), Some("5"));
    assert_eq!(order(&mut bench, "DELETE", "/mock/faults", &Value::Null).status, 204);
    assert_eq!(bench.validate("any").status, 401);
    let bad = json!({"endpoint": "token", "kind": "status", "status": 199});
    assert_eq!(order(&mut bench, "POST", "/mock/faults", &bad).status, 400);
}

#[test]
fn clients_and_users_can_be_added_and_secrets_show_once() {
    let mut bench = Bench::new();
    let new = json!({"name": "Mine", "redirect_uris": ["https://mine.example/cb"]});
    let made = order(&mut bench, "POST", "/mock/clients", &new).json();
    let secret = made["client_secret"].as_str().unwrap();
    assert!(!bench.get("/mock/clients").body.contains(secret));
    let form = [
        ("client_id", made["client_id"].as_str().unwrap()),
        ("client_secret", secret),
        ("grant_type", "client_credentials"),
    ];
    assert_eq!(bench.post("/oauth2/token", &form).status, 200);
    let bad = json!({"redirect_uris": ["not an address"]});
    assert_eq!(order(&mut bench, "POST", "/mock/clients", &bad).status, 400);
    let user = json!({"id": "42", "login": "zoe"});
    assert_eq!(order(&mut bench, "POST", "/mock/users", &user).json()["display_name"], "zoe");
    assert!(bench.get("/").body.contains("zoe"));
    assert_eq!(order(&mut bench, "DELETE", "/mock/users/42", &Value::Null).status, 204);
    assert_eq!(order(&mut bench, "DELETE", "/mock/users/42", &Value::Null).status, 404);
}

#[test]
fn tokens_are_listed_by_fingerprint_and_killed_one_by_one_or_together() {
    let mut bench = Bench::new();
    let (access, refresh) = bench.sign_in("");
    let listed = bench.get("/mock/tokens");
    assert!(!listed.body.contains(&access) && !listed.body.contains(&refresh));
    assert_eq!(listed.json()["tokens"].as_array().unwrap().len(), 2);
    let kill = json!({"fingerprint": bench.mock.fingerprint(&access)});
    order(&mut bench, "POST", "/mock/tokens/kill", &kill).is(200, r#"{"killed":true}"#);
    assert!(!bench.is_live(&access));
    order(&mut bench, "POST", "/mock/tokens/kill", &json!({"token": refresh})).is(200, r#"{"killed":true}"#);
    assert_eq!(bench.refresh(&refresh).status, 400);

    bench.sign_in("");
    let path = |order: &str| format!("/mock/users/{ADA}/{order}");
    order(&mut bench, "POST", &path("expire-access-tokens"), &Value::Null).is(200, r#"{"expired":1}"#);
    order(&mut bench, "POST", &path("kill-tokens"), &Value::Null).is(200, r#"{"killed":1}"#);
    let disconnected = json!({"disconnected": [DEMO_CLIENT_ID]});
    assert_eq!(order(&mut bench, "POST", &path("disconnect"), &Value::Null).json(), disconnected);
}

#[test]
fn the_log_can_be_filtered_and_cleared_while_totals_stay_until_reset() {
    let mut bench = Bench::new();
    bench.sign_in("");
    let entries = bench.get("/mock/log?endpoint=token&grant_type=authorization_code").json();
    assert_eq!(entries["log"].as_array().unwrap().len(), 1);
    assert_eq!(entries["log"][0]["outcome"], json!({"answered": 200}));
    assert_eq!(bench.get("/mock/log?after=2").json()["log"], json!([]));
    assert_eq!(order(&mut bench, "DELETE", "/mock/log", &Value::Null).status, 204);
    assert_eq!(bench.get("/mock/log").json()["log"], json!([]));
    assert_eq!(bench.get("/mock/counters").json()["endpoints"]["token"], 1);
    bench.mock.settings_mut().pkce = true;
    assert_eq!(order(&mut bench, "POST", "/mock/reset", &Value::Null).status, 204);
    assert_eq!(bench.get("/mock/counters").json()["endpoints"], json!({}));
    assert!(!bench.mock.settings().pkce);
}

#[test]
fn requests_from_other_sites_are_refused() {
    let mut bench = Bench::new();
    for (header, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        assert_eq!(
            bench.send("POST", "/mock/reset", &[(header, value)], "").status,
            403,
            "{header}: {value}"
        );
    }
    assert_eq!(bench.send("POST", "/mock/reset", &[("origin", "http://mock.test")], "").status, 204);
}

#[test]
fn the_overview_shows_no_token_and_no_secret() {
    let mut bench = Bench::new();
    let (access, refresh) = bench.sign_in("");
    bench.refresh(&refresh);
    let page = bench.get("/").body;
    assert!(page.contains("refresh_token") && page.contains(DEMO_CLIENT_ID));
    assert!(!page.contains(&access) && !page.contains(&refresh) && !page.contains(crate::DEMO_CLIENT_SECRET));
    assert_eq!(bench.get("/mock/style.css").header("content-type"), Some("text/css; charset=utf-8"));
}
