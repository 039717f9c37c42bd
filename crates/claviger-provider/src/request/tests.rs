use claviger_core::{ClientSecret, Custody};
use proptest::prelude::*;

use super::*;
use crate::{
    capabilities::{RefreshTokens, Revocation},
    provider::Provider,
    twitch::tests::twitch,
};

fn provider() -> Provider {
    let mut provider = twitch("id&1", "s3%/=+ ä");
    provider.client.redirect_uri = "http://localhost:3000/callback?a=b".to_owned();
    provider.client.scopes = vec!["user:read:email".into(), "chat:read".into()];
    provider
}

fn client() -> Client {
    provider().client
}

fn with_pkce() -> Client {
    let mut client = client();
    client.dialect.pkce = true;
    client
}

fn revoking(change: impl FnOnce(&mut Revocation)) -> Provider {
    let mut provider = provider();
    change(provider.capabilities.revocation.as_mut().unwrap());
    provider
}

/// A request as lines: method and address, headers in order of name, body.
fn shown(request: &Request<Bytes>) -> String {
    let mut headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    let body = std::str::from_utf8(request.body()).unwrap();
    format!("{} {}\n{}\n\n{body}", request.method(), request.uri(), headers.join("\n"))
}

fn check(request: &Request<Bytes>, expected: &str) {
    assert_eq!(shown(request), expected);
}

#[test]
fn a_code_is_exchanged_with_the_redirect_uri_of_its_own_request() {
    let request = client().exchange_code(
        &AuthorizationCode::new("c%/=+&"),
        &CodeVerifier::new("v"),
        "https://old.example/cb",
    );
    check(
        &request,
        "POST https://id.twitch.tv/oauth2/token\n\
         accept: application/json\n\
         content-type: application/x-www-form-urlencoded\n\n\
         client_id=id%261&client_secret=s3%25%2F%3D%2B+%C3%A4&code=c%25%2F%3D%2B%26&grant_type=authorization_code\
         &redirect_uri=https%3A%2F%2Fold.example%2Fcb",
    );
}

#[test]
fn the_verifier_goes_with_the_code_where_pkce_is_understood() {
    let code = AuthorizationCode::new("c");
    let request = with_pkce().exchange_code(&code, &CodeVerifier::new("v~._-1"), "https://a/");
    let body = std::str::from_utf8(request.body()).unwrap();
    assert!(body.ends_with("&redirect_uri=https%3A%2F%2Fa%2F&code_verifier=v%7E._-1"), "{body}");
}

#[test]
fn a_refresh_token_stands_in_the_body_only() {
    check(
        &client().refresh(&RefreshToken::new("r%/=+")),
        "POST https://id.twitch.tv/oauth2/token\n\
         accept: application/json\n\
         content-type: application/x-www-form-urlencoded\n\n\
         client_id=id%261&client_secret=s3%25%2F%3D%2B+%C3%A4&grant_type=refresh_token&refresh_token=r%25%2F%3D%2B",
    );
}

/// The address and the fields of a revocation.
fn shown_fields(request: Option<Request<Bytes>>) -> Option<String> {
    let request = request?;
    assert_eq!(request.headers()[CONTENT_TYPE], "application/x-www-form-urlencoded");
    Some(format!("{} {}", request.uri(), std::str::from_utf8(request.body()).unwrap()))
}

#[test]
fn a_revocation_brings_what_the_provider_takes() {
    let token = AccessToken::new("a%/=+");
    let at = "https://id.twitch.tv/oauth2/revoke client_id=id%261";
    let bare = shown_fields(provider().revoke(&token));
    assert_eq!(bare, Some(format!("{at}&token=a%25%2F%3D%2B")));
    let with_secret = revoking(|revocation| revocation.with_secret = true);
    let secret = "client_secret=s3%25%2F%3D%2B+%C3%A4";
    assert_eq!(shown_fields(with_secret.revoke(&token)), Some(format!("{at}&{secret}&token=a%25%2F%3D%2B")));
    let both = revoking(|revocation| revocation.refresh_tokens = RefreshTokens::All);
    assert_eq!(
        shown_fields(both.revoke_refresh(&RefreshToken::new("r%"))),
        Some(format!("{at}&{secret}&token=r%25&token_type_hint=refresh_token"))
    );
}

