//! Users who are renamed or suspended, and grants of a part of the scopes.

use serde_json::json;

use super::{ADA, Bench, DEMO_REDIRECT_URI};
use crate::{DEMO_CLIENT_ID, UserPatch};

#[test]
fn a_renamed_user_has_the_new_name_in_every_answer() {
    let mut bench = Bench::new();
    let (access, _) = bench.sign_in("");
    let json = [("content-type", "application/json")];
    let path = format!("/mock/users/{ADA}");
    let got = bench.send("PATCH", &path, &json, r#"{"login":"ada_new","display_name":"Ada_New"}"#);
    assert_eq!((got.status, got.json()["display_name"].clone()), (200, json!("Ada_New")));
    assert_eq!(bench.validate(&access).json()["login"], "ada_new");
    assert_eq!(bench.send("PATCH", &path, &json, r#"{"name":"x"}"#).status, 400);
}

#[test]
fn a_suspended_user_has_no_live_token_and_cannot_sign_in_until_it_ends() {
    let mut bench = Bench::new();
    let (access, refresh) = bench.sign_in("");
    let waiting = bench.code(&[]);
    bench.mock.patch_user(ADA, &UserPatch::suspend(true)).unwrap();
    assert!(!bench.is_live(&access));
    assert_eq!(bench.refresh(&refresh).status, 400);
    assert_eq!(bench.exchange(&waiting).status, 400);
    let refused = bench.decide(ADA, "authorize", &[]);
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("suspended"));
    let bearer = format!("Bearer {}", bench.app_token());
    let headers = [("authorization", bearer.as_str()), ("client-id", DEMO_CLIENT_ID)];
    let asked = format!("/helix/authorization/users?user_id={ADA}");
    assert_eq!(bench.send("GET", &asked, &headers, "").json()["data"], json!([]));
    bench.mock.patch_user(ADA, &UserPatch::suspend(false)).unwrap();
    bench.sign_in("");
    assert_eq!(bench.send("GET", &asked, &headers, "").json()["data"][0]["has_authorized"], true);
}

#[test]
fn a_user_may_grant_a_part_of_the_scopes_where_a_setting_says_so() {
    let asked = ("scope", "user:read:email bits:read");
    let granted = ("grant bits:read", "on");
    let mut bench = Bench::with(|settings| settings.partial_grants = true);
    let page = bench.get(&format!(
        "/oauth2/authorize?client_id={DEMO_CLIENT_ID}&redirect_uri={DEMO_REDIRECT_URI}&response_type=code&scope=bits:read"
    ));
    assert!(page.body.contains(r#"name="grant bits:read" checked"#));
    let code = bench.decide(ADA, "authorize", &[asked, granted]);
    assert_eq!(code.callback("scope").as_deref(), Some("bits:read"));
    let code = code.callback("code").unwrap();
    assert_eq!(bench.exchange(&code).json()["scope"], json!(["bits:read"]));
    let all = Bench::new().decide(ADA, "authorize", &[asked, granted]);
    assert_eq!(all.callback("scope").as_deref(), Some("user:read:email bits:read"));
}

#[test]
fn a_callback_is_shown_as_a_link_where_a_setting_says_so() {
    let mut bench = Bench::with(|settings| settings.callback_by_hand = true);
    let got = bench.decide(ADA, "authorize", &[("state", "a&b")]);
    assert_eq!((got.status, got.header("location")), (200, None));
    let link = format!("href=\"{DEMO_REDIRECT_URI}?code=");
    assert_eq!(got.body.matches(&link).count(), 2, "{}", got.body);
    assert!(got.body.contains("state=a%26b"));
}
