//! The pages that people see. They work without a script and load nothing from other sites.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// The style sheet of all pages, light and dark.
pub(crate) const STYLE: &str = include_str!("../templates/style.css");

/// Takes the fragment of an address along into the sign-in.
const SIGN_IN_SCRIPT: &str = include_str!("../templates/sign_in.js");
/// Goes on to a destination, with the fragment.
const ONWARD_SCRIPT: &str = include_str!("../templates/onward.js");

/// Which pages may show a page in a frame, and which script it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framed {
    /// None.
    ByNobody,
    /// Those of this site, whose own frame may need a sign-in.
    BySite,
    /// The same for the sign-in page.
    SignIn,
    /// None, for the page that goes on to a destination.
    Onward,
}

macro_rules! policy {
    ($ancestors:literal $(, $script:literal)?) => {
        concat!(
            "default-src 'none'; ",
            $("script-src '", $script, "'; ",)?
            "style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors ",
            $ancestors,
            "; base-uri 'none'"
        )
    };
}

impl Framed {
    /// Pages load only their style sheet. A test compares the hashes with the scripts.
    fn policy(self) -> &'static str {
        match self {
            Self::ByNobody => policy!("'none'"),
            Self::BySite => policy!("'self'"),
            Self::SignIn => policy!("'self'", "sha256-Wu2839cUE5kv9wH/4YdpZ+YPy8HrT52iNZduUSxHWCM="),
            Self::Onward => policy!("'none'", "sha256-gFOi9puRLWQYGvUTLzh6CghMYQZm7d6VoWPpQ8e7LzA="),
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::ByNobody | Self::Onward => "DENY",
            Self::BySite | Self::SignIn => "SAMEORIGIN",
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

    /// The same for a user whose session may have ended: that page says why, and lets the provider
    /// ask again where it has to.
    pub(crate) const fn sign_in_page() -> Self {
        Self { href: "/auth/sign-in", words: "Sign in" }
    }

    /// The same after a failure that passes.
    pub(crate) const fn try_sign_in() -> Self {
        Self { href: "/auth/login", words: "Try again" }
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
    /// The words on it. None leaves it out.
    pub(crate) words: Option<&'a str>,
    /// What became of a form that was posted. Then the button opens another tab, since this one
    /// leads back to the form.
    pub(crate) form: Option<&'a str>,
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
    script: &'static str,
}

impl<'a> SignIn<'a> {
    pub(crate) const fn new(title: &'a str, text: &'a str, login: &'a str, provider: &'a str) -> Self {
        Self { title, text, login, provider, way_back: false, script: SIGN_IN_SCRIPT }
    }
}

/// The page that leads to a destination of this site.
#[derive(Template)]
#[template(path = "onward.html")]
pub(crate) struct Onward<'a> {
    destination: &'a str,
    /// Whether it goes on by itself.
    now: bool,
    script: &'static str,
}

impl<'a> Onward<'a> {
    pub(crate) const fn new(destination: &'a str, now: bool) -> Self {
        Self { destination, now, script: ONWARD_SCRIPT }
    }
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
        page(self.render(), Framed::SignIn)
    }
}

impl IntoResponse for Onward<'_> {
    fn into_response(self) -> Response {
        page(self.render(), Framed::Onward)
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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn each_page_allows_its_own_script_only() {
        for (framed, script) in [(Framed::SignIn, SIGN_IN_SCRIPT), (Framed::Onward, ONWARD_SCRIPT)] {
            let hash = STANDARD.encode(Sha256::digest(script));
            assert!(framed.policy().contains(&format!("script-src 'sha256-{hash}';")), "{hash}");
        }
        for framed in [Framed::ByNobody, Framed::BySite] {
            assert!(!framed.policy().contains("script"));
        }
    }
}
