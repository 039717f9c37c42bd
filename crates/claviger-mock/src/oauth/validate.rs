//! `/oauth2/validate` and `/oauth2/revoke` (Twitch docs: validating tokens, revoking tokens).

use http::StatusCode;
use serde::Serialize;

use crate::exchange::{self, Answer, Call, Refusal};
use crate::mock::MockTwitch;

/// The 200 body: no `login` and `user_id` for app tokens, `scopes: null` for a user token without
/// (twitchdev/issues#1037).
#[derive(Serialize)]
struct ValidateBody<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
    scopes: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    expires_in: i64,
}

impl MockTwitch {
    /// Answers GET with `Authorization: OAuth` or `Bearer`.
    pub(crate) fn validate(&self, call: &mut Call<'_>) -> Result<Answer, Refusal> {
        if !call.is_get() {
            return Ok(exchange::not_found());
        }
        let unauthorized = |message: &str| Refusal::new(StatusCode::UNAUTHORIZED, message);
        let presented = call
            .authorization(&["oauth", "bearer"])
            .ok_or_else(|| unauthorized("missing authorization token"))?;
        call.note.token = Some(self.fingerprint(presented));
        let token = self.live_token(presented, call).ok_or_else(|| unauthorized("invalid access token"))?;
        let pair = &token.sign_in.pair;
        let scopes = token.sign_in.scopes.as_slice();
        let body = ValidateBody {
            client_id: &pair.client_id,
            login: pair.user_id.as_ref().and_then(|id| self.users.get(id)).map(|user| user.login.as_str()),
            scopes: (pair.user_id.is_none() || !scopes.is_empty()).then_some(scopes),
            user_id: pair.user_id.as_deref(),
            expires_in: token.expires_at_ms.saturating_sub(call.now_ms) / 1_000,
        };
        Ok(exchange::json(StatusCode::OK, &body))
    }

    /// Answers POST with `client_id` and `token`; kills the access token, not its refresh token.
    pub(crate) fn revoke(&mut self, call: &mut Call<'_>) -> Result<Answer, Refusal> {
        if !call.is_post() {
            return Ok(exchange::not_found());
        }
        call.note.client_id = call.params.get("client_id").and_then(|id| self.known_client(id));
        call.note.token = call.params.filled("token").map(|token| self.fingerprint(token));
        call.params.unambiguous()?;
        let client_id =
            call.params.filled("client_id").ok_or_else(|| Refusal::bad_request("missing client id"))?;
        if !self.clients.contains_key(client_id) {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "client does not exist"));
        }
        let token = call
            .params
            .filled("token")
            .ok_or_else(|| Refusal::bad_request("missing oauth token"))?
            .to_owned();
        let owner = self.state.access(&token, call.now_ms).map(|access| access.sign_in.pair.clone());
        let owner = owner
            .filter(|pair| pair.client_id == client_id)
            .ok_or_else(|| Refusal::bad_request("Invalid token"))?;
        call.note.user_id = owner.user_id;
        self.state.kill_access(&token);
        Ok(exchange::empty(StatusCode::OK))
    }
}
