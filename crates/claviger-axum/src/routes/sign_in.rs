//! `GET /auth/sign-in?return_to=`: says why a sign-in is needed, and offers it.
//!
//! Only the user starts a sign-in (OWASP ASVS 5.0, 7.6.2). A provider often redirects a user who
//! agreed before straight back, so redirecting there by ourselves would undo a sign-out. The
//! exception is a session in force whose tokens no refresh can renew: it is redirected at once, and
//! keeps its user and its row.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{Assurance, EndReason, ReturnTo, request::navigation::Audience};
use claviger_engine::Denied;
use http::request::Parts;

use crate::{
    claviger::Claviger, head::RequestHead, pages::SignIn, params::Params, problem::no_store, respond,
};

pub(crate) async fn sign_in(State(claviger): State<Claviger>, head: RequestHead, parts: Parts) -> Response {
    let page = head.shows_page();
    let read = || {
        let params = Params::of(&parts.uri)?;
        let return_to = params.one("return_to")?.and_then(ReturnTo::parse).unwrap_or_default();
        let is_true = |name| Ok(params.one(name)? == Some("true"));
        Ok((return_to, is_true("signed_out")?, is_true("again")?, is_true("switch")?))
    };
    let (return_to, signed_out, again, switch) = match read() {
        Ok(asked) => asked,
        Err(error) => return respond::of_bad_params(&error).answer(page),
    };
    let denied = match claviger.caller(&head, Assurance::Session).await {
        Ok(_) if again || switch => Denied::SignInAgain,
        // The provider does not show itself in a frame, so there the user opens a window first.
        Err(Denied::SignInAgain) if page && head.audience == Audience::Window => {
            let return_to = claviger.shortened(return_to).await;
            return no_store(Redirect::to(&login_address(&return_to, false)).into_response());
        }
        Ok(_) => {
            let return_to = claviger.shortened(return_to).await;
            return no_store(Redirect::to(return_to.as_str()).into_response());
        }
        Err(denied) => denied,
    };
    let Some(Words { title, text, ask_again }) = words(&denied, signed_out) else {
        return respond::of_denied(&denied).answer(page);
    };
    let provider = claviger.engine().provider().display_name;
    let login = login_address(&return_to, ask_again || switch);
    let mut page = SignIn::new(title, text, &login, provider);
    page.way_back = signed_out;
    page.into_response()
}

fn login_address(return_to: &ReturnTo, switch: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("return_to", return_to.as_str());
    if switch {
        query.append_pair("switch", "true");
    }
    format!("/auth/login?{}", query.finish())
}

struct Words {
    title: &'static str,
    text: &'static str,
    /// Whether the provider must ask again, even if the user agreed before: after a sign-out
    /// somebody else may use this browser.
    ask_again: bool,
}

fn words(denied: &Denied, signed_out: bool) -> Option<Words> {
    let words = |title, text, ask_again| Some(Words { title, text, ask_again });
    match denied {
        Denied::NoSession if signed_out => {
            words("You are signed out", "You can close this page, or sign in again.", true)
        }
        Denied::NoSession => words("Please sign in", "You need to be signed in to continue.", false),
        Denied::SignInAgain => words(
            "Please sign in again",
            "This page needs the sign-in service to confirm who you are.",
            false,
        ),
        Denied::Ended(reason) => {
            let (text, ask_again) = why(*reason);
            words("You were signed out", text, ask_again)
        }
        Denied::ProviderUnavailable { .. }
        | Denied::Misconfigured
        | Denied::ClockUnconfirmed { .. }
        | Denied::Store(_)
        | Denied::UnknownKey(_) => None,
    }
}

/// Returns why a session ended, in words for its user, and whether the provider must ask again.
fn why(reason: EndReason) -> (&'static str, bool) {
    match reason {
        EndReason::SignedOut => ("You signed out on this device.", true),
        EndReason::SignedOutFromAnotherDevice => ("You signed this device out from another one.", true),
        EndReason::SignedOutEverywhere => ("You signed out on all your devices.", true),
        EndReason::DisconnectedAtProvider => {
            ("You disconnected this site in your settings at the sign-in service.", true)
        }
        EndReason::RefreshTokenRejected => ("The sign-in service no longer accepts this sign-in.", false),
        EndReason::TokenOfAnotherSubject => ("Something was wrong with this sign-in, so it was ended.", true),
        EndReason::Idle => ("This device was not used for a long time.", false),
        EndReason::TooOld => ("From time to time we ask you to sign in again.", false),
        EndReason::DeviceLimit => ("You signed in on more devices than this site allows.", false),
        EndReason::Administrator => ("The people who run this site ended this sign-in.", true),
        EndReason::ProviderLogout => ("You signed out at the sign-in service.", true),
        EndReason::AccountGone => ("Your account at the sign-in service no longer exists.", true),
        EndReason::ReplacedBySignIn => ("You signed in again in this browser.", false),
    }
}
