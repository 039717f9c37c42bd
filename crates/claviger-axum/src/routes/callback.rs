//! `GET /auth/callback`: the provider sends the browser back here.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{Assurance, AuthorizationCode, ReturnTo, request::navigation::FetchSite};
use claviger_engine::{Callback, FinishedSignIn, LoginError, login_cookie_suffix};
use http::{HeaderValue, Method, StatusCode, header, request::Parts};

use crate::{
    claviger::Claviger,
    cookies,
    head::RequestHead,
    pages::Hop,
    params::{BadParams, Params},
    problem::{Problem, no_store},
    respond,
    routes::failed,
    site::SameSite,
};

/// Finishes a sign-in: sets the session cookie and redirects. A failure leads to a page that says
/// what to do, and leaves the browser's session as it is.
pub(crate) async fn callback(State(claviger): State<Claviger>, head: RequestHead, parts: Parts) -> Response {
    let mut response = match read(&parts) {
        // Nobody sees the answer, so the code is left to the delivery that somebody sees.
        _ if *head.method() == Method::HEAD => no_store(StatusCode::NO_CONTENT.into_response()),
        _ if is_prefetch(&parts) => no_store(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        Ok(CallbackParams { already_hopped: false, .. })
            if comes_without_strict_cookies(&claviger, &head) =>
        {
            hop(&parts)
        }
        Ok(CallbackParams { mut callback, .. }) => {
            callback.address = head.peer().own_address();
            finish(&claviger, &parts, &head, callback).await
        }
        Err(error) => {
            let problem = respond::of_bad_params(&error);
            fail(&claviger, &head, "bad_request", problem, &ReturnTo::root()).await
        }
    };
    // The address contains the code.
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn finish(claviger: &Claviger, parts: &Parts, head: &RequestHead, callback: Callback) -> Response {
    let name = format!("{}{}", claviger.site().login_cookie_prefix(), login_cookie_suffix(&callback.state));
    let login_cookie = head.cookies.login(&name);
    let shown = claviger.cookie(head).ok();
    let destination = claviger.engine().login_destination(&callback.state, login_cookie);
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let outcome = claviger
        .engine()
        .finish_login(callback, login_cookie, shown.as_ref(), user_agent.unwrap_or_default())
        .await;
    // After a failure of our own a program may repeat the callback, so its cookie stays. A window
    // starts a new sign-in.
    let over =
        !matches!(outcome, Err(LoginError::Busy { .. } | LoginError::Store(_) | LoginError::UnknownKey(_)));
    let mut response = match outcome {
        Ok(signed_in) => {
            let mut response = welcome(claviger, signed_in);
            if let Some(value) = login_cookie {
                cookies::set(response.headers_mut(), &claviger.site().finished_login(&name, value));
            }
            return response;
        }
        // A browser with a good session has what it came for.
        Err(LoginError::Stale | LoginError::AlreadyUsed)
            if head.navigates() && claviger.caller(head, Assurance::Row).await.is_ok() =>
        {
            let destination = destination.unwrap_or_else(ReturnTo::lost);
            no_store(Redirect::to(destination.as_str()).into_response())
        }
        Err(error) => {
            let (name, problem) = (error.name(), respond::of_login_error(&error));
            fail(claviger, head, name, problem, &destination.unwrap_or_default()).await
        }
    };
    if over && login_cookie.is_some() {
        cookies::set(response.headers_mut(), &claviger.site().removal(&name));
    }
    response
}

/// Answers a sign-in that failed. A window goes to an address without code and state.
async fn fail(
    claviger: &Claviger,
    head: &RequestHead,
    name: &str,
    problem: Problem,
    return_to: &ReturnTo,
) -> Response {
    if head.navigates() {
        failed::lead(name, return_to)
    } else {
        failed::explain(claviger, head, problem, return_to).await
    }
}

/// Returns whether a browser asks ahead, for a page that the user may never open.
fn is_prefetch(parts: &Parts) -> bool {
    let says = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| ["prefetch", "preview"].iter().any(|word| value.contains(word)))
    };
    ["sec-purpose", "purpose", "x-purpose", "x-moz"]
        .iter()
        .any(|name| parts.headers.get_all(*name).iter().any(says))
}

/// Returns whether the browser withheld its `Strict` cookies because the provider's page sent it
/// here. It sends them, and keeps a new one, on a navigation that a page of ours begins (RFC
/// 6265bis section 5.6.7.1).
fn comes_without_strict_cookies(claviger: &Claviger, head: &RequestHead) -> bool {
    claviger.site().same_site == SameSite::Strict
        && head.navigates()
        && matches!(head.fetch_site, FetchSite::User | FetchSite::Other)
}

fn hop(parts: &Parts) -> Response {
    let query = parts.uri.query().unwrap_or_default();
    Hop { next: &format!("/auth/callback?{query}&{HOPPED}=1") }.into_response()
}

struct CallbackParams {
    callback: Callback,
    already_hopped: bool,
}

const HOPPED: &str = "hop";

fn read(parts: &Parts) -> Result<CallbackParams, BadParams> {
    let params = Params::of(&parts.uri)?;
    let text = |name| Ok(params.one(name)?.map(str::to_owned));
    let callback = Callback {
        state: text("state")?.unwrap_or_default(),
        code: text("code")?.map(AuthorizationCode::new),
        error: text("error")?,
        iss: text("iss")?,
        address: None,
    };
    Ok(CallbackParams { callback, already_hopped: params.one(HOPPED)?.is_some() })
}

fn welcome(claviger: &Claviger, signed_in: FinishedSignIn) -> Response {
    let site = claviger.site();
    let mut response = no_store(Redirect::to(signed_in.return_to.as_str()).into_response());
    let headers = response.headers_mut();
    if let Some(cookie) = signed_in.cookie {
        cookies::set(headers, &site.session(cookie));
    }
    if let Some(cached) = signed_in.cached_token_cookie {
        cookies::set(headers, &site.cached_token(cached));
    }
    response
}
