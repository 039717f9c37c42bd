//! A tower layer that authenticates each request.

use std::task::{Context, Poll};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use claviger_core::Assurance;
use claviger_engine::Denied;
use futures_util::future::BoxFuture;
use http::Request;
use tower::{Layer, Service};

use crate::{claviger::Claviger, extract::Authenticated};

impl Claviger {
    /// Returns a layer that authenticates requests. Requests without a session pass;
    /// [`crate::SignedIn`] refuses them.
    pub fn layer(&self) -> ClavigerLayer {
        self.layer_with(Assurance::Session)
    }

    /// Returns a layer that asks for another assurance.
    pub fn layer_with(&self, assurance: Assurance) -> ClavigerLayer {
        ClavigerLayer { claviger: self.clone(), assurance }
    }
}

/// Builds [`Authenticate`] services.
#[derive(Clone, Debug)]
pub struct ClavigerLayer {
    claviger: Claviger,
    assurance: Assurance,
}

impl<S> Layer<S> for ClavigerLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, claviger: self.claviger.clone(), assurance: self.assurance }
    }
}

/// Authenticates each request, refuses cross-site ones, and removes inbound identity headers.
///
/// If the provider or the store does not answer, the response is 503: the request is neither let
/// through nor treated as signed out.
///
/// An answer that denies a request, here or by an extractor, has the [`Denied`] among its
/// extensions, for layers outside of this one.
#[derive(Clone, Debug)]
pub struct Authenticate<S> {
    inner: S,
    claviger: Claviger,
    assurance: Assurance,
}

impl<S, RequestBody, AnswerBody> Service<Request<RequestBody>> for Authenticate<S>
where
    S: Service<Request<RequestBody>, Response = Response<AnswerBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    RequestBody: Send + 'static,
    AnswerBody: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        // Call the service that was polled ready, not its clone (tower docs, "Be careful when
        // cloning inner services").
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let (claviger, assurance) = (self.claviger.clone(), self.assurance);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let head = match claviger.head(&mut parts) {
                Ok(head) => head,
                Err(refused) => return Ok(refused),
            };
            if let Err(refused) = claviger.guard(&head) {
                return Ok(refused);
            }
            // An outer layer has already removed the cookie, so take it from there.
            let shown = match parts.extensions.get::<Authenticated>() {
                Some(outer) => outer.shown.clone(),
                None => claviger.cookie(&head),
            };
            let outcome = match shown.clone() {
                Ok(cookie) => claviger.engine().authenticate(cookie, head.ask(assurance)).await,
                Err(denied) => Err(denied),
            };
            if let Err(denied) = &outcome
                && !asks_for_sign_in(denied)
            {
                return Ok(claviger.deny(&head, denied).await);
            }
            let signed_in = outcome.is_ok().then(|| claviger.clone());
            let outdated = signed_in.as_ref().and_then(|claviger| claviger.outdated_cookie(&head));
            claviger.strip_request(&mut parts.headers, &head);
            parts.extensions.insert(Authenticated { outcome, shown, head, claviger });
            let mut response = inner.call(Request::from_parts(parts, body)).await?.map(Body::new);
            if let Some(claviger) = signed_in {
                claviger.keep_private(response.headers_mut());
                if let Some(outdated) = outdated {
                    claviger.renew_cookie(response.headers_mut(), &outdated);
                }
            }
            Ok(response)
        })
    }
}

/// Returns whether the request just has no session in force, so that a public page may still be
/// shown.
fn asks_for_sign_in(denied: &Denied) -> bool {
    matches!(denied, Denied::NoSession | Denied::Ended(_) | Denied::SignInAgain)
}
