//! `GET /auth/return?to=`: leads on to a destination that is too long for headers and cookies.
//!
//! Anybody can make a reference to a page of this site. A navigation that a page of ours begins is
//! trusted more than one from elsewhere, so this page goes on by itself only if this site or the
//! user led the browser here, or a sign-in of this browser.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use claviger_core::{Arrival, ReturnTo};
use http::{StatusCode, request::Parts};

use crate::{
    claviger::Claviger, head::RequestHead, pages::Onward, params::Params, problem::Problem, respond,
};

const UNKNOWN: Problem = Problem::new(
    StatusCode::NOT_FOUND,
    "destination_unknown",
    "Open your link once more",
    "This site no longer has the address that you asked for. It was too long or unusual, too much time passed, or other \
     links took its place. Open your link once more, or go to the front page.",
);

pub(crate) async fn return_to(State(claviger): State<Claviger>, head: RequestHead, parts: Parts) -> Response {
    let asked = Params::of(&parts.uri).and_then(|params| Ok(params.one("to")?.map(str::to_owned)));
    let reference = match asked {
        Ok(reference) => reference.unwrap_or_default(),
        Err(error) => return respond::of_bad_params(&error).answer_to(&head),
    };
    let browser = claviger.cookie(&head).ok().map(|cookie| cookie.session);
    let arrival = Arrival { address: head.peer().own_address(), browser };
    match claviger.engine().kept_destination(&reference, arrival).await {
        Ok(Some(destination)) => onward(&claviger, &head, &destination),
        Ok(None) => UNKNOWN.answer_to(&head),
        Err(error) => respond::of_destination_error(&error).answer_to(&head),
    }
}

fn onward(claviger: &Claviger, head: &RequestHead, destination: &ReturnTo) -> Response {
    let signs_in = |cookie| claviger.engine().login_leads_to(cookie, head.target());
    let now = head.began_here() || head.cookies.login_values().any(signs_in);
    Onward::new(destination.as_str(), now).into_response()
}
