//! The pages that people see. They run no script and load nothing from other sites.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// The style sheet of all pages, light and dark.
pub(crate) const STYLE: &str = include_str!("../templates/style.css");

/// Which pages may show a page in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framed {
    /// None.
    ByNobody,
    /// Those of this site, whose own frame may need a sign-in.
    BySite,
}

impl Framed {
    /// Pages load only their style sheet.
    fn policy(self) -> &'static str {
        match self {
            Self::ByNobody => {
                "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; \
                 base-uri 'none'"
            }
            Self::BySite => {
                "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'self'; \
                 base-uri 'none'"
            }
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::ByNobody => "DENY",
            Self::BySite => "SAMEORIGIN",
        }
    }
}

/// The button of a page: what a person can do next.
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
        Self { href: "/auth/login?switch=true", words: "Choose an account" }
    }

    pub(crate) const fn again() -> Self {
        Self { href: "", words: "Try again" }
    }

    pub(crate) const fn devices() -> Self {
        Self { href: "/auth/devices", words: "See your devices" }
    }
}

/// A page with one message.
#[derive(Template)]
#[template(path = "message.html")]
pub(crate) struct Message<'a> {
    pub(crate) title: &'a str,
    pub(crate) text: &'a str,
    /// Where its button leads.
    pub(crate) href: &'a str,
    pub(crate) words: &'a str,
}

/// The page that offers the sign-in.
#[derive(Template)]
#[template(path = "sign_in.html")]
pub(crate) struct SignIn<'a> {
    pub(crate) title: &'a str,
    pub(crate) text: &'a str,
    pub(crate) login: &'a str,
    pub(crate) provider: &'a str,
    /// Whether the page offers a way back to the site, without a sign-in.
    pub(crate) way_back: bool,
}

/// The page that goes on to another address of this site by itself.
#[derive(Template)]
#[template(path = "hop.html")]
pub(crate) struct Hop<'a> {
    pub(crate) next: &'a str,
}

/// The user's devices.
#[derive(Template)]
#[template(path = "devices.html")]
pub(crate) struct Devices<'a> {
    /// What the last button did. It stands in the title too, which screen readers read first.
    pub(crate) said: Option<String>,
    pub(crate) display_name: &'a str,
    pub(crate) this: Option<&'a Device>,
    pub(crate) others: Vec<&'a Device>,
}

/// A device on that page.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) first_seen: When,
    pub(crate) last_seen: When,
    /// The answer to its last token refresh was lost. Its next request recovers from that.
    pub(crate) answer_lost: bool,
    /// Only a new sign-in can renew its tokens.
    pub(crate) renewal_needed: bool,
}

/// A time, in words and exactly.
#[derive(Debug)]
pub(crate) struct When {
    pub(crate) words: String,
    pub(crate) exact: String,
}

impl IntoResponse for Message<'_> {
    fn into_response(self) -> Response {
        page(self.render(), Framed::BySite)
    }
}

impl IntoResponse for SignIn<'_> {
    fn into_response(self) -> Response {
        page(self.render(), Framed::BySite)
    }
}

impl IntoResponse for Hop<'_> {
    fn into_response(self) -> Response {
        page(self.render(), Framed::ByNobody)
    }
}

impl IntoResponse for Devices<'_> {
    fn into_response(self) -> Response {
        page(self.render(), Framed::ByNobody)
    }
}

fn page(html: Result<String, askama::Error>, framed: Framed) -> Response {
    match html {
        Ok(html) => with_page_headers(Html(html).into_response(), framed),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn with_page_headers(mut response: Response, framed: Framed) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, framed.policy()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, framed.options()),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
