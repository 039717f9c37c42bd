//! An error as people and programs meet it: a page, or JSON.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;

use crate::{
    navigation::{can_navigate, wants_html},
    pages::{Action, Message},
};

/// An error that a person can read and a program can act on.
#[derive(Clone, Debug)]
pub struct Problem {
    pub(crate) status: StatusCode,
    error: &'static str,
    title: &'static str,
    pub(crate) message: Cow<'static, str>,
    reason: Option<&'static str>,
    retry_after: Option<Duration>,
    /// What a person may do next.
    pub(crate) action: Action,
    pub(crate) sign_in_helps: bool,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    /// A stable name.
    error: &'a str,
    /// Words for a person.
    message: &'a str,
    /// Where a person signs in, where that would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
    /// Why a session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Problem {
    /// Makes one: the status, a stable name, a heading, and words for a person.
    pub const fn new(
        status: StatusCode,
        error: &'static str,
        title: &'static str,
        message: &'static str,
    ) -> Self {
        Self {
            status,
            error,
            title,
            message: Cow::Borrowed(message),
            reason: None,
            retry_after: None,
            action: Action::home(),
            sign_in_helps: false,
        }
    }

    /// Offers to try again instead of the front page.
    #[must_use]
    pub const fn passing(mut self) -> Self {
        self.action = Action::again();
        self
    }

    /// Offers this to do next.
    pub(crate) fn offering(self, action: Action) -> Self {
        Self { action, ..self }
    }

    /// Says it in other words.
    pub(crate) fn saying(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..self }
    }

    pub(crate) fn with_sign_in(self, reason: Option<&'static str>) -> Self {
        Self { action: Action::sign_in(), reason, sign_in_helps: true, ..self }
    }

    pub(crate) fn later(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self.passing() }
    }

    /// The address of a form can only be posted to, so whoever tries again begins at the devices page.
    pub(crate) fn posted(self) -> Self {
        if self.retry_after.is_some() { self.offering(Action::devices()) } else { self }
    }

    /// The answer to a request: a page where a window would show it, else JSON.
    pub fn answer_to(&self, method: &Method, headers: &HeaderMap) -> Response {
        self.answer(as_page(method, headers))
    }

    /// The answer to a program.
    pub fn json(&self) -> Response {
        self.answer(false)
    }

    pub(crate) fn answer(&self, as_page: bool) -> Response {
        let mut response = if as_page {
            Message { title: self.title, text: &self.message, action: &self.action }.into_response()
        } else {
            Json(Body {
                error: self.error,
                message: &self.message,
                login: self.sign_in_helps.then_some("/auth/login"),
                reason: self.reason,
            })
            .into_response()
        };
        *response.status_mut() = self.status;
        if let Some(pause) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs().max(1)));
        }
        no_store(response)
    }
}

/// Nobody may keep an answer that depends on a session (OWASP ASVS 5.0, 14.3.2), and no other site may read it (3.5.8).
pub fn no_store(mut response: Response) -> Response {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the client should get a page.
pub(crate) fn as_page(method: &Method, headers: &HeaderMap) -> bool {
    can_navigate(method, headers) || (*method == Method::POST && wants_html(headers))
}
