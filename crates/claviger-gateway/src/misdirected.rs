//! Requests for another host than the site's.
//!
//! Cookies belong to one host, so a sign-in that begins at another is lost. A browser window is led
//! to `public_url`; anything else gets 421 (RFC 9110 section 15.5.20).

use std::sync::atomic::{AtomicBool, Ordering};

use axum::response::{IntoResponse as _, Redirect, Response};
use claviger_axum::{Problem, RequestHead, Site, no_store};
use claviger_core::request::{host::Host, path::is_below};
use http::{HeaderValue, StatusCode, header, request::Parts};

/// Front proxies and the app ask these by whatever name they know this server, and the provider by
/// the name that was registered.
const ASKED_BY_ANY_NAME: [&str; 5] =
    ["/auth/check", "/auth/jwks.json", "/auth/webhook", "/healthz", "/readyz"];

/// Finds requests for other hosts.
#[derive(Debug, Default)]
pub(crate) struct Misdirected {
    warned: AtomicBool,
}

impl Misdirected {
    /// The answer to a request that is for another host.
    pub(crate) fn answer(&self, site: &Site, request: &Parts, head: &RequestHead) -> Option<Response> {
        let path = request.uri.path();
        if ASKED_BY_ANY_NAME.iter().any(|exempt| is_below(path, exempt)) {
            return None;
        }
        match head.host() {
            Host::Public | Host::Missing | Host::Invalid => None,
            Host::OfFront => {
                self.warn(site, request, head);
                None
            }
            Host::Other(_) => of_sign_in(path, head).then(|| elsewhere(site, request, head)),
            Host::Foreign => Some(elsewhere(site, request, head)),
        }
    }

    fn warn(&self, site: &Site, request: &Parts, head: &RequestHead) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host = asked(request),
                proxy = head.peer().address().map(tracing::field::display),
                "the proxy in front asks for this server's own name, not for the host that the browser asked for; its \
                 requests are served as {}. Let it pass the Host header on",
                site.origin
            );
        }
    }
}

/// The host that a request names.
fn asked(request: &Parts) -> &str {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let field = || request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    authority.or_else(field).unwrap_or_default()
}

/// Whether a request belongs to the public host, which alone has the cookies of sessions and
/// sign-ins.
fn of_sign_in(path: &str, head: &RequestHead) -> bool {
    let begins = ["/auth/login", "/auth/callback"].contains(&path);
    is_below(path, "/auth") && (begins || head.navigates() || !head.method().is_safe())
}

/// The answer to a request that only the public host may serve.
fn elsewhere(site: &Site, request: &Parts, head: &RequestHead) -> Response {
    if head.navigates() && !head.was_led_here() { lead(site, head) } else { refuse(site, request, head) }
}

/// Where the request would be right.
fn right_address(site: &Site, head: &RequestHead) -> String {
    format!("{}{}", site.origin, head.target())
}

/// Leads a browser to the public host. If the proxy in front names another host than the browser
/// does, the browser comes back the same way. Then the cookie, which names the address, ends the
/// circle.
fn lead(site: &Site, head: &RequestHead) -> Response {
    let mut answer = no_store(Redirect::to(&right_address(site, head)).into_response());
    if let Ok(cookie) = HeaderValue::try_from(site.led_here_cookie(head.target()).to_string()) {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    answer
}

fn refuse(site: &Site, request: &Parts, head: &RequestHead) -> Response {
    let (asked, ours) = (asked(request), &site.origin);
    let problem =
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", "This site has another address", "");
    let problem = if head.shows_page() {
        problem
            .saying(format!(
                "This request arrived with the host {asked}, but this site is at {ours}. If you asked for {ours}, the \
                 proxy in front of it changes the host; the people who run this site need to let it pass the Host \
                 header on."
            ))
            .leading_to(right_address(site, head), "Open the right address")
    } else if matches!(head.host(), Host::Other(_)) {
        problem.saying(format!("Users sign in and out at {ours} only, not at {asked}."))
    } else {
        problem.saying(format!(
            "This server is {ours}, not {asked}. Its operator can list other hosts in other_hosts."
        ))
    };
    problem.answer_to(head)
}
