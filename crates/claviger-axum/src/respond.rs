//! Which denial and error becomes which answer. One place says which status.

use std::time::Duration;

use axum::{
    extract::OriginalUri,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{policy::limits, return_to::ReturnTo};
use claviger_engine::{Denied, EndError, LoginError, NoticeError};
use claviger_provider::Refused;
use claviger_store::StoreError;
use http::{HeaderMap, StatusCode, request::Parts};

use crate::{
    guard::Crossed,
    navigation::{can_navigate, wants_html},
    pages::Action,
    params::BadParams,
    problem::{Problem, no_store},
};

/// The answer to a request that is not served.
pub(crate) fn denied(request: &Parts, denied: &Denied) -> Response {
    let navigates = can_navigate(&request.method, &request.headers);
    let problem = of_denied(denied);
    if navigates && problem.sign_in_helps {
        // A nested router sees a part of the address only.
        let uri = request.extensions.get::<OriginalUri>().map_or(&request.uri, |OriginalUri(whole)| whole);
        let target = uri.path_and_query().map_or("/", |path| path.as_str());
        return to_sign_in(target, denied);
    }
    problem.answer(navigates)
}

/// Leads a navigation to the sign-in, and back to where it wanted to go.
///
/// A session in force that needs a new authorization goes by the sign-in page too: it knows what helps.
pub(crate) fn to_sign_in(target: &str, denied: &Denied) -> Response {
    let return_to = ReturnTo::parse(target).unwrap_or_default();
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("return_to", return_to.as_str());
    // The session may be good for less than what was asked for, so being signed in is not enough to be led back.
    if matches!(denied, Denied::SignInAgain) {
        query.append_pair("again", "true");
    }
    no_store(Redirect::to(&format!("/auth/sign-in?{}", query.finish())).into_response())
}

pub(crate) fn of_denied(denied: &Denied) -> Problem {
    let signed_out = |message: &'static str, reason| {
        Problem::new(StatusCode::UNAUTHORIZED, "sign_in_required", "Please sign in", message)
            .with_sign_in(reason)
    };
    match denied {
        Denied::NoSession => signed_out("You are not signed in.", None),
        Denied::Ended(reason) => signed_out("You were signed out on this device.", Some(reason.name())),
        Denied::SignInAgain => signed_out("Please sign in again to go on.", Some("renewal_needed")),
        Denied::ProviderTrouble { retry_after } => provider_trouble(
            *retry_after,
            "The sign-in service does not answer at the moment. You are still signed in; try again shortly.",
        ),
        Denied::Misconfigured => misconfigured(),
        Denied::Store(error) => store_trouble(error),
        Denied::UnknownKey(id) => unknown_key(format!(
            "Key {id} is missing on this site's server. You are still signed in; the people who run this site must \
             mend that."
        )),
    }
}

/// The answer to a sign-in that did not succeed.
pub(crate) fn of_login_error(error: &LoginError) -> Problem {
    let again = |error, title, message: &'static str| {
        Problem::new(StatusCode::BAD_REQUEST, error, title, message).with_sign_in(None)
    };
    match error {
        LoginError::Stale => again(
            "sign_in_stale",
            "This sign-in is no longer open",
            "It took longer than ten minutes, or it began in another browser. Nothing is lost: start again.",
        ),
        LoginError::AlreadyUsed => again(
            "sign_in_used",
            "This sign-in is already finished",
            "The page was opened a second time. If you are signed in, just go on; else start again.",
        ),
        LoginError::DeniedByUser => again(
            "access_denied",
            "You did not sign in",
            "You chose not to give access. Nothing was changed.",
        ),
        LoginError::RefusedByProvider(_) => again(
            "refused_by_provider",
            "The sign-in was refused",
            "The sign-in service refused this sign-in. Try again; if it stays so, tell the people who run this site.",
        ),
        LoginError::WrongIssuer => again(
            "wrong_issuer",
            "The sign-in was stopped",
            "The answer came from another sign-in service than the one that was asked. Nobody was signed in.",
        ),
        LoginError::Busy => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_sign_ins",
            "One moment, please",
            "Many people are signing in at the moment. Try again in a few seconds.",
        )
        .later(limits::RETRY_AFTER),
        LoginError::CodeRejected => again(
            "code_rejected",
            "The sign-in took too long",
            "The sign-in service does not accept this answer any more. Start again.",
        ),
        LoginError::AnotherUser => again(
            "another_user",
            "Somebody else is signed in there",
            "The sign-in service knows this browser as another user than this site does. Nothing was changed. Sign in \
             with the account that you want to use here.",
        )
        .offering(Action::switch_account()),
        LoginError::SessionEnded => again(
            "session_ended",
            "You were signed out",
            "This device was signed out in the meantime. Sign in to go on.",
        ),
        LoginError::NotOurToken => again(
            "not_our_token",
            "The sign-in was stopped",
            "The sign-in service answered with somebody else's sign-in. Nobody was signed in.",
        ),
        LoginError::ScopesMissing => again(
            "scopes_missing",
            "Something is missing",
            "This site needs all of the access it asked for. Start again and agree to all of it.",
        ),
        LoginError::ProviderTrouble { retry_after } => {
            let message = "The sign-in service does not answer at the moment. Start again shortly.";
            provider_trouble(*retry_after, message).offering(Action::sign_in())
        }
        LoginError::Misconfigured => misconfigured().offering(Action::sign_in()),
        LoginError::Store(error) => {
            store_trouble(error).saying("This site cannot finish a sign-in at the moment. Try again shortly.")
        }
        LoginError::UnknownKey(id) => unknown_key(format!(
            "Key {id} is missing on this site's server. The people who run this site must mend that."
        )),
    }
}

