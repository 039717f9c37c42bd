//! `GET /auth/sign-in?return_to=`: says why somebody has to sign in, and offers it.
//!
//! Nobody is signed in without asking for it (OWASP ASVS 5.0, 7.6.2): a provider often leads a user who agreed before
//! straight back, so going there by ourselves would undo a sign-out. Only a session that is in force, and whose tokens no
//! refresh can renew, goes there at once: it keeps its user and its row.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{request::Assurance, return_to::ReturnTo, session::EndReason};
use claviger_engine::Denied;
use http::{StatusCode, request::Parts};

use crate::{
    Claviger,
    pages::SignIn,
    params::Params,
    problem::{as_page, no_store},
    respond,
};

pub(crate) async fn sign_in(State(claviger): State<Claviger>, parts: Parts) -> Response {
    let page = as_page(&parts.method, &parts.headers);
    let read = || {
        let params = Params::of(&parts.uri)?;
        let return_to = params.one("return_to")?.and_then(ReturnTo::parse).unwrap_or_default();
        let is_true = |name| Ok(params.one(name)? == Some("true"));
        Ok((return_to, is_true("signed_out")?, is_true("again")?))
    };
    let (return_to, signed_out, again) = match read() {
        Ok(asked) => asked,
        Err(error) => return respond::of_bad_params(&error).answer(page),
    };
    let denied = match claviger.caller(&parts.headers, Assurance::Session).await {
        Ok(_) if again => Denied::SignInAgain,
        Err(Denied::SignInAgain) if page => {
            return no_store(Redirect::to(&login_address(&return_to, false)).into_response());
        }
        Ok(_) => return no_store(Redirect::to(return_to.as_str()).into_response()),
        Err(denied) => denied,
    };
    let Some(Words { title, text, ask_again }) = words(&denied, signed_out) else {
        return respond::of_denied(&denied).answer(page);
    };
    let provider = title_case(&claviger.engine().provider().name.0);
    let login = login_address(&return_to, ask_again);
    let mut response = SignIn { title, text, login: &login, provider: &provider }.into_response();
    *response.status_mut() = StatusCode::OK;
    response
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
    /// Whether the provider shall ask even a user who agreed before: after a sign-out somebody else may sit here.
    ask_again: bool,
}

fn words(denied: &Denied, signed_out: bool) -> Option<Words> {
    let words = |title, text, ask_again| Some(Words { title, text, ask_again });
    match denied {
        Denied::NoSession if signed_out => {
            words("You are signed out", "You can close this page, or sign in again.", true)
        }
        Denied::NoSession => words("Please sign in", "You need to be signed in to go on.", false),
        Denied::SignInAgain => words(
            "Please sign in again",
            "We need the sign-in service's word on you once more to go on.",
            false,
        ),
        Denied::Ended(reason) => {
            let (text, ask_again) = why(*reason);
            words("You were signed out", text, ask_again)
        }
        Denied::ProviderTrouble { .. } | Denied::Misconfigured | Denied::Store(_) | Denied::UnknownKey(_) => {
            None
        }
    }
}

/// Why a session ended, in words for its user.
fn why(reason: EndReason) -> (&'static str, bool) {
    match reason {
        EndReason::SignedOut => ("You signed out on this device.", true),
        EndReason::SignedOutFromAnotherDevice => ("You signed this device out from another one.", true),
        EndReason::SignedOutEverywhere => ("You signed out on all your devices.", true),
        EndReason::DisconnectedAtProvider => {
            ("You disconnected this site in your account's settings at the sign-in service.", true)
        }
        EndReason::RefreshTokenRejected => ("The sign-in service no longer vouches for this sign-in.", false),
        EndReason::TokenOfAnotherSubject => ("Something was wrong with this sign-in, so it was ended.", true),
        EndReason::Idle => ("This device was not used for a long time.", false),
        EndReason::TooOld => ("From time to time we ask you to sign in anew.", false),
        EndReason::DeviceLimit => ("You signed in on more devices than this site allows.", false),
        EndReason::Administrator => ("The people who run this site ended this sign-in.", true),
        EndReason::ProviderLogout => ("You signed out at the sign-in service.", true),
        EndReason::AccountGone => ("The account is gone at the sign-in service.", true),
        EndReason::ReplacedBySignIn => ("You signed in again in this browser.", false),
    }
}

fn title_case(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
