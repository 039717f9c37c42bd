//! OpenID Connect.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::{ADA, Bench, Got, NOW};
use crate::DEMO_CLIENT_ID;

fn claims(bench: &mut Bench, token_answer: &Got) -> Value {
    let keys: JwkSet = serde_json::from_str(&bench.get("/oauth2/keys").body).unwrap();
    let id_token = token_answer.json()["id_token"].as_str().unwrap().to_owned();
    let header = jsonwebtoken::decode_header(&id_token).unwrap();
    let key = keys.find(header.kid.as_deref().unwrap()).unwrap();
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&[DEMO_CLIENT_ID]);
    rules.set_issuer(&["http://mock.test/oauth2"]);
    rules.validate_exp = false;
    jsonwebtoken::decode(&id_token, &DecodingKey::from_jwk(key).unwrap(), &rules).unwrap().claims
}

#[test]
fn an_id_token_carries_the_nonce_and_the_claims_asked_for() {
    let mut bench = Bench::new();
    let asked = r#"{"id_token":{"email":null,"preferred_username":null},"userinfo":{"picture":null}}"#;
    let more = [("scope", "openid user:read:email"), ("nonce", "n-1"), ("claims", asked)];
    let code = bench.code(&more);
    let got = bench.exchange(&code);
    assert_eq!(got.json()["nonce"], "n-1");
    let expected = json!({
        "aud": DEMO_CLIENT_ID, "azp": DEMO_CLIENT_ID, "exp": NOW / 1_000 + 900, "iat": NOW / 1_000,
        "iss": "http://mock.test/oauth2", "sub": ADA, "nonce": "n-1",
        "email": "ada_builds@example.test", "preferred_username": "Ada_Builds",
    });
    assert_eq!(claims(&mut bench, &got), expected);

    let (access, refresh) = got.tokens();
    let info =
        bench.send("GET", "/oauth2/userinfo", &[("authorization", &format!("Bearer {access}"))], "").json();
    assert_eq!(info["sub"], ADA);
    assert!(info["picture"].is_string() && info.get("email").is_none());
    assert!(bench.refresh(&refresh).json().get("id_token").is_none());
}

#[test]
fn without_openid_there_is_no_id_token_and_no_userinfo() {
    let mut bench = Bench::new();
    let code = bench.code(&[("nonce", "n-1")]);
    let got = bench.exchange(&code);
    assert!(got.json().get("id_token").is_none());
    let authorization = format!("Bearer {}", got.tokens().0);
    assert_eq!(bench.send("GET", "/oauth2/userinfo", &[("authorization", &authorization)], "").status, 401);
}

#[test]
fn a_rotated_key_has_another_id() {
    let mut bench = Bench::new();
    let before = bench.get("/oauth2/keys").json();
    assert_eq!(bench.get("/oauth2/keys").json(), before);
    bench.mock.rotate_signing_key();
    let after = bench.get("/oauth2/keys").json();
    assert_ne!(after["keys"][0]["kid"], before["keys"][0]["kid"]);
    assert_ne!(after["keys"][0]["n"], before["keys"][0]["n"]);
}

#[test]
fn discovery_names_neither_revocation_nor_pkce() {
    let mut bench = Bench::new();
    let document = bench.get("/oauth2/.well-known/openid-configuration").json();
    assert_eq!(document["issuer"], "http://mock.test/oauth2");
    assert_eq!(document["token_endpoint"], "http://mock.test/oauth2/token");
    assert_eq!(document["token_endpoint_auth_methods_supported"], json!(["client_secret_post"]));
    assert!(document.get("revocation_endpoint").is_none());
    assert!(document.get("code_challenge_methods_supported").is_none());
}