#[test]
fn what_the_provider_does_not_revoke_is_not_asked_for() {
    let (access, refresh) = (AccessToken::new("a"), RefreshToken::new("r"));
    let unwanted = revoking(|revocation| revocation.refresh_tokens = RefreshTokens::None);
    assert!(unwanted.revoke_refresh(&refresh).is_none());
    let mut none = revoking(|revocation| revocation.refresh_tokens = RefreshTokens::All);
    assert!(none.revokes_refresh_tokens(Custody::Device));
    none.capabilities.revocation = None;
    assert!(none.revoke(&access).is_none() && none.revoke_refresh(&refresh).is_none());
    assert!(!none.revokes_refresh_tokens(Custody::None));
    let kept = [Custody::Device, Custody::Server, Custody::None];
    let of_twitch = kept.map(|custody| provider().revokes_refresh_tokens(custody));
    assert_eq!(of_twitch, [false, false, true], "BLAST: no other device may need the token");
    assert_eq!(kept.map(|custody| unwanted.revokes_refresh_tokens(custody)), [false; 3]);
}

#[test]
fn a_browser_is_sent_with_what_the_provider_asks_for() {
    let verifier = CodeVerifier::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    let login = LoginRequest { state: "s&=+", verifier: &verifier, ask_again: false };
    let plain = "https://id.twitch.tv/oauth2/authorize?client_id=id%261\
                 &redirect_uri=http%3A%2F%2Flocalhost%3A3000%2Fcallback%3Fa%3Db&response_type=code\
                 &scope=user%3Aread%3Aemail+chat%3Aread&state=s%26%3D%2B";
    assert_eq!(client().authorize_url(&login).as_str(), format!("{plain}#"));
    let forced = LoginRequest { ask_again: true, ..login };
    assert_eq!(client().authorize_url(&forced).as_str(), format!("{plain}&force_verify=true#"));
    // The example of RFC 7636, appendix B.
    assert_eq!(
        with_pkce().authorize_url(&login).as_str(),
        format!(
            "{plain}&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256#"
        )
    );
}

#[test]
fn scope_is_sent_even_without_scopes_and_a_query_of_the_endpoint_stays() {
    let mut client = Client { scopes: vec![], ..client() };
    client.endpoints.authorize.set_query(Some("a=b"));
    let verifier = CodeVerifier::new("v");
    let url = client.authorize_url(&LoginRequest { state: "s", verifier: &verifier, ask_again: false });
    assert!(url.as_str().starts_with("https://id.twitch.tv/oauth2/authorize?a=b&client_id="), "{url}");
    assert!(url.as_str().ends_with("&response_type=code&scope=&state=s#"), "{url}");
}

proptest! {
    #[test]
    fn every_address_can_be_asked(path in "\\PC{0,60}", query in proptest::option::of("\\PC{0,60}")) {
        let mut url = Url::parse("https://id.example/").unwrap();
        url.set_path(&path);
        url.set_query(query.as_deref());
        prop_assert_eq!(uri(&url).to_string(), url.as_str());
    }

    #[test]
    fn no_secret_stands_in_an_address(secret in "[A-Za-z0-9]{20,40}") {
        let mut provider = provider();
        provider.client.secret = ClientSecret::new(secret.clone());
        let (access, refresh) = (AccessToken::new(secret.clone()), RefreshToken::new(secret.clone()));
        let (code, verifier) = (AuthorizationCode::new(secret.clone()), CodeVerifier::new(secret.clone()));
        let login = LoginRequest { state: "s", verifier: &verifier, ask_again: false };
        let requests = [
            provider.client.exchange_code(&code, &verifier, "https://a/"),
            provider.client.refresh(&refresh),
            provider.identity.request(&provider.client, &access),
            provider.revoke(&access).unwrap(),
        ];
        for request in requests {
            prop_assert!(!request.uri().to_string().contains(&secret));
        }
        prop_assert!(!provider.client.authorize_url(&login).as_str().contains(&secret));
    }

    #[test]
    fn a_form_reads_back_what_was_put_in(token in "[!-~]{1,100}") {
        let request = client().refresh(&RefreshToken::new(token.clone()));
        let fields: Vec<_> = form_urlencoded::parse(request.body()).collect();
        prop_assert_eq!(fields[3].1.as_ref(), token.as_str());
        prop_assert_eq!(fields.len(), 4);
    }
}
