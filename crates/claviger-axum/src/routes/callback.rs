//! `GET /auth/callback`: where the provider sends the browser back to.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{request::Assurance, secret::AuthorizationCode};
use claviger_engine::{Callback, LoginError, SignedIn, login_tag};
use http::{HeaderValue, header, request::Parts};

use crate::{
    Claviger, cookies,
    pages::Action,
    params::{BadParams, Params},
    respond::{self, as_page, no_store},
};

/// Finishes a sign-in: sets the session cookie and leads on. Whatever fails is a page that says what to do, and leaves
/// the session that the browser may have as it is.
pub(crate) async fn callback(State(claviger): State<Claviger>, parts: Parts) -> Response {
    let callback = match read(&parts) {
        Ok(callback) => callback,
        Err(error) => return respond::of_bad_params(&error).answer(as_page(&parts.method, &parts.headers)),
    };
    let name = format!("{}{}", claviger.site().login_cookie_prefix(), login_tag(&callback.state));
    let login_cookie = cookies::only(&parts.headers, &name);
    let shown = claviger.cookie(&parts.headers).ok();
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let outcome = claviger
        .engine()
        .finish_login(callback, login_cookie, shown.as_ref(), user_agent.unwrap_or_default())
        .await;
    let mut response = match outcome {
        Ok(signed_in) => welcome(&claviger, signed_in),
        Err(error) => explain(&claviger, &parts, &error).await,
    };
    let headers = response.headers_mut();
    if login_cookie.is_some() {
        cookies::set(headers, &claviger.site().removal(&name));
    }
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn read(parts: &Parts) -> Result<Callback, BadParams> {
    let params = Params::of(&parts.uri)?;
    let text = |name| Ok(params.one(name)?.map(str::to_owned));
    Ok(Callback {
        state: text("state")?.unwrap_or_default(),
        code: text("code")?.map(AuthorizationCode::new),
        error: text("error")?,
        iss: text("iss")?,
    })
}

fn welcome(claviger: &Claviger, signed_in: SignedIn) -> Response {
    let site = claviger.site();
    let mut response = no_store(Redirect::to(signed_in.return_to.as_str()).into_response());
    let headers = response.headers_mut();
    cookies::set(headers, &site.session(signed_in.cookie));
    if let Some(hint) = signed_in.access_hint {
        cookies::set(headers, &site.hint(hint));
    }
    response
}

async fn explain(claviger: &Claviger, parts: &Parts, error: &LoginError) -> Response {
    tracing::info!(%error, "a sign-in did not succeed");
    let mut problem = respond::of_login_error(error);
    if claviger.caller(&parts.headers, Assurance::Session).await.is_ok() {
        problem.message.push_str(" You are still signed in as before.");
        problem.action = Action { href: "/", words: "Go on" };
    }
    problem.answer(as_page(&parts.method, &parts.headers))
}
