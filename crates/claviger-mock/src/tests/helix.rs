//! `/helix/`.

use serde_json::json;

use super::{ADA, Bench, GRACE, Got, NOW};
use crate::DEMO_CLIENT_ID;

fn helix(bench: &mut Bench, path: &str, token: &str) -> Got {
    let authorization = format!("Bearer {token}");
    bench.send("GET", path, &[("authorization", &authorization), ("client-id", DEMO_CLIENT_ID)], "")
}

#[test]
fn a_refusal_names_the_token_or_the_client_id() {
    let mut bench = Bench::new();
    let (access, _) = bench.sign_in("");
    let bearer = format!("Bearer {access}");
    let oauth = format!("OAuth {access}");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("client-id", DEMO_CLIENT_ID)], "OAuth token is missing"),
        (&[("client-id", DEMO_CLIENT_ID), ("authorization", &oauth)], "OAuth token is missing"),
        (&[("authorization", &bearer)], "Client ID is missing"),
        (&[("client-id", DEMO_CLIENT_ID), ("authorization", "Bearer dead")], "Invalid OAuth token"),
        (&[("client-id", "other"), ("authorization", &bearer)], "Client ID and OAuth token do not match"),
    ];
    for (headers, message) in cases {
        let body = format!(r#"{{"error":"Unauthorized","status":401,"message":"{message}"}}"#);
        bench.send("GET", "/helix/users", headers, "").is(401, &body);
    }
    helix(&mut bench, "/helix/subscriptions", &access).is(
        401,
        r#"{"error":"Unauthorized","status":401,"message":"Missing scope: channel:read:subscriptions or channel_subscriptions"}"#,
    );
    let (access, _) = bench.sign_in("channel:read:subscriptions");
    assert_eq!(helix(&mut bench, "/helix/subscriptions", &access).status, 200);
}

#[test]
fn users_are_the_tokens_own_or_those_asked_for_and_only_ones_own_address_shows() {
    let mut bench = Bench::new();
    let (plain, _) = bench.sign_in("");
    let (with_email, _) = bench.sign_in("user:read:email");
    let own = helix(&mut bench, "/helix/users", &plain).json();
    assert_eq!(own["data"][0]["id"], ADA);
    assert!(own["data"][0].get("email").is_none());
    let path = format!("/helix/users?id={ADA}&login=GRACE_plays&id=404");
    let both = helix(&mut bench, &path, &with_email).json();
    assert_eq!(both["data"].as_array().unwrap().len(), 2);
    assert_eq!(both["data"][0]["email"], "ada_builds@example.test");
    assert!(both["data"][1].get("email").is_none());
    let app = bench.app_token();
    assert_eq!(helix(&mut bench, "/helix/users", &app).status, 400);
    let many: String = (0..101).map(|id| format!("id={id}&")).collect();
    assert_eq!(helix(&mut bench, &format!("/helix/users?{many}"), &app).status, 400);
}

#[test]
fn authorizations_tell_who_is_connected_to_an_app_token_of_at_most_ten_ids() {
    let mut bench = Bench::new();
    let (user_token, _) = bench.sign_in("chat:read");
    let app = bench.app_token();
    let path = format!("/helix/authorization/users?user_id={ADA}&user_id={GRACE}&user_id=404");
    let expected = json!({"data": [
        {"user_id": ADA, "user_name": "Ada_Builds", "user_login": "ada_builds", "scopes": ["chat:read"], "has_authorized": true},
        {"user_id": GRACE, "user_name": "Grace_Plays", "user_login": "grace_plays", "scopes": [], "has_authorized": false},
    ]});
    assert_eq!(helix(&mut bench, &path, &app).json(), expected);
    assert_eq!(helix(&mut bench, &path, &user_token).status, 401);
    assert_eq!(helix(&mut bench, "/helix/authorization/users", &app).status, 400);
    let eleven: String = (0..11).map(|id| format!("user_id={id}&")).collect();
    assert_eq!(helix(&mut bench, &format!("/helix/authorization/users?{eleven}"), &app).status, 400);
    bench.mock.disconnect(ADA, DEMO_CLIENT_ID);
    assert_eq!(helix(&mut bench, &path, &app).json()["data"][0]["has_authorized"], false);
}

#[test]
fn the_bucket_of_a_client_and_user_empties_and_fills_again() {
    let mut bench = Bench::with(|settings| settings.helix_points_per_minute = 2);
    let (ada, _) = bench.sign_in("");
    let grace = bench.mock.sign_in(GRACE, DEMO_CLIENT_ID, &[], NOW).unwrap().access_token;
    let level = |got: &Got| {
        let number = |name: &str| got.header(name).unwrap().parse::<i64>().unwrap();
        (number("ratelimit-limit"), number("ratelimit-remaining"), number("ratelimit-reset") - NOW / 1_000)
    };
    let got = helix(&mut bench, "/helix/users", &ada);
    assert_eq!((got.status, level(&got)), (200, (2, 1, 30)));
    let got = helix(&mut bench, "/helix/users", &ada);
    assert_eq!((got.status, level(&got)), (200, (2, 0, 60)));
    let got = helix(&mut bench, "/helix/users", &ada);
    assert_eq!((got.status, level(&got)), (429, (2, 0, 60)));
    assert_eq!(helix(&mut bench, "/helix/users", &grace).status, 200);
    bench.now_ms += 30_000;
    assert_eq!(helix(&mut bench, "/helix/users", &ada).status, 200);
    assert_eq!(helix(&mut bench, "/helix/users", &ada).status, 429);
}
