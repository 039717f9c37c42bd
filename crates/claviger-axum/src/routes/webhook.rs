//! `POST /auth/webhook`: the provider's webhook events.
//!
//! They are signed, and no browser sends them, so cookies and Fetch Metadata do not matter here. A
//! message with a bad signature is refused before any look-up, without a reason.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest as _, Request, State},
    response::{IntoResponse, Response},
};
use claviger_engine::{WebhookError, WebhookReply};
use http::{HeaderValue, Method, StatusCode, header};

use super::{NOT_FOUND, WRONG_METHOD};
use crate::{claviger::Claviger, head::RequestHead, problem::no_store, respond};

/// Maximum time until the whole body is here. Providers wait a few seconds for the answer.
const READ_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn webhook(
    State(claviger): State<Claviger>,
    head: RequestHead,
    request: Request,
) -> Response {
    if !claviger.engine().wants_webhook_events() {
        return NOT_FOUND.answer_to(&head);
    }
    if request.method() != Method::POST {
        let mut answer = WRONG_METHOD.answer_to(&head);
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return answer;
    }
    let headers = request.headers().clone();
    // The layer around this route limits the size.
    let body = match tokio::time::timeout(READ_WITHIN, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(unread)) => return respond::refused_webhook_event(unread.status()).json(),
        Err(_) => return respond::refused_webhook_event(StatusCode::REQUEST_TIMEOUT).json(),
    };
    match claviger.engine().take_webhook_event(&headers, &body).await {
        Ok(WebhookReply::Challenge(text)) => {
            no_store(([(header::CONTENT_TYPE, "text/plain")], text).into_response())
        }
        Ok(WebhookReply::Noted) => no_store(StatusCode::NO_CONTENT.into_response()),
        Err(error) => {
            if let WebhookError::Refused(refused) = &error
                && claviger.inner.refused_webhook_log.allows(claviger.engine().now())
            {
                tracing::warn!(
                    %refused,
                    "refused a webhook message; further ones within a minute are not logged"
                );
            }
            respond::of_webhook_error(&error).json()
        }
    }
}
