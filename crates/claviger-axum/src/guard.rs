//! Protects unsafe methods: a browser may send them only from pages of this site. Sources: Fetch
//! Metadata (<https://www.w3.org/TR/fetch-metadata/>) and Origin (RFC 6454 section 7).

use claviger_core::request::navigation::FetchSite;
use http::Method;

use crate::head::{Origin, RequestHead};

/// Why a request counts as cross-site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrossSite {
    /// The browser says that another site made it.
    AnotherSite,
    /// It has our session cookie and neither `Sec-Fetch-Site` nor `Origin`.
    NoOrigin,
}

/// Accepts a request with this method that is safe or that this site made.
///
/// The handshake of a WebSocket is not safe: anything can be sent through the tunnel later.
pub(crate) fn check(method: &Method, head: &RequestHead) -> Result<(), CrossSite> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !head.is_websocket() {
        return Ok(());
    }
    match (head.fetch_site, head.origin) {
        (FetchSite::SameOrigin | FetchSite::User, _) => Ok(()),
        (FetchSite::Other, _) | (FetchSite::Unsaid, Origin::Other) => Err(CrossSite::AnotherSite),
        (FetchSite::Unsaid, Origin::Site) => Ok(()),
        (FetchSite::Unsaid, Origin::Unsaid) if head.cookies.is_any() => Err(CrossSite::NoOrigin),
        (FetchSite::Unsaid, Origin::Unsaid) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;

    #[test]
    fn unsafe_cross_site_requests_are_refused() {
        let site = Site::new("https://app.example");
        let ours = ("cookie", "__Host-claviger=x");
        let fetch = |value| ("sec-fetch-site", value);
        let origin = |value| ("origin", value);
        type Case<'a> = (Method, Vec<(&'static str, &'a str)>, Result<(), CrossSite>);
        let table: [Case<'_>; 18] = [
            (Method::GET, vec![fetch("cross-site"), ours], Ok(())),
            (Method::HEAD, vec![ours], Ok(())),
            (Method::POST, vec![fetch("same-origin"), ours], Ok(())),
            (Method::POST, vec![fetch("none"), ours], Ok(())),
            (Method::POST, vec![fetch("same-site"), ours], Err(CrossSite::AnotherSite)),
            (Method::POST, vec![fetch("cross-site"), ours], Err(CrossSite::AnotherSite)),
            (
                Method::POST,
                vec![fetch("cross-site"), origin("https://app.example")],
                Err(CrossSite::AnotherSite),
            ),
            (Method::POST, vec![fetch("nonsense"), ours], Err(CrossSite::AnotherSite)),
            (Method::POST, vec![origin("https://app.example"), ours], Ok(())),
            (Method::POST, vec![origin("https://evil.app.example"), ours], Err(CrossSite::AnotherSite)),
            (Method::POST, vec![origin("http://app.example"), ours], Err(CrossSite::AnotherSite)),
            (Method::POST, vec![origin("null"), ours], Err(CrossSite::AnotherSite)),
            (Method::POST, vec![ours], Err(CrossSite::NoOrigin)),
            (Method::POST, vec![], Ok(())),
            (Method::DELETE, vec![fetch("cross-site")], Err(CrossSite::AnotherSite)),
            (
                Method::GET,
                vec![("upgrade", "websocket"), origin("https://evil.example"), ours],
                Err(CrossSite::AnotherSite),
            ),
            (Method::GET, vec![("upgrade", "websocket"), origin("https://app.example"), ours], Ok(())),
            (
                Method::GET,
                vec![("sec-websocket-key", "x"), fetch("same-site"), ours],
                Err(CrossSite::AnotherSite),
            ),
        ];
        for (method, fields, expected) in table {
            let mut request = http::Request::builder();
            for (name, value) in &fields {
                request = request.header(*name, *value);
            }
            let head = RequestHead::read(&site, &request.body(()).unwrap().into_parts().0).unwrap();
            assert_eq!(check(&method, &head), expected, "{method} {fields:?}");
        }
    }
}
