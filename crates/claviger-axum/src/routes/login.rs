//! `GET /auth/login?return_to=&switch=`: begins a sign-in.

use std::collections::BTreeSet;

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{policy::limits, return_to::ReturnTo};
use claviger_engine::LoginStarted;
use http::{StatusCode, request::Parts};

use crate::{
    Claviger, cookies,
    params::{BadParams, Params},
    problem::{Problem, as_page, no_store},
    respond,
};

/// Leads the browser to the provider. `return_to` is a path of this site, `switch=true` lets the user choose another
/// account. Changes nothing but the browser's own sign-in cookies. Where the browser's session is in force and only a new
/// authorization can renew its tokens, it leads to that and keeps the session.
pub(crate) async fn login(State(claviger): State<Claviger>, parts: Parts) -> Response {
    let (return_to, switch) = match read(&parts) {
        Ok(asked) => asked,
        Err(problem) => return problem.answer(as_page(&parts.method, &parts.headers)),
    };
    let started = begin(&claviger, &parts, return_to, switch).await;
    let mut response = no_store(Redirect::to(&started.location).into_response());
    let headers = response.headers_mut();
    let site = claviger.site();
    // Sign-ins that were given up in this browser make room, so that they cannot pile up in its requests.
    let under_way = || cookies::with_prefix(&parts.headers, site.login_cookie_prefix());
    let surplus = (under_way().count() + 1).saturating_sub(limits::LOGINS_PER_BROWSER);
    let given_up: BTreeSet<&str> = under_way().take(surplus.min(limits::LOGINS_PER_BROWSER)).collect();
    for name in given_up {
        cookies::set(headers, &site.removal(name));
    }
    cookies::set(headers, &site.login(&started.tag, started.cookie));
    response
}

/// A session that no refresh can save is repaired, unless the user wants another account.
async fn begin(claviger: &Claviger, parts: &Parts, return_to: ReturnTo, switch: bool) -> LoginStarted {
    let engine = claviger.engine();
    if !switch
        && let Ok(cookie) = claviger.cookie(&parts.headers)
        && let Ok(Some(repair)) = engine.begin_repair(&cookie, return_to.clone()).await
    {
        return repair;
    }
    engine.begin_login(return_to, switch)
}

fn read(parts: &Parts) -> Result<(ReturnTo, bool), Problem> {
    let bad = |error: BadParams| respond::of_bad_params(&error);
    let params = Params::of(&parts.uri).map_err(bad)?;
    let return_to = match params.one("return_to").map_err(bad)? {
        None | Some("") => ReturnTo::root(),
        Some(text) => ReturnTo::parse(text).ok_or_else(|| {
            let message = "After the sign-in only a page of this site can follow; return_to names none.";
            Problem::new(StatusCode::BAD_REQUEST, "bad_return_to", "This address is not right", message)
        })?,
    };
    Ok((return_to, params.one("switch").map_err(bad)? == Some("true")))
}
