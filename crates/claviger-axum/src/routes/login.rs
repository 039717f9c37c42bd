//! `GET /auth/login?return_to=&switch=`: begins a sign-in.

use std::collections::BTreeSet;

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{ReturnTo, limits};
use claviger_engine::LoginStarted;
use http::{StatusCode, request::Parts};

use crate::{
    claviger::Claviger,
    cookies,
    guard::CrossSite,
    head::RequestHead,
    params::{BadParams, Params},
    problem::{Problem, no_store},
    respond,
};

/// Redirects the browser to the provider. `return_to` is a path of this site; `switch=true` lets
/// the user choose another account. Only sign-in cookies change.
///
/// If the browser's session is in force and only a new authorization can renew its tokens, the
/// sign-in does that and keeps the session. Otherwise only a page of this site or the user may
/// begin one: a page of another site leads to the sign-in page.
pub(crate) async fn login(State(claviger): State<Claviger>, head: RequestHead, parts: Parts) -> Response {
    let (return_to, switch) = match read(&parts) {
        Ok(asked) => asked,
        Err(problem) => return problem.answer_to(&head),
    };
    let return_to = claviger.shortened(return_to).await;
    let repair = if switch { None } else { begin_repair(&claviger, &head, &return_to).await };
    let started = match repair {
        Some(repair) => repair,
        None if head.began_here() => claviger.engine().begin_login(return_to, switch),
        None if head.navigates() => {
            return no_store(Redirect::to(&ask_first(&return_to, switch)).into_response());
        }
        None => return claviger.refuse_cross_site(&head, CrossSite::AnotherSite),
    };
    let mut response = no_store(Redirect::to(&started.location).into_response());
    let headers = response.headers_mut();
    let site = claviger.site();
    // Older sign-ins of this browser give way, so that their cookies do not pile up in its
    // requests.
    let under_way = || head.cookies.logins();
    let surplus = (under_way().count() + 1).saturating_sub(limits::LOGINS_PER_BROWSER);
    let given_up: BTreeSet<&str> = under_way().take(surplus.min(limits::LOGINS_PER_BROWSER)).collect();
    for name in given_up {
        cookies::set(headers, &site.removal(name));
    }
    cookies::set(headers, &site.login(&started.cookie_suffix, started.cookie));
    response
}

/// Begins the repair of the browser's session, if it is in force and no refresh can save it.
async fn begin_repair(claviger: &Claviger, head: &RequestHead, return_to: &ReturnTo) -> Option<LoginStarted> {
    let cookie = claviger.cookie(head).ok()?;
    claviger.engine().begin_repair(&cookie, return_to.clone()).await.ok().flatten()
}

/// The page that asks the user first. A provider that remembers the user would otherwise sign in
/// whom another site leads here, without a click.
fn ask_first(return_to: &ReturnTo, switch: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("return_to", return_to.as_str());
    if switch {
        query.append_pair("switch", "true");
    }
    format!("/auth/sign-in?{}", query.finish())
}

fn read(parts: &Parts) -> Result<(ReturnTo, bool), Problem> {
    let bad = |error: BadParams| respond::of_bad_params(&error);
    let params = Params::of(&parts.uri).map_err(bad)?;
    let return_to = match params.one("return_to").map_err(bad)? {
        None | Some("") => ReturnTo::root(),
        Some(text) => ReturnTo::parse(text).ok_or_else(|| {
            let message = "return_to must be a path of this site.";
            Problem::new(StatusCode::BAD_REQUEST, "bad_return_to", "This address is not right", message)
        })?,
    };
    Ok((return_to, params.one("switch").map_err(bad)? == Some("true")))
}
