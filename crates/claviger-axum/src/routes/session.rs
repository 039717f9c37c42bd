//! `GET /auth/session`: who is signed in, for scripts.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use claviger_core::{request::Assurance, session::Session, time::Timestamp};
use claviger_engine::Denied;
use http::request::Parts;
use serde::Serialize;

use crate::{Claviger, problem::no_store, respond};

#[derive(Serialize)]
struct Body<'a> {
    provider: &'a str,
    user: &'a str,
    name: &'a str,
    session: String,
    device: &'a str,
    signed_in_at: String,
    /// When the session ends even if it is used.
    ends_at: String,
}

/// JSON, never a redirect and never a token (RFC 10017 section 6.1.2.1).
pub(crate) async fn session(State(claviger): State<Claviger>, parts: Parts) -> Response {
    // An image or a script tag has no use for this answer, and another site has none at all.
    if parts.headers.get("sec-fetch-mode").is_some_and(|mode| mode == "no-cors") {
        return respond::of_denied(&Denied::NoSession).json();
    }
    match claviger.caller(&parts.headers, Assurance::Session).await {
        Ok(caller) => match caller.row() {
            Some(row) => {
                let mut answer = no_store(Json(body(&claviger, row)).into_response());
                if let Some(outdated) = claviger.outdated_cookie(&parts.headers) {
                    claviger.renew_cookie(answer.headers_mut(), &outdated);
                }
                answer
            }
            None => respond::of_denied(&Denied::NoSession).json(),
        },
        Err(denied) => respond::of_denied(&denied).json(),
    }
}

fn body<'a>(claviger: &Claviger, row: &'a Session) -> Body<'a> {
    Body {
        provider: &row.subject.provider.0,
        user: &row.subject.id,
        name: &row.display_name,
        session: row.id.to_string(),
        device: row.device.as_str(),
        signed_in_at: rfc3339(row.created_at),
        ends_at: rfc3339(row.created_at.after(claviger.engine().settings().lifetimes.absolute)),
    }
}

/// A time for programs (RFC 3339).
pub(crate) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map(|time| time.to_string()).unwrap_or_default()
}
