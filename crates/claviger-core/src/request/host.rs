//! Whose host a request names (RFC 9112 section 3.2).

use std::net::{IpAddr, Ipv6Addr};

/// Whose host a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// None, although it must name one.
    Missing,
    /// Text that is no host, or two hosts.
    Invalid,
    /// The site's own, or none at all where that is allowed.
    Public,
    /// One of the site's other hosts: its place in the list.
    Other(usize),
    /// The name by which a trusted proxy knows this server.
    OfFront,
    /// Another one.
    Foreign,
}

/// Says whose host this is. Ports are not compared: they may differ behind a proxy or a tunnel.
///
/// An IP address, `localhost` or a name without a dot is believed to be a trusted proxy's own name
/// for this server. No browser reaches a public site by such a name through that proxy.
pub fn compare(field: &[u8], public: &str, others: &[String], from_front: bool) -> Host {
    let Some(host) = Named::read(field) else { return Host::Invalid };
    if host.is(public) {
        return Host::Public;
    }
    match host.place_in(others) {
        Some(place) => Host::Other(place),
        None if from_front && host.is_inner() => Host::OfFront,
        None => Host::Foreign,
    }
}

/// The host in a `Host` field, without its port. `None` if the field is not valid.
pub fn name(field: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let length = match field {
        [b'[', rest @ ..] => rest.iter().position(|byte| *byte == b']')? + 2,
        _ => field.iter().position(|byte| !plain(byte)).unwrap_or(field.len()),
    };
    let (name, port) = field.split_at_checked(length)?;
    let name = std::str::from_utf8(name).ok()?;
    let valid = match name.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok(),
        None => (1..=LONGEST_NAME).contains(&name.len()),
    };
    (valid && is_port(port)).then_some(name)
}

/// Whether this is the rest of a `Host` field behind the name.
fn is_port(rest: &[u8]) -> bool {
    let digits = match rest {
        [] | [b':'] => return true,
        [b':', digits @ ..] => digits,
        _ => return false,
    };
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok());
    digits.first() != Some(&b'+') && number.is_some()
}

/// Maximum length of a host name in bytes (RFC 1035 section 2.3.4, without the root).
const LONGEST_NAME: usize = 253;

/// Whether nobody on the internet can register this name for a page of their own, so that a browser
/// that asks for it was not led here by such a page (DNS rebinding).
pub fn is_private(field: &[u8], listed: &[String]) -> bool {
    let Some(host) = Named::read(field) else { return false };
    let lower = host.name.to_ascii_lowercase();
    let ours = [".internal", ".local", ".localhost", ".svc", ".home.arpa"];
    host.is_inner() || ours.iter().any(|ending| lower.ends_with(ending)) || host.place_in(listed).is_some()
}

/// A valid host.
struct Named<'a> {
    name: &'a str,
    /// If it is one. An address can be written in several ways.
    address: Option<IpAddr>,
}

impl<'a> Named<'a> {
    fn read(field: &'a [u8]) -> Option<Self> {
        name(field).map(|name| Self { name, address: address(name) })
    }

    fn is(&self, other: &str) -> bool {
        self.name.eq_ignore_ascii_case(other) || self.address.is_some() && self.address == address(other)
    }

    fn place_in(&self, listed: &[String]) -> Option<usize> {
        listed.iter().position(|other| name(other.as_bytes()).is_some_and(|other| self.is(other)))
    }

    /// Whether a public site cannot have this name.
    fn is_inner(&self) -> bool {
        !self.name.contains('.')
            || self.address.is_some()
            || self.name.to_ascii_lowercase().ends_with(".localhost")
    }
}

fn address(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(name).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_host_is_a_name_or_an_address_with_a_port() {
        let long = format!("{}.example", "a".repeat(250));
        let table: &[(&str, Option<&str>)] = &[
            ("app.example", Some("app.example")),
            ("app.example:8443", Some("app.example")),
            ("app.example:", Some("app.example")),
            ("APP_1.example", Some("APP_1.example")),
            ("localhost", Some("localhost")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]", Some("[::1]")),
            ("[::1]:8080", Some("[::1]")),
            ("", None),
            (":80", None),
            ("a, b", None),
            ("a,b", None),
            ("evil<x>", None),
            ("evil@localhost", None),
            ("a b", None),
            ("a/b", None),
            ("a?b", None),
            ("a%2eb", None),
            ("a:b", None),
            ("a:80:80", None),
            ("a:65536", None),
            ("a:+80", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[localhost]", None),
            ("::1", None),
            ("\u{e4}.example", None),
            (&long, None),
        ];
        for (field, expected) in table {
            assert_eq!(name(field.as_bytes()), *expected, "{field:?}");
        }
        assert_eq!(name(b"a\xff"), None);
    }

    #[test]
    fn a_private_name_is_none_that_a_stranger_can_register() {
        let listed = ["metrics.app.example".to_owned()];
        let table = [
            ("127.0.0.1:9464", true),
            ("[::1]", true),
            ("localhost", true),
            ("claviger", true),
            ("claviger.internal", true),
            ("Claviger.Monitoring.svc", true),
            ("claviger.monitoring.svc.cluster.local", true),
            ("metrics.app.example:9464", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("internal.evil.example", false),
            ("localhost.", false),
            ("", false),
            ("a, b", false),
        ];
        for (field, expected) in table {
            assert_eq!(is_private(field.as_bytes(), &listed), expected, "{field}");
        }
    }

    #[test]
    fn a_host_is_compared_without_its_port() {
        let others = ["www.app.example".to_owned(), "shop.example:8443".to_owned()];
        let table = [
            ("app.example", Host::Public, Host::Public),
            ("App.Example:8080", Host::Public, Host::Public),
            ("www.app.example", Host::Other(0), Host::Other(0)),
            ("SHOP.example", Host::Other(1), Host::Other(1)),
            ("evil.example", Host::Foreign, Host::Foreign),
            ("app.example.", Host::Foreign, Host::Foreign),
            ("app.example.evil.example", Host::Foreign, Host::Foreign),
            ("127.0.0.1:8080", Host::Foreign, Host::OfFront),
            ("[::1]:8080", Host::Foreign, Host::OfFront),
            ("localhost", Host::Foreign, Host::OfFront),
            ("app.localhost", Host::Foreign, Host::OfFront),
            ("claviger", Host::Foreign, Host::OfFront),
            ("claviger.internal", Host::Foreign, Host::Foreign),
            ("a, b", Host::Invalid, Host::Invalid),
            ("", Host::Invalid, Host::Invalid),
        ];
        for (field, from_anybody, from_front) in table {
            let found = |front| compare(field.as_bytes(), "app.example", &others, front);
            assert_eq!((found(false), found(true)), (from_anybody, from_front), "{field:?}");
        }
        assert_eq!(compare(b"[0:0:0:0:0:0:0:1]:80", "[::1]", &[], false), Host::Public);
        assert_eq!(compare(b"localhost:9999", "localhost", &[], false), Host::Public);
    }
}
