//! An error as people and programs see it: a page or JSON.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{
    head::RequestHead,
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
    /// What a person can do next.
    pub(crate) action: Action,
    /// Where the action leads, if not to an address that is known beforehand.
    address: Option<String>,
    pub(crate) sign_in_helps: bool,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    /// A stable code.
    error: &'a str,
    /// A text for people.
    message: &'a str,
    /// Where to sign in, if that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
    /// Why the session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Problem {
    /// Creates a problem from its status, a stable code, a heading, and a text for people.
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
            address: None,
            sign_in_helps: false,
        }
    }

    /// Offers to try again instead of the front page.
    #[must_use]
    pub const fn passing(mut self) -> Self {
        self.action = Action::again();
        self
    }

    /// Offers this action.
    pub(crate) fn offering(self, action: Action) -> Self {
        Self { action, ..self }
    }

    /// Offers to open another address.
    #[must_use]
    pub fn leading_to(self, address: String, words: &'static str) -> Self {
        Self { action: Action { href: "", words }, address: Some(address), ..self }
    }

    /// Replaces the text.
    #[must_use]
    pub fn saying(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..self }
    }

    pub(crate) fn with_sign_in(self, reason: Option<&'static str>) -> Self {
        Self { action: Action::sign_in(), reason, sign_in_helps: true, ..self }
    }

    pub(crate) fn later(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self.passing() }
    }

    /// The action of a form accepts only POST, so "try again" goes to the devices page.
    pub(crate) fn posted(self) -> Self {
        if self.retry_after.is_some() { self.offering(Action::devices()) } else { self }
    }

    /// Answers a request: with a page if a window would show it, else with JSON.
    pub fn answer_to(&self, head: &RequestHead) -> Response {
        self.answer(head.shows_page())
    }

    /// Answers a program.
    pub fn json(&self) -> Response {
        self.answer(false)
    }

    pub(crate) fn answer(&self, as_page: bool) -> Response {
        let mut response = if as_page {
            let href = self.address.as_deref().unwrap_or(self.action.href);
            Message { title: self.title, text: &self.message, href, words: self.action.words }.into_response()
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

/// Forbids caches to keep an answer (OWASP ASVS 5.0, 14.3.2), and other sites to read it (3.5.8).
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
