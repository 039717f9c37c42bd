//! `GET /auth/session`: who is signed in, for scripts. With `passive=1` it is no use of the
//! session.

use axum::{
    Json,
    extract::{OriginalUri, State},
    response::{IntoResponse, Response},
};
use claviger_core::{Assurance, Session, Timestamp};
use claviger_engine::Denied;
use serde::Serialize;

use crate::{claviger::Claviger, head::RequestHead, params, problem::no_store, respond};

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
    /// When the session ends if it is not used again.
    idle_ends_at: String,
}

/// Answers with JSON, never with a redirect or a token (RFC 10017 section 6.1.2.1).
pub(crate) async fn session(
    State(claviger): State<Claviger>,
    OriginalUri(uri): OriginalUri,
    head: RequestHead,
) -> Response {
    // Images, scripts and other sites must learn nothing from this answer.
    if head.embedded {
        return respond::of_denied(&Denied::NoSession).json();
    }
    let head = match params::passive(&uri) {
        Ok(Some(presence)) => head.with_presence(presence),
        Ok(None) => head,
        Err(error) => return respond::of_bad_params(&error).json(),
    };
    match claviger.caller(&head, Assurance::Session).await {
        Ok(caller) => match caller.row() {
            Some(row) => {
                let idle_ends_at = claviger.engine().idle_ends_at(row).await;
                let mut answer = no_store(Json(body(&claviger, row, idle_ends_at)).into_response());
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

fn body<'a>(claviger: &Claviger, row: &'a Session, idle_ends_at: Timestamp) -> SessionBody<'a> {
    SessionBody {
        provider: &row.subject.provider.0,
        user: &row.subject.id,
        name: &row.display_name,
        session: row.id.to_string(),
        device: row.device.as_str(),
        signed_in_at: rfc3339(row.created_at),
        ends_at: rfc3339(row.created_at.after(claviger.engine().settings().lifetimes.absolute)),
        idle_ends_at: rfc3339(idle_ends_at),
    }
}

/// A time in RFC 3339, for programs.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map(|time| time.to_string()).unwrap_or_default()
}
