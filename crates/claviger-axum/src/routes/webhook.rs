//! `POST /auth/webhook`: the provider's notices.
//!
//! They are signed, and no browser sends them: neither cookies nor Fetch Metadata say anything of them. Whoever else sends
//! here is turned away before anything is looked up, and is not told what was wrong.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest as _, Request, State},
    response::{IntoResponse, Response},
};
use claviger_engine::{NoticeError, NoticeTaken};
use http::{HeaderValue, Method, StatusCode, header};

use super::{not_found, wrong_method};
use crate::{Claviger, problem::no_store, respond};

/// A body has to be here within this time. Twitch waits a few seconds for the answer (Twitch docs, "Getting Events Using
/// Webhook Callbacks").
const READ_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn webhook(State(claviger): State<Claviger>, request: Request) -> Response {
    if !claviger.engine().wants_notices() {
        return not_found(request).await;
    }
    if request.method() != Method::POST {
        let mut answer = wrong_method(request).await;
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return answer;
    }
    let headers = request.headers().clone();
    // The layer around this route says how much is read.
    let body = match tokio::time::timeout(READ_WITHIN, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(unread)) => return respond::refused_notice(unread.status()).json(),
        Err(_) => return respond::refused_notice(StatusCode::REQUEST_TIMEOUT).json(),
    };
    match claviger.engine().take_notice(&headers, &body).await {
        Ok(NoticeTaken::Challenge(text)) => {
            no_store(([(header::CONTENT_TYPE, "text/plain")], text).into_response())
        }
        Ok(NoticeTaken::Noted) => no_store(StatusCode::NO_CONTENT.into_response()),
        Err(error) => {
            if let NoticeError::Refused(refused) = &error
                && claviger.inner.refused_notices.may_say(claviger.engine().now())
            {
                tracing::warn!(
                    %refused,
                    "a message at the webhook was refused; more within a minute are not logged"
                );
            }
            respond::of_notice_error(&error).json()
        }
    }
}
