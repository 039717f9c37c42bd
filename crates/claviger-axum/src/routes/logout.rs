//! `POST /auth/logout`: signs this device out.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::session::EndReason;
use claviger_engine::{Denied, EndError};
use http::{StatusCode, request::Parts};

use crate::{
    Claviger, cookies,
    problem::{as_page, no_store},
    respond,
};

/// Ends the session and removes the cookies; the provider is told later. Safe to repeat.
pub(crate) async fn logout(State(claviger): State<Claviger>, parts: Parts) -> Response {
    let page = as_page(&parts.method, &parts.headers);
    match end_own(&claviger, &parts).await {
        Ok(()) => signed_out(&claviger, page),
        Err(denied) => respond::of_denied(&denied).posted().answer(page),
    }
}

async fn end_own(claviger: &Claviger, parts: &Parts) -> Result<(), Denied> {
    // Of two cookies one was planted; whoever wants to sign out wants neither.
    for value in cookies::every(&parts.headers, claviger.site().session_cookie()) {
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

/// The answer to a browser that was signed out.
pub(crate) fn signed_out(claviger: &Claviger, page: bool) -> Response {
    let answer = if page {
        Redirect::to("/auth/sign-in?signed_out=true").into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    };
    let mut response = no_store(answer);
    let site = claviger.site();
    for name in [site.session_cookie(), site.hint_cookie()] {
        cookies::set(response.headers_mut(), &site.removal(name));
    }
    response
}
