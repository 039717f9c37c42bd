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
pub const APP_UNREACHABLE: Problem = Problem {
    status: StatusCode::BAD_GATEWAY,
    error: "app_unreachable",
    title: "The app is not answering",
    message: "This site's app cannot be reached at the moment. You are still signed in; try again shortly.",
};

/// The app takes too long.
pub const APP_SLOW: Problem = Problem {
    status: StatusCode::GATEWAY_TIMEOUT,
    error: "app_slow",
    title: "The app is not answering",
    message: "This site's app takes too long to answer. You are still signed in; try again shortly.",
};

/// The address is Claviger's own and names nothing, or there is no app behind the gateway.
pub const NOTHING: Problem = Problem {
    status: StatusCode::NOT_FOUND,
    error: "not_found",
    title: "Not found",
    message: "There is nothing at this address.",
};

/// The body of the request did not come to its end.
pub const BROKEN_OFF: Problem = Problem {
    status: StatusCode::BAD_REQUEST,
    error: "body_incomplete",
    title: "Incomplete",
    message: "The body of this request broke off, or paused for too long.",
};

/// The path can be read in more than one way.
pub const AMBIGUOUS_PATH: Problem = Problem {
    status: StatusCode::BAD_REQUEST,
    error: "ambiguous_path",
    title: "This address is not right",
    message: "The address has parts such as '..' or a backslash, which servers read in different ways.",
};

/// The head of the request is not right.
pub const BAD_HEAD: Problem = Problem {
    status: StatusCode::BAD_REQUEST,
    error: "bad_request",
    title: "This request is not right",
    message: "A request has to name one host.",
};

/// The method is none for a site.
pub const BAD_METHOD: Problem = Problem {
    status: StatusCode::METHOD_NOT_ALLOWED,
    error: "method_not_allowed",
    title: "Not possible",
    message: "This site does not take this kind of request.",
};

/// A defect of ours.
pub const DEFECT: Problem = Problem {
    status: StatusCode::INTERNAL_SERVER_ERROR,
    error: "internal",
    title: "This is our fault",
    message: "Something went wrong on this site. You are still signed in; try again.",
};
