//! `GET /auth/jwks.json`: the public keys that verify assertions, for apps. Everybody may know
//! them.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use claviger_core::limits;
use http::{HeaderMap, HeaderValue, header};

use crate::{claviger::Claviger, head::RequestHead, respond};

use super::NOT_FOUND;

pub(crate) const PATH: &str = "/auth/jwks.json";

/// Returns the keys as a JWK set (RFC 7517). Without assertions there are none, and nothing is at
/// this address.
pub(crate) async fn key_set(State(claviger): State<Claviger>, head: RequestHead) -> Response {
    let keys = match claviger.engine().key_set() {
        Ok(Some(keys)) => keys,
        Ok(None) => return NOT_FOUND.answer_to(&head),
        Err(denied) => return respond::of_denied(&denied).answer_to(&head),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let cached = format!("public, max-age={}", limits::SIGNING_KEYS_CACHED.as_secs());
    if let Ok(cached) = HeaderValue::try_from(cached) {
        headers.insert(header::CACHE_CONTROL, cached);
    }
    (headers, keys).into_response()
}
