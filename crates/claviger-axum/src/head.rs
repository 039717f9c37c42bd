//! What Claviger reads of a request's head, once.
//!
//! The gateway reads it where a request enters, and the library in front of its routes and in its
//! layer. Everything else asks this value, so that all parts agree on what a request says.

use std::{fmt, net::SocketAddr};

use axum::extract::{ConnectInfo, OriginalUri};
use claviger_core::{
    Ask, Assurance, Presence,
    request::{
        host::{self, Host},
        navigation::{Audience, FetchSite, Signs, accepts_html, audience},
        path::{self, Readings},
        peer::Peer,
        routes::AskedMethod,
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, request::Parts, uri::PathAndQuery};

use crate::{
    cookies::{Cookies, TooLarge},
    site::Site,
};

/// The header of a request that is no use of the session, with the value `1`.
const PASSIVE: &str = "x-claviger-passive";

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The extension of a request that came through a Unix socket, so that its peer has no address. The
/// server sets it in place of `ConnectInfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixPeer;

/// What was read of a request's head.
#[derive(Clone)]
pub struct RequestHead {
    method: Method,
    target: Option<PathAndQuery>,
    pub(crate) cookies: Cookies,
    pub(crate) fetch_site: FetchSite,
    pub(crate) origin: Origin,
    referrer: Origin,
    foreign: Option<Box<Foreign>>,
    overrides_method: bool,
    pub(crate) audience: Audience,
    /// Whether the answer is for an element of a page, such as an image or a script.
    pub(crate) embedded: bool,
    websocket: bool,
    unclear_framing: bool,
    presence: Presence,
    peer: Peer,
    host: Host,
    path: Readings,
}

/// What `Origin` or `Referer` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The request does not say.
    #[default]
    Unsaid,
    /// This site.
    Site,
    /// Another one, or `null`.
    Other,
}

/// What the page of another origin asks for.
#[derive(Clone, Debug)]
struct Foreign {
    origin: HeaderValue,
    /// With which method it wants to send a request, if this may be a preflight.
    wanted: Option<HeaderValue>,
}

/// A request has more cookies than are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request has more cookies than are read")]
pub struct TooManyCookies {
    /// Whether its answer is a page.
    pub(crate) shows_page: bool,
    pub(crate) unclear_framing: bool,
}

impl TooManyCookies {
    /// Whether the request's body may be framed in a way that servers read differently.
    pub fn has_unclear_framing(&self) -> bool {
        self.unclear_framing
    }
}

