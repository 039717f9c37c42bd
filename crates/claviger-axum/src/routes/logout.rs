//! `POST /auth/logout?return_to=`: signs this device out.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{EndReason, ReturnTo};
use claviger_engine::{Denied, EndError};
use http::{HeaderName, StatusCode, request::Parts};

use crate::{claviger::Claviger, cookies, head::RequestHead, params::Params, problem::no_store, respond};

/// Ends the session and removes the cookies; the tokens are revoked later. Safe to repeat. A page
/// goes on to `return_to`, a path of this site.
pub(crate) async fn logout(State(claviger): State<Claviger>, head: RequestHead, parts: Parts) -> Response {
    let page = head.shows_page();
    // An unreadable address must not keep anybody signed in.
    let given = Params::of(&parts.uri)
        .ok()
        .and_then(|params| params.one("return_to").ok().flatten().map(str::to_owned));
    // A long one would make the head of the answer too large for some front proxies.
    let return_to = given.as_deref().and_then(ReturnTo::parse).filter(ReturnTo::is_short);
    match end_own(&claviger, &head).await {
        Ok(()) => signed_out(&claviger, page, return_to.as_ref()),
        Err(denied) => respond::of_denied(&denied).posted().answer(page),
    }
}

async fn end_own(claviger: &Claviger, head: &RequestHead) -> Result<(), Denied> {
    // Of two cookies one was planted. A sign-out ends both.
    for value in head.cookies.distinct_sessions() {
        let cookie = match claviger.engine().open_cookie(value) {
            Ok(cookie) => cookie,
            Err(Denied::NoSession) => continue,
            Err(denied) => return Err(denied),
        };
        match claviger.engine().end_own(&cookie, EndReason::SignedOut).await {
            Ok(_) | Err(EndError::NotFound) => {}
            Err(EndError::Store(error)) => return Err(Denied::Store(error)),
        }
    }
    Ok(())
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Answers a browser that has signed out.
pub(crate) fn signed_out(claviger: &Claviger, page: bool, return_to: Option<&ReturnTo>) -> Response {
    let answer = if page {
        let next = return_to.map_or("/auth/sign-in?signed_out=true", ReturnTo::as_str);
        Redirect::to(next).into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    };
    let mut response = no_store(answer);
    let site = claviger.site();
    for name in [site.session_cookie(), site.cached_token_cookie()] {
        cookies::set(response.headers_mut(), &site.removal(name));
    }
    if let Some(cleared) = site.cleared() {
        response.headers_mut().insert(CLEAR_SITE_DATA, cleared);
    }
    response
}
