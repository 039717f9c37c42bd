//! `/oauth2/token`: codes, refreshes and app tokens (Twitch docs: getting tokens, refreshing access
//! tokens).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::Rotation;
use crate::exchange::{self, Answer, Call, Params, Refusal};
use crate::mock::MockTwitch;
use crate::oauth::authorize::split_scopes;
use crate::state::{AccessToken, Code, OidcRequest, Pair, SignIn};

/// The 200 body; `scope` is an array, and absent where no scope was asked (twitchdev/issues#164,
/// #1037).
#[derive(Serialize)]
struct TokenBody {
    access_token: String,
    expires_in: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scope: Vec<String>,
    token_type: &'static str,
}

/// The grant type as the log names it.
pub(crate) fn grant_type_name(grant_type: &str) -> &'static str {
    match grant_type {
        "authorization_code" => "authorization_code",
        "refresh_token" => "refresh_token",
        "client_credentials" => "client_credentials",
        _ => "other",
    }
}

impl MockTwitch {
    /// Answers POST; anything else is 404 (twitchdev/issues#862).
    pub(crate) fn token(&mut self, call: &mut Call<'_>) -> Result<Answer, Refusal> {
        if !call.is_post() {
            return Ok(exchange::not_found());
        }
        call.note.client_id = call.params.get("client_id").and_then(|id| self.known_client(id));
        if call.params.get("grant_type") == Some("refresh_token") {
            self.note_refresh_token(call);
        }
        call.params.unambiguous()?;
        let client_id = self.authenticated_client(&call.params)?;
        let body = match call.params.filled("grant_type") {
            Some("authorization_code") => self.exchange_code(call, &client_id)?,
            Some("refresh_token") => self.exchange_refresh_token(call, &client_id)?,
            Some("client_credentials") => self.mint_app_token(call, &client_id)?,
            Some(_) => return Err(Refusal::bad_request("unsupported grant type")),
            None => return Err(Refusal::bad_request("missing grant type")),
        };
        Ok(exchange::json(StatusCode::OK, &body))
    }

    /// Tells the log which refresh token was presented, whose it is, and whether it was spent.
    fn note_refresh_token(&self, call: &mut Call<'_>) {
        let Some(presented) = call.params.filled("refresh_token") else {
            return;
        };
        call.note.token = Some(self.fingerprint(presented));
        if let Some(token) = self.state.refresh(presented) {
            call.note.user_id = token.sign_in.pair.user_id.clone();
            call.note.reused = token.spent;
        }
    }

    /// The client, authenticated by `client_secret` in the parameters; HTTP Basic is not looked at.
    fn authenticated_client(&self, params: &Params) -> Result<String, Refusal> {
        let client_id =
            params.filled("client_id").ok_or_else(|| Refusal::bad_request("missing client id"))?;
        let client = self.clients.get(client_id).ok_or_else(|| Refusal::bad_request("invalid client"))?;
        let public_refresh =
            client.client_secret.is_none() && params.get("grant_type") == Some("refresh_token");
        match (&client.client_secret, params.filled("client_secret")) {
            (None, _) if public_refresh => Ok(client_id.to_owned()),
            (_, None) => Err(Refusal::bad_request("missing client secret")),
            (Some(secret), Some(given)) if secret.expose() == given => Ok(client_id.to_owned()),
            _ => Err(Refusal::new(StatusCode::FORBIDDEN, "invalid client secret")),
        }
    }

    fn exchange_code(&mut self, call: &mut Call<'_>, client_id: &str) -> Result<TokenBody, Refusal> {
        let value =
            call.params.filled("code").ok_or_else(|| Refusal::bad_request("missing code"))?.to_owned();
        let now_ms = call.now_ms;
        let code = self
            .state
            .code(&value)
            .filter(|code| code.sign_in.pair.client_id == client_id && code.expires_at_ms > now_ms)
            .filter(|code| {
                code.sign_in.pair.user_id.as_ref().is_none_or(|user_id| self.active_user(user_id).is_some())
            })
            .ok_or_else(invalid_code)?;
        call.note.user_id = code.sign_in.pair.user_id.clone();
        if call.params.get("redirect_uri") != Some(code.redirect_uri.as_str()) {
            return Err(Refusal::bad_request("Parameter redirect_uri does not match registered URI"));
        }
        if self.settings.pkce && !verifier_fits(code, call.params.filled("code_verifier")) {
            return Err(invalid_code());
        }
        let pair = code.sign_in.pair.clone();
        self.refuse_when_full(&pair, None, now_ms)?;
        let code = self.state.take_code(&value).ok_or_else(invalid_code)?;
        let refresh_token = self.mint.refresh_token(self.settings.awkward_refresh_tokens);
        self.state.add_refresh(refresh_token.clone(), code.sign_in.clone());
        self.user_token(call, code.sign_in, refresh_token, true)
    }

