//! Maps each denial and error to its answer: status, code and text.

use std::{borrow::Cow, time::Duration};

use axum::response::{IntoResponse, Redirect, Response};
use claviger_core::{ReturnTo, limits};
use claviger_engine::{Denied, DestinationError, EndError, LoginError, WebhookError};
use claviger_provider::Refused;
use claviger_store::StoreError;
use http::{HeaderValue, StatusCode, header};

use crate::{
    guard::CrossSite,
    head::{RequestHead, TooManyCookies},
    pages::Action,
    params::BadParams,
    problem::{Problem, no_store},
};

const TOO_MANY_COOKIES: Problem = Problem::new(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "too_many_cookies",
    "Too many cookies",
    "Your browser keeps more cookies for this site than it reads, so it cannot see whether you are signed in. Nothing \
     has changed. Delete this site's cookies in your browser's settings, and sign in again.",
);

impl IntoResponse for TooManyCookies {
    fn into_response(self) -> Response {
        let mut answer = TOO_MANY_COOKIES.answer(self.shows_page);
        // It is not known where the next request begins (RFC 9112 section 6.3).
        if self.unclear_framing {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// Redirects a navigation to the sign-in, which leads back to `return_to`.
///
/// A session in force that needs a new authorization takes the same way: the sign-in page knows
/// what helps.
pub(crate) fn to_sign_in(return_to: &ReturnTo, denied: &Denied) -> Response {
    no_store(Redirect::to(&sign_in_address(return_to, denied)).into_response())
}

/// The address of the sign-in page, which leads back to `return_to`.
pub(crate) fn sign_in_address(return_to: &ReturnTo, denied: &Denied) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("return_to", return_to.as_str());
    // The session may be in force and yet not enough for this route. Without `again`, the sign-in
    // page would redirect straight back.
    if matches!(denied, Denied::SignInAgain) {
        query.append_pair("again", "true");
    }
    format!("/auth/sign-in?{}", query.finish())
}

pub(crate) fn of_denied(denied: &Denied) -> Problem {
    let signed_out = |message: &'static str, reason| {
        Problem::new(StatusCode::UNAUTHORIZED, "sign_in_required", "Please sign in", message)
            .with_sign_in(reason)
            .offering(Action::sign_in_page())
    };
    match denied {
        Denied::NoSession => signed_out("You are not signed in.", None),
        Denied::Ended(reason) => signed_out("You were signed out on this device.", Some(reason.name())),
        Denied::SignInAgain => signed_out("Please sign in again to continue.", Some("renewal_needed")),
        Denied::ProviderUnavailable { retry_after } => provider_failure(
            *retry_after,
            "The sign-in service does not answer at the moment. You are still signed in. Try again shortly.",
        ),
        Denied::Misconfigured => misconfigured(),
        Denied::ClockUnconfirmed { retry_after } => clock_unconfirmed(*retry_after),
        Denied::Store(error) => store_failure(error),
        Denied::UnknownKey(id) => unknown_key(format!(
            "Key {id} is missing on this site's server. If you are signed in, you stay signed in. The people who run this site need \
             to fix this."
        )),
    }
}

/// Answers a sign-in that failed.
pub(crate) fn of_login_error(error: &LoginError) -> Problem {
    let problem = of_failed_sign_in(error.name()).unwrap_or_else(|| bad_request("The sign-in failed."));
    match error {
        LoginError::Busy { retry_after } | LoginError::ProviderUnavailable { retry_after } => {
            problem.after(*retry_after)
        }
        LoginError::Store(error) => {
            log_store_failure(error);
            problem
        }
        LoginError::UnknownKey(id) => problem.saying(format!(
            "Key {id} is missing on this site's server. The people who run this site need to fix this."
        )),
        _ => problem,
    }
}

/// Says why a sign-in failed, of the name of a [`LoginError`].
pub(crate) fn of_failed_sign_in(name: &str) -> Option<Problem> {
    let again = |error, title, message: &'static str| {
        Some(Problem::new(StatusCode::BAD_REQUEST, error, title, message).with_sign_in(None))
    };
    match name {
        "sign_in_stale" => again(
            "sign_in_stale",
            "This sign-in is no longer open",
            "It took longer than ten minutes, or it began in another browser. Start again. If you followed a link, open it once more after that.",
        ),
        "sign_in_used" => again(
            "sign_in_used",
            "This sign-in is already finished",
            "The page was opened a second time. If you are signed in, just continue. Otherwise start again.",
        ),
        "access_denied" => {
            again("access_denied", "You did not sign in", "You chose not to give access. Nothing has changed.")
        }
        "refused_by_provider" => again(
            "refused_by_provider",
            "The sign-in was refused",
            "The sign-in service refused this sign-in. Try again. If it happens again, tell the people who run this site.",
        ),
        "wrong_issuer" => again(
            "wrong_issuer",
            "The sign-in was stopped",
            "The answer came from another sign-in service than the one we asked. Nothing has changed.",
        ),
        "code_rejected" => again(
            "code_rejected",
            "The sign-in took too long",
            "The sign-in service no longer accepts this answer. Start again.",
        ),
        "another_user" => again(
            "another_user",
            "Another account is signed in there",
            "You are signed in to the sign-in service with another account than to this site. Nothing has changed. \
             Sign in with the account that you want to use here.",
        )
        .map(|problem| problem.offering(Action::switch_account())),
        "session_ended" => again(
            "session_ended",
            "You were signed out",
            "This device was signed out in the meantime. Sign in to continue.",
        ),
        "not_our_token" => again(
            "not_our_token",
            "The sign-in was stopped",
            "The sign-in service answered with a token for another site. Nothing has changed.",
        ),
        "scopes_missing" => again(
            "scopes_missing",
            "Something is missing",
            "This site needs all of the access that it asks for. Start again and agree to all of it.",
        ),
        "form_unsent" => Some(of_denied(&Denied::NoSession).unsent_before()),
        "bad_request" => again(
            "bad_request",
            "This address is not right",
            "The sign-in service sent your browser back with an address that this site cannot read. Start again.",
        ),
        _ => of_passing_failure(name).map(|problem| problem.offering(Action::try_sign_in())),
    }
}