impl RequestHead {
    /// Reads a request's head.
    ///
    /// # Errors
    /// [`TooManyCookies`], the response to send instead. Such a request may have a session, so it
    /// must not count as one without.
    pub fn read(site: &Site, parts: &Parts) -> Result<Self, TooManyCookies> {
        let fields = Fields::read(site, &parts.headers);
        let audience = audience(&fields.signs);
        let cookies = match Cookies::read(site, &parts.headers) {
            Ok(cookies) => cookies,
            Err(TooLarge) => {
                return Err(TooManyCookies {
                    shows_page: shows_page(audience, &parts.method),
                    unclear_framing: fields.unclear_framing,
                });
            }
        };
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let is_trusted = |address| site.trusts(address);
        let forwarded_for = parts.headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        let peer = if address.is_none() && parts.extensions.get::<UnixPeer>().is_some() {
            Peer::read_local(site.trusts_unix_peers, is_trusted, forwarded_for)
        } else {
            Peer::read(address, is_trusted, forwarded_for)
        };
        let host = fields.host(site, parts, peer.is_front());
        // A nested router sees only a part of the address.
        let whole = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(whole)| whole);
        Ok(Self {
            method: parts.method.clone(),
            target: whole.path_and_query().cloned(),
            cookies,
            fetch_site: fields.fetch_site,
            origin: fields.origin,
            referrer: fields.referrer,
            foreign: fields.foreign(),
            overrides_method: fields.overrides_method,
            audience,
            embedded: fields.signs.mode == Some(b"no-cors"),
            websocket: fields.signs.websocket,
            unclear_framing: fields.unclear_framing,
            presence: fields.presence,
            peer,
            host,
            path: path::read(parts.uri.path()),
        })
    }

    /// The same head with the method of the request that a front proxy asks about.
    pub(crate) fn with_method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// The same head of a request that the address calls passive.
    pub(crate) fn with_presence(self, presence: Presence) -> Self {
        Self { presence, ..self }
    }

    /// What it asks of its session on a route with this assurance.
    pub fn ask(&self, assurance: Assurance) -> Ask {
        Ask { assurance, presence: self.presence }
    }

    /// Whether it is a use of the session.
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path and query.
    pub fn target(&self) -> &str {
        self.target.as_ref().map_or("/", PathAndQuery::as_str)
    }

    /// Whether the answer may lead a browser to another address.
    pub fn navigates(&self) -> bool {
        is_safe(&self.method) && self.shows_page()
    }

    /// Whether the answer is a page for a person, not JSON.
    pub fn shows_page(&self) -> bool {
        shows_page(self.audience, &self.method)
    }

    /// Whether a page of this site or the user began it: no page of another site.
    ///
    /// Browsers without Fetch Metadata name the page in `Referer`, or nothing if the user typed the
    /// address. A page can ask them to leave its name out, which cannot be seen.
    pub(crate) fn began_here(&self) -> bool {
        match self.fetch_site {
            FetchSite::SameOrigin | FetchSite::User => true,
            FetchSite::Other => false,
            FetchSite::Unsaid => self.referrer != Origin::Other,
        }
    }

    /// Whether it is the handshake of a WebSocket. Through the tunnel anything can be sent later.
    pub fn is_websocket(&self) -> bool {
        self.websocket
    }

    /// The one origin that it names, if that is another one.
    pub fn foreign_origin(&self) -> Option<&HeaderValue> {
        self.foreign.as_ref().map(|foreign| &foreign.origin)
    }

    /// With which method a page of another origin wants to send a request, if this is the preflight
    /// of that request.
    pub fn preflight_for(&self) -> Option<&HeaderValue> {
        let foreign = self.foreign.as_ref().filter(|_| self.method == Method::OPTIONS)?;
        foreign.wanted.as_ref()
    }

    /// The method that counts for route rules. An app may believe a header that names another.
    pub fn asked_method(&self) -> AskedMethod<'_> {
        self.asked_method_of(&self.method)
    }

    /// The same for the method of the request that a front proxy asks about.
    pub(crate) fn asked_method_of<'a>(&self, method: &'a Method) -> AskedMethod<'a> {
        if self.overrides_method { AskedMethod::Any } else { AskedMethod::One(method.as_str()) }
    }

    /// Whether it has a session cookie, valid or not.
    pub fn has_session_cookie(&self) -> bool {
        self.cookies.sessions().next().is_some()
    }

    /// Whether the browser was just led to this address at the public host.
    pub fn was_led_here(&self) -> bool {
        self.cookies.led_here(self.target())
    }

    /// Whether its body may be framed in a way that servers read differently.
    pub fn has_unclear_framing(&self) -> bool {
        self.unclear_framing
    }

    /// Who sent it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whose host it names.
    pub fn host(&self) -> Host {
        self.host
    }

    /// The readings of its path.
    pub fn path(&self) -> &Readings {
        &self.path
    }
}

/// It shows neither the values of cookies nor the query, which may hold a code.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.target.as_ref().map(PathAndQuery::path))
            .field("cookies", &self.cookies)
            .field("audience", &self.audience)
            .field("peer", &self.peer)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// The fields that one pass over all headers finds.
#[derive(Default)]
struct Fields<'a> {
    signs: Signs<'a>,
    fetch_site: FetchSite,
    origin: Origin,
    referrer: Origin,
    foreign: Option<&'a HeaderValue>,
    wanted: Option<&'a HeaderValue>,
    overrides_method: bool,
    host: Option<&'a HeaderValue>,
    two_hosts: bool,
    codings: usize,
    unclear_framing: bool,
    presence: Presence,
}

