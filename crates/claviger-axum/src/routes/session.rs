//! `GET /auth/session`: who is signed in, for scripts.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use claviger_core::{Assurance, Session, Timestamp};
use claviger_engine::Denied;
use serde::Serialize;

use crate::{claviger::Claviger, head::RequestHead, problem::no_store, respond};

#[derive(Serialize)]
struct SessionBody<'a> {
    provider: &'a str,
    user: &'a str,
    name: &'a str,
    session: String,
    device: &'a str,
    signed_in_at: String,
    /// When the session ends even if it is in use.
    ends_at: String,
}

/// Answers with JSON, never with a redirect or a token (RFC 10017 section 6.1.2.1).
pub(crate) async fn session(State(claviger): State<Claviger>, head: RequestHead) -> Response {
    // Images, scripts and other sites must learn nothing from this answer.
    if head.embedded {
        return respond::of_denied(&Denied::NoSession).json();
    }
    match claviger.caller(&head, Assurance::Session).await {
        Ok(caller) => match caller.row() {
            Some(row) => {
                let mut answer = no_store(Json(body(&claviger, row)).into_response());
                if let Some(outdated) = claviger.outdated_cookie(&head) {
                    claviger.renew_cookie(answer.headers_mut(), &outdated);
                }
                answer
            }
            None => respond::of_denied(&Denied::NoSession).json(),
        },
        Err(denied) => respond::of_denied(&denied).json(),
    }
}

fn body<'a>(claviger: &Claviger, row: &'a Session) -> SessionBody<'a> {
    SessionBody {
        provider: &row.subject.provider.0,
        user: &row.subject.id,
        name: &row.display_name,
        session: row.id.to_string(),
        device: row.device.as_str(),
        signed_in_at: rfc3339(row.created_at),
        ends_at: rfc3339(row.created_at.after(claviger.engine().settings().lifetimes.absolute)),
    }
}

/// A time in RFC 3339, for programs.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map(|time| time.to_string()).unwrap_or_default()
}
