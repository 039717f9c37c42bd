//! The head of a request. No forged identity and no cookie of ours reaches the app, its own cookies
//! do, and only a good session cookie signs in.
//!
//! An input is text like that of HTTP, with the address of the peer in its second line. `{session}`
//! stands for the value of a good session cookie.
//!
//! ```text
//! GET / HTTP/1.1
//! 10.0.0.1
//! host: app.example
//! cookie: __Host-claviger={session}; theme=dark
//! ```

use std::net::{IpAddr, SocketAddr};

use axum::{body::Body, extract::ConnectInfo};
use claviger_axum::RequestHead;
use claviger_core::{limits::COOKIE_HEADER_BYTES, request::host::Host};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header, request::Parts};

use crate::app::{App, FRONT, LOGIN, SESSION, Seen};

pub(crate) const OUTCOMES: [&str; 5] = ["signed-in", "signed-out", "refused", "large-cookies", "no-input"];

/// Cookies that no app sees, beside those of sign-ins.
const OURS: [&str; 5] =
    [SESSION, "__Host-claviger-hint", "claviger-insecure", "claviger-insecure-hint", "claviger-led-here"];
const INSECURE_LOGIN: &str = "claviger-insecure-login-";
const CANARY: &str = "canary";

struct Setting {
    app: App,
    session: String,
}

thread_local! {
    static SETTING: Setting = {
        let app = App::new();
        let session = app.sign_in();
        Setting { app, session }
    };
}

/// Sends a request, and compares what the app saw with what the client sent.
pub(crate) fn check(input: &[u8]) -> &'static str {
    SETTING.with(|Setting { app, session }| {
        let Some((parts, peer)) = parse(input, session) else { return "no-input" };
        let cookies: usize = parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::len).sum();
        let Ok(head) = RequestHead::read(app.claviger.site(), &parts) else {
            assert!(cookies > COOKIE_HEADER_BYTES);
            return "large-cookies";
        };
        assert!(cookies <= COOKIE_HEADER_BYTES);
        check_head(&head, &parts, peer);
        let sent = parts.headers.clone();
        let answer = app.send(Request::from_parts(parts, Body::empty()));
        let Some(seen) = answer.extensions().get::<Seen>() else { return "refused" };
        check_seen(seen, &sent, session);
        if seen.is_signed_in { "signed-in" } else { "signed-out" }
    })
}

fn check_head(head: &RequestHead, parts: &Parts, peer: IpAddr) {
    if !parts.uri.path().contains(CANARY) {
        assert!(!format!("{head:?}").contains(CANARY), "a secret of the query or a cookie: {head:?}");
    }
    assert_eq!(head.peer().address(), Some(peer.to_canonical()));
    assert_eq!(head.peer().is_front(), peer.to_canonical() == FRONT.parse::<IpAddr>().unwrap());
    assert!(head.peer().is_front() || head.peer().client() == Some(peer.to_canonical()));
    let hosts: Vec<_> = parts.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes).collect();
    if head.host() == Host::Public {
        assert!(hosts.len() <= 1, "two hosts");
        let named = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
        if let Some(named) = named.or(hosts.first().copied()) {
            let name = named.split(|byte| *byte == b':').next().unwrap();
            assert!(name.eq_ignore_ascii_case(b"app.example"), "{}", named.escape_ascii());
        }
    }
}

fn check_seen(seen: &Seen, sent: &HeaderMap, session: &str) {
    for name in seen.headers.keys() {
        let folded = name.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        assert!(!folded.starts_with("x-auth-"), "{name} is forged");
    }
    let before = pairs(sent);
    let theirs: Vec<_> = before.iter().filter(|pair| !is_ours(name(pair))).cloned().collect();
    assert_eq!(pairs(&seen.headers), theirs, "the app sees its own cookies and no other");
    if seen.is_signed_in {
        let shown = before.iter().filter_map(|pair| pair.strip_prefix(b"__Host-claviger="));
        let shown: Vec<_> = shown.map(<[u8]>::to_vec).collect();
        assert!(!shown.is_empty() && shown.iter().all(|value| value == session.as_bytes()), "planted");
    }
    let rest = |headers: &HeaderMap| -> Vec<(HeaderName, HeaderValue)> {
        let plain = |name: &HeaderName| !name.as_str().starts_with('x') && name != header::COOKIE;
        let mut all: Vec<_> = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        all.retain(|(name, _)| plain(name));
        all.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        all
    };
    assert_eq!(rest(&seen.headers), rest(sent), "the app's own headers stay");
}

/// The cookies of a request, as a server splits them.
fn pairs(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let fields = headers.get_all(header::COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.map(|pair| pair.trim_ascii().to_vec()).filter(|pair| !pair.is_empty()).collect()
}

fn name(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

fn is_ours(name: &[u8]) -> bool {
    OURS.iter().any(|ours| name == ours.as_bytes())
        || [LOGIN, INSECURE_LOGIN].iter().any(|ours| name.starts_with(ours.as_bytes()))
}

fn parse(input: &[u8], session: &str) -> Option<(Parts, IpAddr)> {
    let mut lines = input.strip_suffix(b"\n").unwrap_or(input).split(|byte| *byte == b'\n');
    let mut words = std::str::from_utf8(lines.next()?).ok()?.splitn(3, ' ');
    let method = words.next()?;
    let uri = words.next()?.parse::<Uri>().ok()?;
    if uri.path().starts_with("/auth/") {
        return None;
    }
    let version = match words.next()? {
        "HTTP/1.0" => Version::HTTP_10,
        "HTTP/1.1" => Version::HTTP_11,
        "HTTP/2" => Version::HTTP_2,
        _ => return None,
    };
    let peer: IpAddr = std::str::from_utf8(lines.next()?).ok()?.parse().ok()?;
    let request = Request::builder().method(method).uri(uri).version(version);
    let (mut parts, ()) = request.body(()).ok()?.into_parts();
    parts.extensions.insert(ConnectInfo(SocketAddr::new(peer, 1)));
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = line[colon + 1..].trim_ascii();
        let value = match std::str::from_utf8(value) {
            Ok(text) => HeaderValue::from_str(&text.replace("{session}", session)).ok()?,
            Err(_) => HeaderValue::from_bytes(value).ok()?,
        };
        parts.headers.try_append(name, value).ok()?;
    }
    Some((parts, peer))
}