impl<'a> Fields<'a> {
    fn read(site: &Site, headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            let bytes = value.as_bytes();
            match name.as_str() {
                "host" => fields.two_hosts = fields.host.replace(value).is_some(),
                "accept" => fields.signs.accepts_html |= accepts_html(bytes),
                "sec-fetch-mode" => fields.signs.mode = Some(bytes),
                "sec-fetch-dest" => fields.signs.dest = Some(bytes),
                "sec-fetch-site" => {
                    let first = fields.fetch_site == FetchSite::Unsaid;
                    fields.fetch_site = if first { FetchSite::read(bytes) } else { FetchSite::Other };
                }
                "origin" => {
                    let first = fields.origin == Origin::Unsaid;
                    let ours = first && bytes == site.origin.as_bytes();
                    fields.origin = if ours { Origin::Site } else { Origin::Other };
                    fields.foreign = (first && !ours).then_some(value);
                }
                "access-control-request-method" => fields.wanted = Some(value),
                "x-http-method-override" | "x-http-method" | "x-method-override" => {
                    fields.overrides_method = true;
                }
                "referer" => {
                    let rest = bytes.strip_prefix(site.origin.as_bytes());
                    let ours = rest.is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
                    fields.referrer = if ours { Origin::Site } else { Origin::Other };
                }
                PASSIVE if bytes == b"1" => fields.presence = Presence::Passive,
                "x-requested-with" => fields.signs.requested_with = Some(bytes),
                // A front proxy that asks about a handshake removes `Upgrade`. The key stays (RFC
                // 6455 section 4.1).
                "sec-websocket-key" => fields.signs.websocket = true,
                // Only one coding is understood by all (RFC 9112 section 6.1).
                "transfer-encoding" => {
                    fields.codings += 1;
                    fields.unclear_framing |= fields.codings > 1 || !bytes.eq_ignore_ascii_case(b"chunked");
                }
                "upgrade" => fields.signs.websocket |= lists_websocket(bytes),
                _ => {}
            }
        }
        fields
    }

    fn foreign(&self) -> Option<Box<Foreign>> {
        let origin = self.foreign?.clone();
        Some(Box::new(Foreign { origin, wanted: self.wanted.cloned() }))
    }

    /// HTTP/2 and the absolute form name the host in the address (RFC 9112 section 3.2.2, RFC 9113
    /// section 8.3.1).
    fn host(&self, site: &Site, parts: &Parts, from_front: bool) -> Host {
        let compare = |named: &[u8]| {
            // Most requests name the site as it is configured.
            if named == site.authority().as_bytes() {
                return Host::Public;
            }
            host::compare(named, site.host(), &site.other_hosts, from_front)
        };
        let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
        match (authority, self.host) {
            _ if self.two_hosts => Host::Invalid,
            (Some(authority), Some(host))
                if parts.version >= Version::HTTP_2 && !host.as_bytes().eq_ignore_ascii_case(authority) =>
            {
                Host::Invalid
            }
            (Some(authority), _) => compare(authority),
            (None, Some(host)) => compare(host.as_bytes()),
            (None, None) if parts.version <= Version::HTTP_10 => Host::Public,
            (None, None) => Host::Missing,
        }
    }
}

