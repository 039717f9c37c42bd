//! The first thing that every request meets: turns away what no part of the gateway is to see, lets no body keep it
//! waiting, and answers where a handler panicked.

use std::{
    any::Any,
    convert::Infallible,
    future::{Ready, ready},
    panic::AssertUnwindSafe,
    task::{Context, Poll},
    time::Duration,
};

use axum::{BoxError, Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use claviger_axum::Problem;
use futures_util::{
    FutureExt as _,
    future::{CatchUnwind, Either, Map},
};
use http::{Method, header};
use http_body::Body as _;
use tower::Service;

use crate::{
    problems,
    proxy::{body::Inbound, path},
};

/// Passes well-formed requests on. On the way of every request, so it allocates nothing and boxes no future.
#[derive(Clone, Debug)]
pub struct Entry {
    inner: Router,
    /// A body may pause for so long.
    pause: Duration,
}

impl Entry {
    /// Stands in front of these routes.
    pub(crate) fn new(inner: Router, pause: Duration) -> Self {
        Self { inner, pause }
    }
}

type Answer = Result<Response, Infallible>;
type Caught = Result<Answer, Box<dyn Any + Send>>;
type Routed = CatchUnwind<AssertUnwindSafe<<Router as Service<Request>>::Future>>;

impl<B> Service<http::Request<B>> for Entry
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Answer>, Map<Routed, fn(Caught) -> Answer>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.inner, context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let request = request.map(Body::new);
        if let Some(problem) = malformed(&request) {
            return Either::Left(ready(Ok(problem.answer_to(request.method(), request.headers()))));
        }
        // After a panic nothing of the request is used again.
        let routed = AssertUnwindSafe(self.inner.call(bounded(request, self.pause))).catch_unwind();
        Either::Right(routed.map(answer as fn(Caught) -> Answer))
    }
}

/// The answer in place of a handler that panicked. Where it did is logged by the hook, without its message.
fn answer(caught: Caught) -> Answer {
    caught.unwrap_or_else(|_panic| Ok(problems::DEFECT.json()))
}

fn bounded(request: Request, pause: Duration) -> Request {
    request.map(|body| if body.is_end_stream() { body } else { Body::new(Inbound::new(body, pause)) })
}

fn malformed(request: &Request) -> Option<Problem> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Some(problems::BAD_METHOD);
    }
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        return Some(problems::BAD_HEAD);
    }
    path::is_refused(request.uri().path()).then_some(problems::AMBIGUOUS_PATH)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http::StatusCode;
    use tower::ServiceExt as _;

    use super::*;

    async fn status(method: Method, path: &str) -> StatusCode {
        async fn broken() {
            panic!("a defect");
        }
        let routes = Router::new().route("/", get(|| async {})).route("/broken", get(broken));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let entry = Entry::new(routes, Duration::from_secs(1));
        entry.oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn what_nobody_is_to_see_is_turned_away_and_a_panic_is_answered() {
        assert_eq!(status(Method::GET, "/").await, StatusCode::OK);
        assert_eq!(status(Method::TRACE, "/").await, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status(Method::GET, "/a/../b").await, StatusCode::BAD_REQUEST);
        assert_eq!(status(Method::GET, "/broken").await, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