/// Says why a sign-in failed for a reason that passes.
fn of_passing_failure(name: &str) -> Option<Problem> {
    let problem = match name {
        "too_many_sign_ins" => too_many_sign_ins(),
        "provider_unavailable" => provider_failure(
            limits::RETRY_AFTER,
            "The sign-in service does not answer at the moment. Start again shortly.",
        ),
        "misconfigured" => misconfigured(),
        "store_unavailable" => {
            store_unavailable().saying("This site cannot finish a sign-in at the moment. Try again shortly.")
        }
        "key_missing" => unknown_key(
            "A key is missing on this site's server. The people who run this site need to fix this.",
        ),
        _ => return None,
    };
    Some(problem)
}

pub(crate) fn of_end_error(error: &EndError) -> Problem {
    match error {
        EndError::NotFound => Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_device",
            "No such device",
            "This device is not in your list. It may have been signed out already.",
        )
        .offering(Action::devices()),
        EndError::Store(error) => store_failure(error),
    }
}

/// Answers a kept destination that could not be looked up.
pub(crate) fn of_destination_error(error: &DestinationError) -> Problem {
    match error {
        DestinationError::Busy { retry_after } => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_destinations",
            "One moment, please",
            "Many long addresses are being opened. Try again in a few seconds.",
        )
        .later(*retry_after),
        DestinationError::Store(error) => store_failure(error),
    }
}

/// Answers a webhook message that was not accepted.
pub(crate) fn of_webhook_error(error: &WebhookError) -> Problem {
    match error {
        WebhookError::Refused(Refused::TooLarge) => refused_webhook_event(StatusCode::PAYLOAD_TOO_LARGE),
        WebhookError::Refused(Refused::Malformed) => refused_webhook_event(StatusCode::BAD_REQUEST),
        WebhookError::Refused(Refused::Forged | Refused::Stale) => {
            refused_webhook_event(StatusCode::FORBIDDEN)
        }
        WebhookError::Unwanted => refused_webhook_event(StatusCode::NOT_FOUND),
        // The provider repeats a message that gets a 5xx.
        WebhookError::Store(error) => store_failure(error).saying("Send it again shortly."),
    }
}

/// All refusals share one text, so that a forger learns nothing.
pub(crate) fn refused_webhook_event(status: StatusCode) -> Problem {
    Problem::new(status, "message_refused", "Not accepted", "This message is not accepted.")
}

pub(crate) fn of_bad_params(error: &BadParams) -> Problem {
    bad_request("").saying(error.to_string())
}

/// Answers an address that makes no sense.
pub(crate) fn bad_request(message: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", "This address is not right", message)
}

/// Answers an unsafe request that another site may have made.
pub(crate) fn cross_site(head: &RequestHead, cross_site: CrossSite) -> Response {
    let message = match cross_site {
        CrossSite::AnotherSite => "Another site tried to do this in your name. Nothing has changed.",
        CrossSite::NoOrigin => {
            "The request does not say which page made it. Programs must send an Origin header. Nothing has changed."
        }
    };
    Problem::new(StatusCode::FORBIDDEN, "cross_site", "This was stopped for your safety", message)
        .answer_to(head)
}

fn provider_failure(retry_after: Duration, message: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable", "One moment, please", message)
        .later(retry_after)
}

fn clock_unconfirmed(retry_after: Duration) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "clock_unconfirmed",
        "One moment, please",
        "This site's server is not sure of the time, so it cannot say whether your sign-in is too old. You are still \
         signed in. Try again shortly.",
    )
    .later(retry_after)
}

fn too_many_sign_ins() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_sign_ins",
        "One moment, please",
        "Many sign-ins are under way, or many failed. Try again in a few seconds.",
    )
    .later(limits::RETRY_AFTER)
}

fn misconfigured() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "misconfigured",
        "This is our fault",
        "The sign-in service refuses this site's own credentials. The people who run this site need to fix this.",
    )
    .later(limits::RETRY_AFTER_OPERATOR)
}

fn unknown_key(message: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "key_missing", "This is our fault", "")
        .saying(message)
        .later(limits::RETRY_AFTER_OPERATOR)
}

pub(crate) fn store_failure(error: &StoreError) -> Problem {
    log_store_failure(error);
    store_unavailable()
}

fn log_store_failure(error: &StoreError) {
    // The engine logs an outage once, and not each request that meets it.
    if error.is_outage() {
        tracing::debug!(%error, "the store failed, so a request was not served");
    } else {
        tracing::error!(%error, "the store failed, so a request was not served");
    }
}

fn store_unavailable() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "store_unavailable",
        "One moment, please",
        "This site cannot look up who is signed in at the moment. If you are signed in, you stay signed in. Try again shortly.",
    )
    .later(limits::RETRY_AFTER)
}