fn lists_websocket(upgrade: &[u8]) -> bool {
    upgrade.split(|byte| *byte == b',').any(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"websocket")
    })
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A window opens an address by GET, HEAD or, from a form, by POST.
fn shows_page(audience: Audience, method: &Method) -> bool {
    audience != Audience::Program && (is_safe(method) || *method == Method::POST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(site: &Site, request: http::request::Builder) -> RequestHead {
        RequestHead::read(site, &request.body(()).unwrap().into_parts().0).unwrap()
    }

    #[test]
    fn only_a_websocket_handshake_is_a_tunnel() {
        let site = Site::new("https://app.example");
        let table = [
            (("upgrade", "websocket"), true),
            (("upgrade", "WebSocket"), true),
            (("upgrade", "h2c, websocket"), true),
            (("upgrade", "websocket/13"), true),
            (("sec-websocket-key", "x"), true),
            (("upgrade", "h2c"), false),
            (("upgrade", "TLS/1.2"), false),
            (("upgrade", "HTTP/2.0, TLS/1.3"), false),
            (("upgrade", ""), false),
        ];
        for ((name, value), expected) in table {
            let head = read(&site, http::Request::get("/").header(name, value));
            assert_eq!(head.is_websocket(), expected, "{name}: {value}");
        }
    }

    #[test]
    fn pages_are_for_windows_and_redirects_for_safe_methods() {
        let site = Site::new("https://app.example");
        let table = [
            (Method::GET, "navigate", (true, true)),
            (Method::HEAD, "navigate", (true, true)),
            (Method::POST, "navigate", (true, false)),
            (Method::PUT, "navigate", (false, false)),
            (Method::GET, "cors", (false, false)),
            (Method::POST, "cors", (false, false)),
        ];
        for (method, mode, expected) in table {
            let request = http::Request::builder().method(method.clone()).header("sec-fetch-mode", mode);
            let head = read(&site, request.header("accept", "text/html"));
            assert_eq!((head.shows_page(), head.navigates()), expected, "{method} {mode}");
        }
    }

    #[test]
    fn another_site_may_not_begin_a_sign_in() {
        let site = Site::new("https://app.example");
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("referer", "https://app.example/")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")], false),
            (&[("referer", "https://app.example/auth/sign-in?return_to=%2F")], true),
            (&[("referer", "https://app.example")], true),
            (&[("referer", "https://app.example.evil.example/")], false),
            (&[("referer", "https://evil.example/https://app.example/")], false),
            (&[("referer", "http://app.example/")], false),
        ];
        for (fields, expected) in table {
            let mut request = http::Request::get("/auth/login");
            for (name, value) in *fields {
                request = request.header(*name, *value);
            }
            assert_eq!(read(&site, request).began_here(), *expected, "{fields:?}");
        }
    }

    #[test]
    fn only_one_coding_frames_a_body() {
        let site = Site::new("https://app.example");
        let table: &[(&[&str], bool)] = &[
            (&[], false),
            (&["chunked"], false),
            (&["Chunked"], false),
            (&["gzip, chunked"], true),
            (&["chunked, chunked"], true),
            (&["chunked", "chunked"], true),
            (&["gzip", "chunked"], true),
            (&["identity"], true),
            (&["chunked;q=1"], true),
            (&[""], true),
        ];
        for (fields, expected) in table {
            let mut request = http::Request::post("/");
            for field in *fields {
                request = request.header("transfer-encoding", *field);
            }
            assert_eq!(read(&site, request).has_unclear_framing(), *expected, "{fields:?}");
        }
    }

    #[test]
    fn the_host_is_in_the_address_or_in_its_field() {
        let site = Site::new("https://app.example");
        let (ours, other) = ("app.example", "other.example");
        type Case<'a> = (Version, &'a str, &'a [&'a str], Host);
        let table: [Case<'_>; 12] = [
            (Version::HTTP_11, "/", &[ours], Host::Public),
            (Version::HTTP_11, "/", &[other], Host::Foreign),
            (Version::HTTP_11, "/", &[], Host::Missing),
            (Version::HTTP_11, "/", &[ours, ours], Host::Invalid),
            (Version::HTTP_11, "/", &[""], Host::Invalid),
            (Version::HTTP_11, "http://app.example/", &[other], Host::Public),
            (Version::HTTP_11, "http://evil@app.example/", &[ours], Host::Invalid),
            (Version::HTTP_10, "/", &[], Host::Public),
            (Version::HTTP_2, "https://app.example/", &[], Host::Public),
            (Version::HTTP_2, "https://app.example/", &["APP.example"], Host::Public),
            (Version::HTTP_2, "https://app.example/", &[other], Host::Invalid),
            (Version::HTTP_2, "https://evil@app.example/", &[], Host::Invalid),
        ];
        for (version, uri, hosts, expected) in table {
            let mut request = http::Request::get(uri).version(version);
            for host in hosts {
                request = request.header("host", *host);
            }
            assert_eq!(read(&site, request).host(), expected, "{version:?} {uri} {hosts:?}");
        }
    }
}
