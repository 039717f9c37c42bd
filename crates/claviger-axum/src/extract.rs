//! Extractors for handlers: who is calling. They need [`Claviger::layer`].

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use claviger_engine::{Caller, Denied};
use claviger_seal::SessionCookie;
use http::{StatusCode, request::Parts};

use crate::{claviger::Claviger, head::RequestHead};

/// The layer's result, kept in the request's extensions.
#[derive(Clone)]
pub(crate) struct Authenticated {
    pub(crate) outcome: Result<Caller, Denied>,
    /// The session cookie as it came, for a layer inside this one. Handlers do not see it.
    pub(crate) shown: Result<SessionCookie, Denied>,
    pub(crate) head: RequestHead,
    pub(crate) claviger: Claviger,
}

/// The caller. Without a session a navigation is redirected to the sign-in, and other requests get
/// 401 with JSON.
#[derive(Clone, Debug)]
pub struct SignedIn(pub Caller);

/// The caller, or `None` without a session.
#[derive(Clone, Debug)]
pub struct MaybeSignedIn(pub Option<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let Authenticated { outcome, head, claviger, .. } = found(parts)?;
        match outcome {
            Ok(caller) => Ok(Self(caller)),
            Err(denied) => Err(claviger.deny(&head, &denied).await),
        }
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Response> {
        Ok(found(parts)?.outcome.ok().map(Self))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MaybeSignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        Ok(Self(found(parts)?.outcome.ok()))
    }
}

fn found(parts: &Parts) -> Result<Authenticated, Response> {
    parts.extensions.get::<Authenticated>().cloned().ok_or_else(|| {
        tracing::error!("a handler extracts the caller on a route without Claviger's layer; add the layer");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}
