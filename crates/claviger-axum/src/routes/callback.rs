//! `GET /auth/callback`: where the provider sends the browser back to.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{request::Assurance, secret::AuthorizationCode};
use claviger_engine::{Callback, LoginError, SignedIn, login_tag};
use http::{HeaderValue, header, request::Parts};

use crate::{
    Claviger, SameSite, cookies,
    navigation::can_navigate,
    pages::{Action, Hop},
    params::{BadParams, Params},
    problem::{Problem, as_page, no_store},
    respond,
};

/// Finishes a sign-in: sets the session cookie and leads on. Whatever fails is a page that says what to do, and leaves
/// the session that the browser may have as it is.
pub(crate) async fn callback(State(claviger): State<Claviger>, parts: Parts) -> Response {
    let mut response = match read(&parts) {
        Ok(Asked { hopped: false, .. }) if comes_without_strict_cookies(&claviger, &parts) => hop(&parts),
        Ok(Asked { callback, .. }) => finish(&claviger, &parts, callback).await,
        Err(error) => explain(&claviger, &parts, respond::of_bad_params(&error)).await,
    };
    // The code stands in this address.
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn finish(claviger: &Claviger, parts: &Parts, callback: Callback) -> Response {
    let name = format!("{}{}", claviger.site().login_cookie_prefix(), login_tag(&callback.state));
    let login_cookie = cookies::only(&parts.headers, &name);
    let shown = claviger.cookie(&parts.headers).ok();
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let outcome = claviger
        .engine()
        .finish_login(callback, login_cookie, shown.as_ref(), user_agent.unwrap_or_default())
        .await;
    // Where our own trouble came first, the same callback may still succeed.
    let over = !matches!(outcome, Err(LoginError::Busy | LoginError::Store(_) | LoginError::UnknownKey(_)));
    let mut response = match outcome {
        Ok(signed_in) => welcome(claviger, signed_in),
        Err(error) => {
            tracing::info!(%error, "a sign-in did not succeed");
            explain(claviger, parts, respond::of_login_error(&error)).await
        }
    };
    if over && login_cookie.is_some() {
        cookies::set(response.headers_mut(), &claviger.site().removal(&name));
    }
    response
}

/// Whether the browser kept its `Strict` cookies back, because a page of the provider sent it here. They come with a
/// navigation that a page of ours begins, and so does the one that is about to be set (RFC 6265bis section 5.6.7.1).
fn comes_without_strict_cookies(claviger: &Claviger, parts: &Parts) -> bool {
    let from = parts.headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    claviger.site().same_site == SameSite::Strict
        && can_navigate(&parts.method, &parts.headers)
        && from.is_some_and(|from| from != b"same-origin")
}

fn hop(parts: &Parts) -> Response {
    let query = parts.uri.query().unwrap_or_default();
    Hop { next: &format!("/auth/callback?{query}&{HOPPED}=1") }.into_response()
}

struct Asked {
    callback: Callback,
    hopped: bool,
}

const HOPPED: &str = "hop";

fn read(parts: &Parts) -> Result<Asked, BadParams> {
    let params = Params::of(&parts.uri)?;
    let text = |name| Ok(params.one(name)?.map(str::to_owned));
    let callback = Callback {
        state: text("state")?.unwrap_or_default(),
        code: text("code")?.map(AuthorizationCode::new),
        error: text("error")?,
        iss: text("iss")?,
    };
    Ok(Asked { callback, hopped: params.one(HOPPED)?.is_some() })
}

fn welcome(claviger: &Claviger, signed_in: SignedIn) -> Response {
    let site = claviger.site();
    let mut response = no_store(Redirect::to(signed_in.return_to.as_str()).into_response());
    let headers = response.headers_mut();
    if let Some(cookie) = signed_in.cookie {
        cookies::set(headers, &site.session(cookie));
    }
    if let Some(hint) = signed_in.access_hint {
        cookies::set(headers, &site.hint(hint));
    }
    response
}

async fn explain(claviger: &Claviger, parts: &Parts, mut problem: Problem) -> Response {
    if claviger.caller(&parts.headers, Assurance::Session).await.is_ok() {
        problem.message.to_mut().push_str(" You are still signed in as before.");
        problem.action = Action { href: "/", words: "Go on" };
    }
    problem.answer(as_page(&parts.method, &parts.headers))
}
