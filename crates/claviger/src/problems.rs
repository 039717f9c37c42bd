//! What the gateway itself has to say to people and programs.

use claviger_axum::Problem;
use http::StatusCode;

/// The app refuses connections, or broke off.
pub const APP_UNREACHABLE: Problem = Problem::new(
    StatusCode::BAD_GATEWAY,
    "app_unreachable",
    "The app is not answering",
    "This site's app cannot be reached at the moment. You are still signed in; try again shortly.",
)
.passing();

/// The app takes too long.
pub const APP_SLOW: Problem = Problem::new(
    StatusCode::GATEWAY_TIMEOUT,
    "app_slow",
    "The app is not answering",
    "This site's app takes too long to answer. You are still signed in; try again shortly.",
)
.passing();

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
)
.passing();
