//! Whether an access token is good, and whose it is (Twitch docs, "Validating tokens").

use std::time::Duration;

use bytes::Bytes;
use claviger_core::{AccessToken, FailureKind, Lifespan, Proof, ProviderFailure, Timestamp, ValidateAnswer};
use http::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::{
    answer::{Answer, failure, judges_the_token},
    body::{self, display_name, is_id, scopes, seconds},
    capabilities::TokenCheckForm,
    client::Client,
    request::{authorize, empty},
    words::text_or_none,
};

/// The scheme that the documentation names.
const SCHEME: &str = "OAuth";

/// The endpoint `/oauth2/validate`.
#[derive(Debug)]
pub(super) struct Validate;

impl TokenCheckForm for Validate {
    fn request(&self, endpoint: &Url, _client: &Client, token: &AccessToken) -> Request<Bytes> {
        let mut request = empty(Method::GET, endpoint);
        // The reader of token answers refuses a token that no header can carry.
        let _ = authorize(request.headers_mut(), SCHEME, token);
        request
    }

    /// A 401 does not tell an expired token from a revoked one.
    fn read(&self, client: &Client, answer: Answer, now: Timestamp) -> ValidateAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return ValidateAnswer::Unknown(unanswered.into()),
        };
        match answer.status() {
            StatusCode::OK => proof(answer.body()).map_or(
                ValidateAnswer::Unknown(ProviderFailure::new(FailureKind::Unreadable)),
                ValidateAnswer::Valid,
            ),
            StatusCode::UNAUTHORIZED if judges_the_token(&answer, &client.dialect) => {
                ValidateAnswer::Rejected
            }
            _ => ValidateAnswer::Unknown(failure(&answer, now)),
        }
    }
}

/// A successful validation.
#[derive(Deserialize)]
struct ValidateBody {
    client_id: String,
    user_id: Option<String>,
    #[serde(default, deserialize_with = "text_or_none")]
    login: Option<String>,
    expires_in: Option<Value>,
    scopes: Option<Value>,
}

/// Reads a validation. None if it does not say whose token it is. A user id of `null`, or none, is
/// an app's own token.
///
/// A life span of zero means endless, as Twitch says of some old clients (twitchdev/issues#312).
fn proof(body: &[u8]) -> Option<Proof> {
    let body: ValidateBody = body::object(body)?;
    let sound = is_id(&body.client_id) && body.user_id.as_deref().is_none_or(is_id);
    sound.then(|| Proof {
        client_id: body.client_id,
        subject_id: body.user_id,
        display_name: body.login.as_deref().and_then(display_name),
        lifespan: match seconds(body.expires_in.as_ref()) {
            None => Lifespan::Unknown,
            Some(0) => Lifespan::Endless,
            Some(secs) => Lifespan::Lasts(Duration::from_secs(secs)),
        },
        scopes: scopes(body.scopes).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
