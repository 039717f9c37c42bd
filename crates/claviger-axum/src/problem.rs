//! An error as people and programs see it: a page or JSON.

use std::{borrow::Cow, fmt, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use claviger_core::ReturnTo;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;

use crate::{
    head::RequestHead,
    pages::{Action, Message},
};

const LOGIN: &str = "/auth/login";

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
    /// What became of a form that a window posted.
    form: Form,
}

/// What became of a form that a window posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// There was none, or nobody has to know.
    Unsaid,
    /// The app did not get it.
    Unsent,
    /// The app did not get it, and a front proxy led the window here.
    UnsentBefore,
    /// The app may have got it.
    Unknown,
}

impl Form {
    fn words(self, sign_in_helps: bool) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::Unsent | Self::UnsentBefore if sign_in_helps => Some(
                "Your form was not sent. Sign in with the button below, which opens a new tab. Then return to this tab, \
                 press Back, copy what you typed, and send the form again. Most browsers still show it.",
            ),
            Self::Unsent | Self::UnsentBefore => Some(
                "Your form was not sent. Press Back, copy what you typed, and send the form again. Most browsers still \
                 show it.",
            ),
            Self::Unknown => Some(
                "It is not known whether the app got your form. Press Back and copy what you typed: most browsers still \
                 show it. Look whether the form arrived before you send it again.",
            ),
        }
    }
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
            form: Form::Unsaid,
        }
    }

    /// Says to a window that posted a form that the app did not get it.
    #[must_use]
    pub const fn unsent(mut self) -> Self {
        self.form = Form::Unsent;
        self
    }

    /// Says to a window that a front proxy led here that the app did not get its form.
    pub(crate) fn unsent_before(self) -> Self {
        Self { form: Form::UnsentBefore, ..self }
    }

    /// Says to a window that posted a form that the app may have got it.
    #[must_use]
    pub const fn perhaps_sent(mut self) -> Self {
        self.form = Form::Unknown;
        self
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
        self.passing().after(retry_after)
    }

    /// Says that the failure left the session as it was, and leads to the destination.
    pub(crate) fn still_signed_in(mut self, destination: &ReturnTo) -> Self {
        if self.form == Form::UnsentBefore {
            let message = "You are signed in.".into();
            return Self { title: "Your form was not sent", message, sign_in_helps: false, ..self };
        }
        self.message.to_mut().push_str(" You are still signed in as before.");
        self.leading_to(destination.to_string(), "Continue")
    }

    /// Says when to try again, and offers the same action.
    pub(crate) fn after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// Lets the sign-in that it offers lead to this destination.
    pub(crate) fn returning_to(self, destination: &ReturnTo) -> Self {
        if !self.action.href.starts_with(LOGIN) || *destination == ReturnTo::root() {
            return self;
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("return_to", destination.as_str());
        let and = if self.action.href.contains('?') { '&' } else { '?' };
        let address = format!("{}{and}{}", self.action.href, query.finish());
        Self { address: Some(address), ..self }
    }

    /// The action of a form accepts only POST, so "try again" goes to the devices page.
    pub(crate) fn posted(self) -> Self {
        if self.retry_after.is_some() { self.offering(Action::devices()) } else { self }
    }

    /// Answers a request: with a page if a window would show it, else with JSON.
    pub fn answer_to(&self, head: &RequestHead) -> Response {
        let posted = *head.method() == Method::POST || self.form == Form::UnsentBefore;
        self.write(head.shows_page(), if posted { self.form } else { Form::Unsaid })
    }

    /// Answers a program.
    pub fn json(&self) -> Response {
        self.answer(false)
    }

    pub(crate) fn answer(&self, as_page: bool) -> Response {
        self.write(as_page, Form::Unsaid)
    }

    fn write(&self, as_page: bool, form: Form) -> Response {
        let mut response = if as_page {
            let form = form.words(self.sign_in_helps);
            let href = self.address.as_deref().unwrap_or(self.action.href);
            // "Try again" would open the address of the form, which may show something else.
            let shows_action = form.is_none() || self.sign_in_helps;
            let words = shows_action.then_some(self.action.words);
            Message { title: self.title, text: &self.message, href, words, form }.into_response()
        } else {
            Json(Body {
                error: self.error,
                message: &self.message,
                login: self.sign_in_helps.then_some(LOGIN),
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

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// As for a program. [`Problem::answer_to`] shows people a page.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.json()
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
