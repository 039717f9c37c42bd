//! The pages that people see. They need no script, and nothing from another site.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// Styles for all pages, light and dark.
pub(crate) const STYLE: &str = include_str!("../templates/style.css");

/// Pages load their styles from here and nothing else; nobody may frame them.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// Something a person may do next.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    pub(crate) href: &'static str,
    pub(crate) words: &'static str,
}

impl Action {
    pub(crate) const fn home() -> Self {
        Self { href: "/", words: "Go to the front page" }
    }

    pub(crate) const fn sign_in() -> Self {
        Self { href: "/auth/login", words: "Sign in" }
    }

    pub(crate) const fn switch_account() -> Self {
        Self { href: "/auth/login?switch=true", words: "Choose the account" }
    }

    pub(crate) const fn again() -> Self {
        Self { href: "", words: "Try again" }
    }

    pub(crate) const fn devices() -> Self {
        Self { href: "/auth/devices", words: "See your devices" }
    }
}

/// A page that says one thing.
#[derive(Template)]
#[template(path = "message.html")]
pub(crate) struct Message<'a> {
    pub(crate) title: &'a str,
    pub(crate) text: &'a str,
    pub(crate) action: &'a Action,
}

/// The page that offers the sign-in.
#[derive(Template)]
#[template(path = "sign_in.html")]
pub(crate) struct SignIn<'a> {
    pub(crate) title: &'a str,
    pub(crate) text: &'a str,
    pub(crate) login: &'a str,
    pub(crate) provider: &'a str,
}

/// The page that goes on by itself to another of this site.
#[derive(Template)]
#[template(path = "hop.html")]
pub(crate) struct Hop<'a> {
    pub(crate) next: &'a str,
}

/// The user's devices.
#[derive(Template)]
#[template(path = "devices.html")]
pub(crate) struct Devices<'a> {
    pub(crate) display_name: &'a str,
    pub(crate) this: Option<&'a Device>,
    pub(crate) others: Vec<&'a Device>,
}

/// One device on the page.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) first_seen: When,
    pub(crate) last_seen: When,
    /// The answer to its last token refresh was lost, which its next use makes good.
    pub(crate) answer_lost: bool,
    /// Its tokens have to be renewed by signing in again.
    pub(crate) renewal_needed: bool,
}

/// A time in words, and exactly.
#[derive(Debug)]
pub(crate) struct When {
    pub(crate) words: String,
    pub(crate) exact: String,
}

impl IntoResponse for Message<'_> {
    fn into_response(self) -> Response {
        page(self.render())
    }
}

impl IntoResponse for SignIn<'_> {
    fn into_response(self) -> Response {
        page(self.render())
    }
}

impl IntoResponse for Hop<'_> {
    fn into_response(self) -> Response {
        page(self.render())
    }
}

impl IntoResponse for Devices<'_> {
    fn into_response(self) -> Response {
        page(self.render())
    }
}

fn page(html: Result<String, askama::Error>) -> Response {
    match html {
        Ok(html) => with_page_headers(Html(html).into_response()),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

pub(crate) fn with_page_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