    fn exchange_refresh_token(&mut self, call: &Call<'_>, client_id: &str) -> Result<TokenBody, Refusal> {
        let presented = call
            .params
            .filled("refresh_token")
            .ok_or_else(|| Refusal::bad_request("missing refresh token"))?;
        let token = self
            .state
            .refresh(presented)
            .filter(|token| token.sign_in.pair.client_id == client_id)
            .ok_or_else(invalid_refresh_token)?;
        let (mut sign_in, live, spent) = (token.sign_in.clone(), token.live, token.spent);
        if spent && self.settings.rotation == Rotation::OneTimeKillsConnection {
            if self.state.is_connected(&sign_in) {
                self.state.disconnect(&sign_in.pair);
            }
            return Err(invalid_refresh_token());
        }
        if !live {
            return Err(invalid_refresh_token());
        }
        let narrowed = narrowed_scopes(&sign_in.scopes, call.params.get("scope"))?;
        let kills_old = self.settings.refresh_kills_old_access_token;
        self.refuse_when_full(&sign_in.pair, kills_old.then_some(sign_in.family), call.now_ms)?;
        if kills_old {
            self.state.kill_family_access(&sign_in.pair, sign_in.family);
        }
        let next = self.rotate(presented, &sign_in);
        sign_in.scopes = narrowed;
        self.user_token(call, sign_in, next, false)
    }

    /// The refresh token that the answer carries.
    fn rotate(&mut self, presented: &str, sign_in: &SignIn) -> String {
        if self.settings.rotation == Rotation::None {
            return presented.to_owned();
        }
        let next = self.mint.refresh_token(self.settings.awkward_refresh_tokens);
        self.state.spend_refresh(presented, self.settings.rotation != Rotation::Rotates);
        self.state.add_refresh(next.clone(), sign_in.clone());
        next
    }

    /// An access token for a user; the id_token comes with the code only (Twitch docs: OIDC).
    fn user_token(
        &mut self,
        call: &Call<'_>,
        sign_in: SignIn,
        refresh_token: String,
        with_id_token: bool,
    ) -> Result<TokenBody, Refusal> {
        let expires_in = self.settings.token_lifetime_secs;
        let wants_id_token = with_id_token && sign_in.scopes.iter().any(|scope| scope == "openid");
        let id_token = if wants_id_token { Some(self.id_token(call, &sign_in)?) } else { None };
        let nonce = sign_in.oidc.nonce.clone().filter(|_| wants_id_token);
        let scope = sign_in.scopes.clone();
        let access_token = self.add_access_token(sign_in, expires_in, call.now_ms);
        let refresh_token = Some(refresh_token);
        Ok(TokenBody {
            access_token,
            expires_in,
            id_token,
            nonce,
            refresh_token,
            scope,
            token_type: "bearer",
        })
    }

    fn mint_app_token(&mut self, call: &Call<'_>, client_id: &str) -> Result<TokenBody, Refusal> {
        let pair = Pair::app(client_id);
        self.refuse_when_full(&pair, None, call.now_ms)?;
        let family = self.state.new_family();
        let sign_in = SignIn { pair, scopes: Vec::new(), oidc: OidcRequest::default(), family };
        let expires_in = self.settings.app_token_lifetime_secs;
        let access_token = self.add_access_token(sign_in, expires_in, call.now_ms);
        Ok(TokenBody {
            access_token,
            expires_in,
            id_token: None,
            nonce: None,
            refresh_token: None,
            scope: Vec::new(),
            token_type: "bearer",
        })
    }

    pub(crate) fn add_access_token(&mut self, sign_in: SignIn, lifetime_secs: u32, now_ms: i64) -> String {
        let value = self.mint.access_token();
        let expires_at_ms = now_ms.saturating_add(i64::from(lifetime_secs) * 1_000);
        let lag_ms = i64::try_from(self.settings.token_lag_ms).unwrap_or(i64::MAX);
        let token = AccessToken { sign_in, known_from_ms: now_ms.saturating_add(lag_ms), expires_at_ms };
        self.state.add_access(value.clone(), token, self.settings.live_token_limit, now_ms);
        value
    }

    /// "The request fails" is all that is known of this answer (twitchdev/issues#986); the message
    /// is the mock's own.
    fn refuse_when_full(
        &mut self,
        pair: &Pair,
        dying_family: Option<u64>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        if self.state.is_full(pair, self.settings.live_token_limit, dying_family, now_ms) {
            return Err(Refusal::bad_request("too many valid access tokens"));
        }
        Ok(())
    }
}

/// The scopes of a refresh: all of them, or those asked for if they were granted.
fn narrowed_scopes(granted: &[String], asked: Option<&str>) -> Result<Vec<String>, Refusal> {
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
        return Ok(granted.to_vec());
    };
    let scopes = split_scopes(asked).map_err(Refusal::bad_request)?;
    if scopes.iter().all(|scope| granted.contains(scope)) {
        return Ok(scopes);
    }
    Err(Refusal::bad_request(format!("invalid scope requested: '{asked}'")))
}

/// Checks an S256 verifier (RFC 7636, section 4.6); one without a challenge is refused too (RFC
/// 9700, section 4.8).
fn verifier_fits(code: &Code, verifier: Option<&str>) -> bool {
    match (&code.challenge, verifier) {
        (None, None) => true,
        (Some(challenge), Some(verifier)) => {
            URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) == *challenge
        }
        _ => false,
    }
}

fn invalid_code() -> Refusal {
    Refusal::bad_request("Invalid authorization code")
}

fn invalid_refresh_token() -> Refusal {
    Refusal::bad_request("Invalid refresh token")
}
