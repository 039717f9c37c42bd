//! The error pages of the gateway, as HTML for people and as JSON for programs.

use claviger_axum::Problem;
use claviger_core::request::path::Fault;
use http::StatusCode;

/// The app refused or closed the connection.
pub const APP_UNREACHABLE: Problem = Problem::new(
    StatusCode::BAD_GATEWAY,
    "app_unreachable",
    "The app is not answering",
    "This site's app cannot be reached at the moment. If you are signed in, you stay signed in. Try again shortly.",
)
.passing()
.perhaps_sent();

/// The gateway waits for its session store before it serves.
pub const STARTING: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "starting",
    "One moment, please",
    "This site is starting. If you are signed in, you stay signed in. Try again shortly.",
)
.passing();

/// The app's answer has a head that is too large.
pub const APP_HEAD_TOO_LARGE: Problem = Problem::new(
    StatusCode::BAD_GATEWAY,
    "app_head_too_large",
    "The app's answer is not right",
    "The app answered with more than 100 header fields, or with more than 64 KiB of them. The people who run this site \
     need to fix this.",
)
.perhaps_sent();

/// What the app answered is not HTTP.
pub const APP_NOT_HTTP: Problem = Problem::new(
    StatusCode::BAD_GATEWAY,
    "app_answer_invalid",
    "The app's answer is not right",
    "What the app answered is not valid HTTP. The people who run this site need to fix this.",
)
.perhaps_sent();

/// The app did not answer in time.
pub const APP_SLOW: Problem = Problem::new(
    StatusCode::GATEWAY_TIMEOUT,
    "app_slow",
    "The app is not answering",
    "This site's app takes too long to answer. If you are signed in, you stay signed in. Try again shortly.",
)
.passing()
.perhaps_sent();

/// The address does not exist, or there is no app behind the gateway.
pub const NOTHING: Problem =
    Problem::new(StatusCode::NOT_FOUND, "not_found", "Not found", "There is nothing at this address.");

/// The body of the request was incomplete.
pub const BROKEN_OFF: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "body_incomplete",
    "Incomplete",
    "The body of this request was incomplete, or paused for too long.",
);

/// The request was cut off because its session may have ended, and it had not.
pub const BROKEN_OFF_BY_DOUBT: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "request_broken_off",
    "One moment, please",
    "The gateway had to check whether you are still signed in, and you are. It is unknown whether the request took \
     effect.",
)
.passing()
.perhaps_sent();

/// Servers read the path in different ways.
pub fn ambiguous_path(fault: Fault) -> Problem {
    let problem = Problem::new(StatusCode::BAD_REQUEST, "ambiguous_path", "This address is not right", "");
    let way_out = if fault.may_pass() {
        " The people who run this site can let such addresses pass, with tolerates_faults in a route."
    } else {
        ""
    };
    problem.saying(format!("Servers read this address in different ways: {fault}.{way_out}"))
}

/// The head of the request is invalid.
pub const BAD_HEAD: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "bad_request",
    "This request is not right",
    "A request has to name one host.",
);

/// The body of the request is framed in a way that servers read differently.
pub const UNCLEAR_FRAMING: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "unclear_framing",
    "This request is not right",
    "A body is sent with its length or with the one transfer coding 'chunked'.",
);

/// The method is not allowed.
pub const BAD_METHOD: Problem = Problem::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "method_not_allowed",
    "Not possible",
    "This site does not take this kind of request.",
);

/// A bug in the gateway.
pub const DEFECT: Problem = Problem::new(
    StatusCode::INTERNAL_SERVER_ERROR,
    "internal",
    "This is our fault",
    "Something went wrong on this site. If you are signed in, you stay signed in. Try again.",
)
.passing()
.perhaps_sent();
