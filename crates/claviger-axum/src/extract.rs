//! Extractors: who is calling, in a handler's arguments. They need [`Claviger::layer`].

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use claviger_engine::{Caller, Denied};
use claviger_seal::SessionCookie;
use http::{StatusCode, request::Parts};

use crate::Claviger;

/// What the layer found out.
#[derive(Clone)]
pub(crate) struct Authenticated {
    pub(crate) outcome: Result<Caller, Denied>,
    /// The session cookie, which handlers do not see.
    pub(crate) shown: Result<SessionCookie, Denied>,
    pub(crate) claviger: Claviger,
}

/// The caller. A navigation of nobody is led to the sign-in, other requests get 401 with JSON.
#[derive(Clone, Debug)]
pub struct SignedIn(pub Caller);

/// The caller, if somebody is signed in.
#[derive(Clone, Debug)]
pub struct MaybeSignedIn(pub Option<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let Authenticated { outcome, claviger, .. } = found(parts)?;
        outcome.map(Self).map_err(|denied| claviger.deny(parts, &denied))
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
        tracing::error!("a handler asks who is calling on a route without Claviger's layer: add it");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}
