//! Errors of the gateway itself: a page to a person, JSON to a program.

use askama::Template;
use axum::{
    Json,
    response::{Html, IntoResponse, Response},
};
use claviger_axum::can_navigate;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Serialize;

/// An error in a form that a program can act on, and a person can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The status of the answer.
    #[serde(skip)]
    pub status: StatusCode,
    /// A stable name.
    pub error: &'static str,
    /// A heading.
    #[serde(skip)]
    pub title: &'static str,
    /// Words for a person.
    pub message: &'static str,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Page {
    problem: Problem,
}

impl Problem {
    /// Makes one.
    pub const fn new(
        status: StatusCode,
        error: &'static str,
        title: &'static str,
        message: &'static str,
    ) -> Self {
        Self { status, error, title, message }
    }

    /// The answer: a page where a window would show it.
    pub fn answer(self, method: &Method, headers: &HeaderMap) -> Response {
        let page = can_navigate(method, headers).then(|| Page { problem: self }.render().ok()).flatten();
        let mut response = match page {
            Some(html) => Html(html).into_response(),
            None => Json(self).into_response(),
        };
        *response.status_mut() = self.status;
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'self'; frame-ancestors 'none'"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// The answer to a program.
    pub fn json(self) -> Response {
        self.answer(&Method::POST, &HeaderMap::new())
    }
}

/// The app refuses connections, or broke off.
pub const APP_UNREACHABLE: Problem = Problem::new(
    StatusCode::BAD_GATEWAY,
    "app_unreachable",
    "The app is not answering",
    "This site's app cannot be reached at the moment. You are still signed in; try again shortly.",
);

/// The app takes too long.
pub const APP_SLOW: Problem = Problem::new(
    StatusCode::GATEWAY_TIMEOUT,
    "app_slow",
    "The app is not answering",
    "This site's app takes too long to answer. You are still signed in; try again shortly.",
);

/// The address is Claviger's own and names nothing, or there is no app behind the gateway.
pub const NOTHING: Problem =
    Problem::new(StatusCode::NOT_FOUND, "not_found", "Not found", "There is nothing at this address.");

/// The body of the request did not come to its end.
pub const BROKEN_OFF: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "body_incomplete",
    "Incomplete",
    "The body of this request broke off, or paused for too long.",
);

/// The path can be read in more than one way.
pub const AMBIGUOUS_PATH: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "ambiguous_path",
    "This address is not right",
    "The address has parts such as '..' or a backslash, which servers read in different ways.",
);

/// The head of the request is not right.
pub const BAD_HEAD: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "bad_request",
    "This request is not right",
    "A request has to name one host.",
);

/// The method is none for a site.
pub const BAD_METHOD: Problem = Problem::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "method_not_allowed",
    "Not possible",
    "This site does not take this kind of request.",
);

/// A defect of ours.
pub const DEFECT: Problem = Problem::new(
    StatusCode::INTERNAL_SERVER_ERROR,
    "internal",
    "This is our fault",
    "Something went wrong on this site. You are still signed in; try again.",
);
