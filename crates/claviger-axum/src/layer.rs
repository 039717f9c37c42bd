//! A tower layer that says of every request who is calling.

use std::task::{Context, Poll};

use axum::{extract::Request, response::Response};
use claviger_core::request::Assurance;
use claviger_engine::Denied;
use futures_util::future::BoxFuture;
use tower::{Layer, Service};

use crate::{Claviger, extract::Authenticated};

/// Makes [`Authenticate`] services.
#[derive(Clone)]
pub struct ClavigerLayer {
    claviger: Claviger,
    assurance: Assurance,
}

impl ClavigerLayer {
    pub(crate) fn new(claviger: Claviger, assurance: Assurance) -> Self {
        Self { claviger, assurance }
    }
}

impl<S> Layer<S> for ClavigerLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, claviger: self.claviger.clone(), assurance: self.assurance }
    }
}

/// Says who is calling, turns cross-site requests away, and passes the request on without inbound identity headers.
///
/// Where nobody can say who is calling, because the provider or the store does not answer, the request is answered
/// with 503: it is neither let through nor taken for signed out.
#[derive(Clone)]
pub struct Authenticate<S> {
    inner: S,
    claviger: Claviger,
    assurance: Assurance,
}

impl<S> Service<Request> for Authenticate<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The service that was made ready is the one to call (tower docs, "Be careful when cloning inner services").
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let (claviger, assurance) = (self.claviger.clone(), self.assurance);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            if let Err(refused) = claviger.guard(&parts.method, &parts.headers) {
                return Ok(refused);
            }
            // A layer inside another one finds the cookie stripped, so the outer one tells what it was.
            let shown = match parts.extensions.get::<Authenticated>() {
                Some(outer) => outer.shown.clone(),
                None => claviger.cookie(&parts.headers),
            };
            let outcome = match shown.clone() {
                Ok(cookie) => claviger.engine().authenticate(cookie, assurance).await,
                Err(denied) => Err(denied),
            };
            if let Err(denied) = &outcome
                && !asks_for_sign_in(denied)
            {
                return Ok(claviger.deny(&parts, denied));
            }
            let outdated = outcome.as_ref().ok().and_then(|_| claviger.outdated_cookie(&parts.headers));
            let renewal = outdated.map(|value| (claviger.clone(), value));
            claviger.strip_request(&mut parts.headers);
            parts.extensions.insert(Authenticated { outcome, shown, claviger });
            let mut response = inner.call(Request::from_parts(parts, body)).await?;
            if let Some((claviger, outdated)) = renewal {
                claviger.renew_cookie(response.headers_mut(), &outdated);
            }
            Ok(response)
        })
    }
}

/// Whether the request is simply nobody's, so that a public page may still be shown.
fn asks_for_sign_in(denied: &Denied) -> bool {
    matches!(denied, Denied::NoSession | Denied::Ended(_) | Denied::SignInAgain)
}
