//! The first thing that every request meets: turns away what no part of the gateway is to see, and lets no body keep
//! it waiting.

use claviger_axum::Problem;
use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response};
use futures_util::future::Either;
use http::{Method, header};
use http_body::Body as _;
use tower::Service;

use crate::{
    pages,
    proxy::{body::Inbound, path},
};

/// Passes well-formed requests on. On the way of every request, so it allocates nothing and boxes no future.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
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

impl Service<Request> for Entry {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, <Router as Service<Request>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.inner, context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match malformed(&request) {
            None => Either::Right(self.inner.call(bounded(request, self.pause))),
            Some(problem) => Either::Left(ready(Ok(problem.answer_to(request.method(), request.headers())))),
        }
    }
}

fn bounded(request: Request, pause: Duration) -> Request {
    request.map(|body| if body.is_end_stream() { body } else { Body::new(Inbound::new(body, pause)) })
}

fn malformed(request: &Request) -> Option<Problem> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Some(pages::BAD_METHOD);
    }
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        return Some(pages::BAD_HEAD);
    }
    path::is_refused(request.uri().path()).then_some(pages::AMBIGUOUS_PATH)
}
