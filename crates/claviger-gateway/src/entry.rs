//! The first stop of every request, and the last of every answer. It refuses malformed requests,
//! answers forward-auth checks that need no waiting, and answers in place of a handler that
//! panicked. It hands every body to [`inbound`](crate::inbound).

use std::{
    any::Any,
    convert::Infallible,
    future::{Ready, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    BoxError, Router,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use claviger_axum::{Claviger, Problem, RequestHead, Site};
use claviger_core::request::{host::Host, path::is_below, routes::Policy};
use futures_util::{
    FutureExt as _,
    future::{self, CatchUnwind, Either, Join, Map},
};
use http::{Method, request::Parts};
use tower::Service;

use crate::{
    inbound::{Bodies, Closing, Inbound},
    misdirected::Misdirected,
    problems,
};

/// Passes well-formed requests on. It is on the hot path, so it allocates nothing and boxes no
/// future.
#[derive(Clone)]
pub struct Entry {
    /// One `Arc`, because it is cloned for every request.
    behind: Arc<Behind>,
}

struct Behind {
    routes: Router,
    site: Site,
    policy: Policy,
    misdirected: Misdirected,
    /// Answers checks before routing.
    checks: Option<Claviger>,
    bodies: Bodies,
}

impl Entry {
    /// An entry to these routes.
    pub(crate) fn new(
        routes: Router,
        site: Site,
        policy: Policy,
        checks: Option<Claviger>,
        bodies: Bodies,
    ) -> Self {
        Self {
            behind: Arc::new(Behind {
                routes,
                site,
                policy,
                misdirected: Misdirected::default(),
                checks,
                bodies,
            }),
        }
    }

    /// The answer to a check that needs no waiting. Most need none.
    fn check(&self, request: &mut Parts, head: &RequestHead) -> Option<Answer> {
        let asks = request.method == Method::GET && is_below(request.uri.path(), CHECK);
        let claviger = self.behind.checks.as_ref().filter(|_| asks)?;
        // After a panic no part of the request is used again.
        let checked = AssertUnwindSafe(|| claviger.check_at_once(request, head).map(Ok));
        catch_unwind(checked).unwrap_or_else(|panic| Some(answer(Err(panic))))
    }
}

const CHECK: &str = "/auth/check";

type Answer = Result<Response, Infallible>;
type Caught = Result<Answer, Box<dyn Any + Send>>;
type Routed = CatchUnwind<AssertUnwindSafe<<Router as Service<Request>>::Future>>;
type Finish<T> = fn((T, Closing)) -> Answer;

impl<B> Service<http::Request<B>> for Entry
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Answer>, Map<Join<Routed, Ready<Closing>>, Finish<Caught>>>;

    /// Routes are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let body = self.behind.bodies.take(&parts, body);
        let closing = body.as_ref().map(Inbound::closing).unwrap_or_default();
        let head = match self.early(&mut parts) {
            Ok(head) => head,
            Err(early) => {
                if let Some(body) = body.filter(|_| early.abandons_body) {
                    body.abandon();
                }
                return Either::Left(ready(finish((early.answer, closing))));
            }
        };
        parts.extensions.insert(head);
        let request = Request::from_parts(parts, body.map_or_else(Body::empty, Body::new));
        // After a panic no part of the request is used again.
        let routed = AssertUnwindSafe(self.behind.routes.clone().call(request)).catch_unwind();
        let finished = future::join(routed, ready(closing));
        Either::Right(finished.map((|(caught, closing)| finish((answer(caught), closing))) as Finish<Caught>))
    }
}

/// An answer that is given before routing.
struct Early {
    answer: Answer,
    /// Whether it is unknown where the body ends, and so where the next request begins (RFC 9112
    /// section 6.3).
    abandons_body: bool,
}

impl From<Answer> for Early {
    fn from(answer: Answer) -> Self {
        Self { answer, abandons_body: false }
    }
}

impl Entry {
    /// Reads the head of a request that goes on to the routes.
    fn early(&self, parts: &mut Parts) -> Result<RequestHead, Early> {
        let site = &self.behind.site;
        let head = RequestHead::read(site, parts).map_err(|refused| Early {
            abandons_body: refused.has_unclear_framing(),
            answer: Ok(refused.into_response()),
        })?;
        if let Some(problem) = malformed(parts, &head, &self.behind.policy) {
            let abandons_body = head.has_unclear_framing();
            return Err(Early { answer: Ok(problem.answer_to(&head)), abandons_body });
        }
        if let Some(answer) = self.check(parts, &head) {
            return Err(answer.into());
        }
        match self.behind.misdirected.answer(site, parts, &head) {
            Some(answer) => Err(Ok(answer).into()),
            None => Ok(head),
        }
    }
}

/// The answer in place of a handler that panicked. The panic hook logs the place.
fn answer(caught: Caught) -> Answer {
    caught.unwrap_or_else(|_panic| Ok(problems::DEFECT.json()))
}

/// Every answer passes here.
fn finish((answer, closing): (Answer, Closing)) -> Answer {
    answer.map(|answer| closing.finish(answer))
}

fn malformed(request: &Parts, head: &RequestHead, policy: &Policy) -> Option<Problem> {
    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        return Some(problems::BAD_METHOD);
    }
    if matches!(head.host(), Host::Missing | Host::Invalid) {
        return Some(problems::BAD_HEAD);
    }
    if head.has_unclear_framing() {
        return Some(problems::UNCLEAR_FRAMING);
    }
    head.path().fault()?;
    // What a proxy appends to it is the path of another request, and leads nowhere here.
    if is_below(request.uri.path(), CHECK) {
        return None;
    }
    let ruling = policy.ruling(head.asked_method(), request.uri.path(), head.path());
    ruling.err().map(problems::ambiguous_path)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http::StatusCode;
    use tower::ServiceExt as _;

    use super::*;

    async fn status(method: Method, path: &str) -> StatusCode {
        async fn broken() {
            panic!("a bug");
        }
        let routes = Router::new().route("/", get(|| async {})).route("/broken", get(broken));
        let request = Request::builder().method(method).uri(path).header("host", "app.example");
        let request = request.body(Body::empty()).unwrap();
        let site = Site::new("https://app.example");
        let entry = Entry::new(routes, site, Policy::default(), None, Bodies::example());
        entry.oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn malformed_requests_are_refused_and_a_panic_is_answered() {
        assert_eq!(status(Method::GET, "/").await, StatusCode::OK);
        assert_eq!(status(Method::TRACE, "/").await, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status(Method::GET, "/a/../b").await, StatusCode::BAD_REQUEST);
        assert_eq!(status(Method::GET, "/auth/check/a/../b").await, StatusCode::NOT_FOUND);
        assert_eq!(status(Method::GET, "/broken").await, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
