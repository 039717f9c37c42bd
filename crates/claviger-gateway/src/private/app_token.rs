//! `POST /v1/app-token`: the app's own access token, for its server.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Response},
};
use claviger_axum::{Problem, no_store};
use claviger_core::{AccessToken, limits};
use claviger_engine::{AppGrant, Denied};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use utoipa::ToSchema;

use super::{Private, later, openapi::Failure};

/// What the caller may say.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AppTokenRequest)]
pub(super) struct Question {
    /// A token from here that the provider answered with 401. It is not given again: there is
    /// another one, or 503. Each instance replaces one a minute.
    rejected: Option<String>,
}

/// The app's own token.
#[derive(Serialize, ToSchema)]
#[schema(as = AppToken)]
pub(super) struct Answer<'a> {
    /// Whose token it is.
    provider: &'a str,
    access_token: &'a str,
    token_type: &'static str,
    /// Seconds until it expires. Ask again for each use, or before that.
    expires_in: u64,
}

const BAD_BODY: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "bad_request",
    "This request is not right",
    "The body is empty, or JSON such as {\"rejected\": \"a token that the provider answered with 401\"}.",
);

const PROVIDER_UNAVAILABLE: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "provider_unavailable",
    "One moment, please",
    "The provider gives no token at the moment. Try again shortly.",
);

const MISCONFIGURED: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "misconfigured",
    "The configuration is wrong",
    "The provider refuses the client id or the client secret of this gateway. Its operator needs to fix this.",
);

const STORE_UNAVAILABLE: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "store_unavailable",
    "One moment, please",
    "The gateway's store does not answer. Try again shortly.",
);

/// The app's own access token
///
/// It is the same for all callers and instances, and is replaced before it expires.
#[utoipa::path(
    post,
    path = "/v1/app-token",
    request_body = Option<Question>,
    responses(
        (status = 200, description = "The token; never cached", body = Answer),
        (status = 400, description = "The body is wrong", body = Failure),
        (status = 413, description = "The body is too long"),
        (status = 503, description = "There is no token at the moment; see Retry-After", body = Failure),
    ),
)]
pub(super) async fn app_token(State(private): State<Private>, body: Bytes) -> Response {
    let question = if body.is_empty() { Ok(Question::default()) } else { serde_json::from_slice(&body) };
    let Ok(Question { rejected }) = question else { return BAD_BODY.json() };
    let rejected = rejected.map(AccessToken::new);
    let engine = private.inner.claviger.engine();
    match engine.app_grant(rejected).await {
        Ok(AppGrant { token, expires_at }) => {
            let answer = Answer {
                provider: &engine.provider().name.0,
                access_token: token.expose(),
                token_type: "Bearer",
                expires_in: expires_at.since(engine.now()).as_secs(),
            };
            no_store(Json(answer).into_response())
        }
        Err(denied) => refuse(&denied),
    }
}

fn refuse(denied: &Denied) -> Response {
    let (problem, pause) = match denied {
        Denied::ProviderUnavailable { retry_after } => (PROVIDER_UNAVAILABLE, *retry_after),
        Denied::Misconfigured => (MISCONFIGURED, limits::RETRY_AFTER_OPERATOR),
        // The engine logs an outage of the store.
        _ => (STORE_UNAVAILABLE, limits::RETRY_AFTER),
    };
    later(&problem, pause.max(Duration::from_secs(1)))
}