pub(crate) fn of_end_error(error: &EndError) -> Problem {
    match error {
        EndError::NotFound => Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_device",
            "No such device",
            "This device is not, or no longer, in your list.",
        )
        .offering(Action::devices()),
        EndError::Store(error) => store_trouble(error),
    }
}

/// The answer to a message at the webhook that was not taken.
pub(crate) fn of_notice_error(error: &NoticeError) -> Problem {
    match error {
        NoticeError::Refused(Refused::TooLarge) => refused_notice(StatusCode::PAYLOAD_TOO_LARGE),
        NoticeError::Refused(Refused::Malformed) => refused_notice(StatusCode::BAD_REQUEST),
        NoticeError::Refused(Refused::Forged | Refused::Stale) => refused_notice(StatusCode::FORBIDDEN),
        NoticeError::Unwanted => refused_notice(StatusCode::NOT_FOUND),
        // The provider sends again what was answered so.
        NoticeError::Store(error) => store_trouble(error).saying("Send it again shortly."),
    }
}

/// All of them in the same words: who tries to forge one learns nothing from them.
pub(crate) fn refused_notice(status: StatusCode) -> Problem {
    Problem::new(status, "message_refused", "Not accepted", "This message is not accepted.")
}

pub(crate) fn of_bad_params(error: &BadParams) -> Problem {
    bad_request("").saying(error.to_string())
}

/// The answer to an address that asks for what does not exist.
pub(crate) fn bad_request(message: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", "This address is not right", message)
}

/// The answer to an unsafe request that another site may have made.
pub(crate) fn cross_site(headers: &HeaderMap, crossed: Crossed) -> Response {
    let message = match crossed {
        Crossed::AnotherSite => "Another site tried to do this in your name. Nothing was changed.",
        Crossed::SaysNothing => {
            "The request does not say which page made it. Programs must send an Origin header. Nothing was changed."
        }
    };
    Problem::new(StatusCode::FORBIDDEN, "cross_site", "This was stopped for your safety", message)
        .answer(wants_html(headers))
}

fn provider_trouble(retry_after: Duration, message: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable", "One moment, please", message)
        .later(retry_after)
}

fn misconfigured() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "misconfigured",
        "This is our fault",
        "The sign-in service refuses this site's own credentials. The people who run this site must mend that.",
    )
    .later(limits::RETRY_AFTER_OPERATOR)
}

fn unknown_key(message: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "key_missing", "This is our fault", "")
        .saying(message)
        .later(limits::RETRY_AFTER_OPERATOR)
}

fn store_trouble(error: &StoreError) -> Problem {
    tracing::error!(%error, "a request could not be served");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "store_unavailable",
        "One moment, please",
        "This site cannot look up who is signed in at the moment. You are still signed in; try again shortly.",
    )
    .later(limits::RETRY_AFTER)
}
