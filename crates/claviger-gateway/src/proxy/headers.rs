//! The headers that a proxy removes, and those that it sets.

use claviger_core::request::peer::Peer;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers for one connection only (RFC 9110 section 7.6.1), and those commonly treated so.
static HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Headers that `Connection` cannot remove, because the app needs them.
const NOT_FOR_ONE_HOP: &[&str] = &["host", "cookie", "content-length", "content-type", "authorization"];

/// The value of `Upgrade`, if the request asks for one.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = listed(headers).any(|name| name == header::UPGRADE);
    asks.then(|| headers.get(header::UPGRADE).cloned()).flatten()
}

/// Whether the client takes trailers.
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut codings =
        headers.get_all(header::TE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Asks the app for trailers.
pub fn ask_for_trailers(headers: &mut HeaderMap) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
}

/// Removes the headers for this connection only, from an answer. The names of trailers stay, since
/// the trailers pass too.
pub fn end_hop_of_answer(headers: &mut HeaderMap) {
    let trailers: Vec<HeaderValue> = headers.get_all(header::TRAILER).iter().cloned().collect();
    end_hop(headers);
    for trailer in trailers {
        headers.append(header::TRAILER, trailer);
    }
}

/// Removes the headers for this connection only.
pub fn end_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        listed(headers).filter(|name| !NOT_FOR_ONE_HOP.contains(&name.as_str())).collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The header names that `Connection` lists.
fn listed(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
}

/// What the app learns about the client's side.
#[derive(Clone, Debug)]
pub struct Client<'a> {
    /// Who sent the request, behind which proxies.
    pub peer: &'a Peer,
    /// The scheme of the public address.
    pub scheme: &'static str,
    /// The host that was asked for: the public one, or one of the other hosts.
    pub host: &'a HeaderValue,
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Sets the `X-Forwarded-…` headers, after all claims were removed.
pub fn forwarded(headers: &mut HeaderMap, client: &Client<'_>) {
    let chain: Vec<String> = client.peer.chain().map(|address| address.to_string()).collect();
    if let Some(value) = HeaderValue::try_from(chain.join(", ")).ok().filter(|value| !value.is_empty()) {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    headers.insert(FORWARDED_HOST, client.host.clone());
}

/// Keeps the Set-Cookie fields whose cookie name passes the predicate.
pub fn retain_set_cookies(headers: &mut HeaderMap, keep: impl Fn(&str) -> bool) {
    let fields: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    if fields.iter().all(|field| keep(&name_of(field))) {
        return;
    }
    headers.remove(header::SET_COOKIE);
    for field in fields.into_iter().filter(|field| keep(&name_of(field))) {
        headers.append(header::SET_COOKIE, field);
    }
}

/// The name of the cookie that a Set-Cookie field sets (RFC 6265bis section 5.6). A browser returns
/// a nameless cookie as its bare value, which may look like `name=value`. So the beginning of such
/// a value counts as the name.
fn name_of(field: &HeaderValue) -> String {
    let pair = field.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let mut parts = pair.split(|byte| *byte == b'=').skip_while(|part| part.trim_ascii().is_empty());
    let name = parts.next().unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii()).into_owned()
}

#[cfg(test)]
mod tests;
