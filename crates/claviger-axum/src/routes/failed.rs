//! `GET /auth/failed?error=&return_to=`: says why a sign-in failed.
//!
//! A callback leads here, so that neither its code nor its state stays in the address bar, the
//! history or a link that somebody shares. The texts are fixed, since anybody can link to this
//! page.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{Assurance, ReturnTo};
use http::request::Parts;

use crate::{
    claviger::Claviger,
    head::RequestHead,
    params::{BadParams, Params},
    problem::{Problem, no_store},
    respond,
};

pub(crate) const PATH: &str = "/auth/failed";
/// Where a proxy leads a window that posted a form without a session.
pub(crate) const UNSENT: &str = "/auth/failed?error=form_unsent";

pub(crate) async fn failed(State(claviger): State<Claviger>, head: RequestHead, parts: Parts) -> Response {
    let read = || -> Result<_, BadParams> {
        let params = Params::of(&parts.uri)?;
        let return_to = params.one("return_to")?.and_then(ReturnTo::parse).unwrap_or_default();
        Ok((params.one("error")?.and_then(respond::of_failed_sign_in), return_to))
    };
    match read() {
        Ok((Some(problem), return_to)) => explain(&claviger, &head, problem, &return_to).await,
        Ok((None, _)) => super::not_found(head).await,
        Err(error) => respond::of_bad_params(&error).answer_to(&head),
    }
}

/// Leads a browser whose sign-in failed to the page that says why. The next sign-in goes to
/// `return_to`.
pub(crate) fn lead(error: &str, return_to: &ReturnTo) -> Response {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("error", error);
    if *return_to != ReturnTo::root() {
        query.append_pair("return_to", return_to.as_str());
    }
    no_store(Redirect::to(&format!("{PATH}?{}", query.finish())).into_response())
}

/// Explains a sign-in that failed.
pub(crate) async fn explain(
    claviger: &Claviger,
    head: &RequestHead,
    problem: Problem,
    return_to: &ReturnTo,
) -> Response {
    let still_signed_in = claviger.caller(head, Assurance::Session).await.is_ok();
    let problem =
        if still_signed_in { problem.still_signed_in(return_to) } else { problem.returning_to(return_to) };
    problem.answer_to(head)
}
