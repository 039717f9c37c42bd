//! OpenID Connect: discovery, keys, id_token and userinfo (Twitch docs: OIDC authorization code
//! grant flow).

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::exchange::{self, Answer, Call, Refusal};
use crate::limits;
use crate::mock::MockTwitch;
use crate::state::SignIn;

impl MockTwitch {
    /// The issuer: the public address of the mock, with `/oauth2`.
    pub(crate) fn issuer(&self, call: &Call<'_>) -> String {
        format!("{}/oauth2", self.base_url(call))
    }

    /// Answers the discovery document. As at Twitch, it names no revocation endpoint and no PKCE.
    pub(crate) fn openid_configuration(&self, call: &Call<'_>) -> Answer {
        if !call.is_get() {
            return exchange::not_found();
        }
        let issuer = self.issuer(call);
        let mut document = json!({
            "authorization_endpoint": format!("{issuer}/authorize"),
            "claims_parameter_supported": true,
            "claims_supported": ["email", "email_verified", "picture", "preferred_username", "updated_at", "aud",
                "azp", "exp", "iat", "iss", "sub"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/keys"),
            "response_types_supported": ["id_token", "code", "token", "code id_token", "token id_token"],
            "scopes_supported": ["openid"],
            "subject_types_supported": ["public"],
            "token_endpoint": format!("{issuer}/token"),
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "userinfo_endpoint": format!("{issuer}/userinfo"),
        });
        if let Some(document) = document.as_object_mut() {
            if self.settings.pkce {
                document.insert("code_challenge_methods_supported".to_owned(), json!(["S256"]));
            }
            if self.settings.callback_iss {
                document.insert("authorization_response_iss_parameter_supported".to_owned(), json!(true));
            }
        }
        exchange::json(StatusCode::OK, &document)
    }

    /// Answers the public key.
    pub(crate) fn keys(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        if !call.is_get() {
            return Ok(exchange::not_found());
        }
        let keys = self.signing.key_set().map_err(|_| signing_failed())?;
        Ok(exchange::json(StatusCode::OK, &keys))
    }

    /// Answers the claims of the token's user: the default ones and those asked for in
    /// `claims.userinfo`.
    pub(crate) fn userinfo(&self, call: &mut Call<'_>) -> Result<Answer, Refusal> {
        if !call.is_get() {
            return Ok(exchange::not_found());
        }
        let unauthorized = |message: &str| Refusal::new(StatusCode::UNAUTHORIZED, message);
        let presented = call
            .authorization(&["oauth", "bearer"])
            .ok_or_else(|| unauthorized("missing authorization token"))?;
        call.note.token = Some(self.fingerprint(presented));
        let token = self.live_token(presented, call).ok_or_else(|| unauthorized("invalid access token"))?;
        if !token.sign_in.scopes.iter().any(|scope| scope == "openid") {
            return Err(unauthorized("missing scope: openid"));
        }
        let sign_in = &token.sign_in;
        let mut claims = self.standard_claims(call, sign_in);
        claims.insert("exp".to_owned(), json!(token.expires_at_ms / 1_000));
        self.add_user_claims(&mut claims, sign_in, &sign_in.oidc.userinfo_claims);
        Ok(exchange::json(StatusCode::OK, &claims))
    }

    pub(crate) fn id_token(&mut self, call: &Call<'_>, sign_in: &SignIn) -> Result<String, Refusal> {
        let mut claims = self.standard_claims(call, sign_in);
        claims.insert("azp".to_owned(), json!(sign_in.pair.client_id));
        if let Some(nonce) = &sign_in.oidc.nonce {
            claims.insert("nonce".to_owned(), json!(nonce));
        }
        self.add_user_claims(&mut claims, sign_in, &sign_in.oidc.id_token_claims);
        self.signing.sign(&claims).map_err(|_| signing_failed())
    }

    fn standard_claims(&self, call: &Call<'_>, sign_in: &SignIn) -> Map<String, Value> {
        let issued_at = call.now_ms / 1_000;
        let claims = [
            ("aud", json!(sign_in.pair.client_id)),
            ("exp", json!(issued_at.saturating_add(limits::ID_TOKEN_SECS))),
            ("iat", json!(issued_at)),
            ("iss", json!(self.issuer(call))),
            ("sub", json!(sign_in.pair.user_id)),
        ];
        claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Adds the claims asked for; the e-mail address needs its scope and is null unless verified.
    fn add_user_claims(&self, claims: &mut Map<String, Value>, sign_in: &SignIn, asked: &BTreeSet<String>) {
        let Some(user) = sign_in.pair.user_id.as_ref().and_then(|id| self.users.get(id)) else {
            return;
        };
        let may_read_email = sign_in.scopes.iter().any(|scope| scope == "user:read:email");
        let email = user.email.as_ref().filter(|_| may_read_email);
        for name in asked {
            let value = match name.as_str() {
                "email" => json!(email),
                "email_verified" => json!(email.is_some()),
                "picture" => json!(user.picture()),
                "preferred_username" => json!(user.display_name),
                "updated_at" => json!("2020-01-01T00:00:00Z"),
                _ => continue,
            };
            claims.insert(name.clone(), value);
        }
    }
}

fn signing_failed() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the mock could not sign")
}
