//! The first thing that every request meets: turns away what no part of the gateway is to see, answers the checks that
//! need no waiting, lets no body keep it waiting, and answers where a handler panicked.

use std::{
    any::Any,
    convert::Infallible,
    future::{Ready, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{BoxError, Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use claviger_axum::{Claviger, Problem};
use futures_util::{
    FutureExt as _,
    future::{CatchUnwind, Either, Map},
};
use http::{Method, header, request::Parts};
use http_body::Body as _;
use tower::Service;

use crate::{
    problems,
    proxy::{body::Inbound, path},
};

/// Passes well-formed requests on. On the way of every request, so it allocates nothing and boxes no future.
#[derive(Clone)]
pub struct Entry {
    /// It is cloned for every request: the one count of it is all that requests share.
    behind: Arc<Behind>,
}

struct Behind {
    routes: Router,
    /// Answers checks before a route is looked for.
    checks: Option<Claviger>,
    /// A body may pause for so long.
    pause: Duration,
}

impl Entry {
    /// Stands in front of these routes.
    pub(crate) fn new(routes: Router, checks: Option<Claviger>, pause: Duration) -> Self {
        Self { behind: Arc::new(Behind { routes, checks, pause }) }
    }

    /// The answer to a check that can be given at once, which most can.
    fn check(&self, request: &mut Parts) -> Option<Answer> {
        let asks = request.method == Method::GET && request.uri.path() == CHECK;
        let claviger = self.behind.checks.as_ref().filter(|_| asks)?;
        // After a panic nothing of the request is used again.
        let checked = AssertUnwindSafe(|| claviger.check_at_once(request).map(Ok));
        catch_unwind(checked).unwrap_or_else(|panic| Some(answer(Err(panic))))
    }
}

const CHECK: &str = "/auth/check";

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

    /// Routes are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        if let Some(problem) = malformed(&parts) {
            return Either::Left(ready(Ok(problem.answer_to(&parts.method, &parts.headers))));
        }
        if let Some(answer) = self.check(&mut parts) {
            return Either::Left(ready(answer));
        }
        let request = Request::from_parts(parts, bounded(body, self.behind.pause));
        // After a panic nothing of the request is used again.
        let routed = AssertUnwindSafe(self.behind.routes.clone().call(request)).catch_unwind();
        Either::Right(routed.map(answer as fn(Caught) -> Answer))
    }
}

/// The answer in place of a handler that panicked. Where it did is logged by the hook, without its message.
fn answer(caught: Caught) -> Answer {
    caught.unwrap_or_else(|_panic| Ok(problems::DEFECT.json()))
}

fn bounded<B>(body: B, pause: Duration) -> Body
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let body = Body::new(body);
    if body.is_end_stream() { body } else { Body::new(Inbound::new(body, pause)) }
}

fn malformed(request: &Parts) -> Option<Problem> {
    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        return Some(problems::BAD_METHOD);
    }
    if request.headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Some(problems::BAD_HEAD);
    }
    path::is_refused(request.uri.path()).then_some(problems::AMBIGUOUS_PATH)
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
        let entry = Entry::new(routes, None, Duration::from_secs(1));
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
