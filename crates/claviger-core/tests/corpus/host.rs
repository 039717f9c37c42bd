//! A `Host` field. We may take a host for ours only if everybody reads it so.

use claviger_core::request::host::{self, Host};
use url::Url;

pub(crate) const OUTCOMES: [&str; 5] = ["public", "other", "of-front", "foreign", "invalid"];

const PUBLIC: &str = "app.example";

/// Compares a field with the site's hosts, and with what a URL parser reads.
pub(crate) fn check(input: &[u8]) -> &'static str {
    let field = input.strip_suffix(b"\n").unwrap_or(input);
    let others = ["www.app.example".to_owned(), "[2001:db8::1]:8443".to_owned()];
    let compare = |from_front| host::compare(field, PUBLIC, &others, from_front);
    let found = compare(true);
    let from_anybody = if found == Host::OfFront { Host::Foreign } else { found };
    assert_eq!(compare(false), from_anybody, "only a trusted proxy has its own name for us");

    let url = std::str::from_utf8(field).ok().and_then(|text| Url::parse(&format!("https://{text}/")).ok());
    let read = url.as_ref().and_then(Url::host_str);
    match found {
        Host::Public => assert_eq!(read, Some(PUBLIC)),
        Host::Other(0) => assert_eq!(read, Some("www.app.example")),
        Host::Other(_) => assert_eq!(read, Some("[2001:db8::1]")),
        Host::OfFront | Host::Foreign | Host::Invalid | Host::Missing => {}
    }
    let is_private = host::is_private(field, &[]);
    if found == Host::OfFront || is_private {
        assert!(read.is_none_or(is_unregistrable), "{read:?}: a stranger's site can have this name");
    }
    if let Some(name) = host::name(field) {
        assert!(field.starts_with(name.as_bytes()));
        assert!(!name.bytes().any(|byte| b"\"'<>&/?#@\\, \r\n".contains(&byte)), "{name:?}");
        if let Some(url) = &url {
            assert!(url.username().is_empty() && url.password().is_none() && url.path() == "/", "{url}");
        }
    }
    assert_eq!(host::name(field).is_none(), found == Host::Invalid);
    match found {
        Host::Public => "public",
        Host::Other(_) => "other",
        Host::OfFront => "of-front",
        Host::Foreign => "foreign",
        Host::Invalid | Host::Missing => "invalid",
    }
}

/// Whether nobody can register this name for a site on the internet.
fn is_unregistrable(name: &str) -> bool {
    let inner = [".internal", ".local", ".localhost", ".svc", ".home.arpa"];
    let is_address = name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
    is_address || !name.contains('.') || inner.iter().any(|ending| name.ends_with(ending))
}
