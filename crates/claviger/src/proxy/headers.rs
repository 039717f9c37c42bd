//! Headers that end at a proxy, and headers that a proxy sets.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that concern one connection only (RFC 9110 section 7.6.1), and those that people treat so.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Headers that `Connection` cannot take away: they are not the client's to drop.
const NOT_FOR_ONE_HOP: &[&str] = &["host", "cookie", "content-length", "content-type", "authorization"];

/// What asks for an upgrade, if anything does.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = listed(headers).any(|name| name == header::UPGRADE);
    asks.then(|| headers.get(header::UPGRADE).cloned()).flatten()
}

/// Removes what concerns this connection only.
pub fn end_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        listed(headers).filter(|name| !NOT_FOR_ONE_HOP.contains(&name.as_str())).collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
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

/// Puts the fields of a Cookie header that HTTP/2 split together again (RFC 9113 section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let fields: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if fields.len() < 2 {
        return;
    }
    if let Ok(mut joined) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

/// What is known of the client's side of the connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Who is connected.
    pub peer: IpAddr,
    /// Whether that is a proxy whose word counts.
    pub trusted: bool,
    /// The scheme of the public address.
    pub scheme: &'static str,
    /// The host that was asked for.
    pub host: Option<HeaderValue>,
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Sets the `X-Forwarded-…` headers. Those that came in stay only if a trusted proxy sent them.
pub fn forwarded(headers: &mut HeaderMap, client: &Client) {
    let foreign: Vec<HeaderName> =
        headers.keys().filter(|name| misleads(name, client.trusted)).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
    let before: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let peer = client.peer.to_string();
    let path: Vec<&str> = before.into_iter().chain([peer.as_str()]).collect();
    if let Ok(value) = HeaderValue::try_from(path.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(client.scheme));
    if let Some(host) = &client.host {
        headers.entry(FORWARDED_HOST).or_insert(host.clone());
    }
}

/// Whether a header says something about the request that the client is not to say. Some servers fold `_` to `-`.
fn misleads(name: &HeaderName, trusted: bool) -> bool {
    let name = name.as_str();
    let folded = name.replace(|sign: char| !sign.is_ascii_alphanumeric(), "-");
    let other_address = folded.starts_with("x-original-") || folded.starts_with("x-rewrite-");
    let about_client = folded.starts_with("x-forwarded")
        || ["forwarded", "x-real-ip", "x-client-ip", "true-client-ip"].contains(&folded.as_str());
    other_address || (about_client && (!trusted || name != folded))
}

/// Drops the Set-Cookie fields that the predicate picks by the cookie's name.
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

/// The name of the cookie that a Set-Cookie field sets (RFC 6265bis section 5.6). A cookie without a name comes back as
/// its value alone, which may look like a cookie with one: so the value's beginning counts as the name.
fn name_of(field: &HeaderValue) -> String {
    let pair = field.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let mut parts = pair.split(|byte| *byte == b'=').skip_while(|part| part.trim_ascii().is_empty());
    let name = parts.next().unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii()).into_owned()
}

#[cfg(test)]
mod tests;
