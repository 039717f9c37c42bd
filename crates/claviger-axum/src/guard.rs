//! Protection of unsafe methods: only pages of this site may make a browser send them
//! (Fetch Metadata, <https://www.w3.org/TR/fetch-metadata/>; Origin, RFC 6454 section 7).

use http::{HeaderMap, Method, header};

use crate::{cookies, site::Site};

/// Why a request was taken for one that another site made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crossed {
    /// The browser says that another site made it.
    AnotherSite,
    /// It shows our session cookie and does not say who made it.
    SaysNothing,
}

/// Lets a request pass unless it is unsafe and not of this site.
pub(crate) fn judge(site: &Site, method: &Method, headers: &HeaderMap) -> Result<(), Crossed> {
    if harmless(method, headers) {
        return Ok(());
    }
    let field = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    match (field("sec-fetch-site"), field(header::ORIGIN.as_str())) {
        (Some("same-origin" | "none"), _) => Ok(()),
        (Some(_), _) => Err(Crossed::AnotherSite),
        (None, Some(origin)) if origin == site.origin => Ok(()),
        (None, Some(_)) => Err(Crossed::AnotherSite),
        (None, None) if has_session(site, headers) => Err(Crossed::SaysNothing),
        (None, None) => Ok(()),
    }
}

/// A tunnel can do anything once it stands, so asking for one is not harmless, although it is a GET.
fn harmless(method: &Method, headers: &HeaderMap) -> bool {
    // Front proxies take `Upgrade` away before they ask; the key of a WebSocket stays (RFC 6455 section 4.1).
    let tunnel = headers.contains_key(header::UPGRADE) || headers.contains_key(header::SEC_WEBSOCKET_KEY);
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !tunnel
}

fn has_session(site: &Site, headers: &HeaderMap) -> bool {
    cookies::with_prefix(headers, site.session_cookie()).next().is_some()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_pages_of_this_site_may_change_anything() {
        let site = Site::new("https://app.example");
        let ours = ("cookie", "__Host-claviger=x");
        let fetch = |value| ("sec-fetch-site", value);
        let origin = |value| ("origin", value);
        type Case<'a> = (Method, Vec<(&'static str, &'a str)>, Result<(), Crossed>);
        let table: [Case<'_>; 18] = [
            (Method::GET, vec![fetch("cross-site"), ours], Ok(())),
            (Method::HEAD, vec![ours], Ok(())),
            (Method::POST, vec![fetch("same-origin"), ours], Ok(())),
            (Method::POST, vec![fetch("none"), ours], Ok(())),
            (Method::POST, vec![fetch("same-site"), ours], Err(Crossed::AnotherSite)),
            (Method::POST, vec![fetch("cross-site"), ours], Err(Crossed::AnotherSite)),
            (
                Method::POST,
                vec![fetch("cross-site"), origin("https://app.example")],
                Err(Crossed::AnotherSite),
            ),
            (Method::POST, vec![fetch("nonsense"), ours], Err(Crossed::AnotherSite)),
            (Method::POST, vec![origin("https://app.example"), ours], Ok(())),
            (Method::POST, vec![origin("https://evil.app.example"), ours], Err(Crossed::AnotherSite)),
            (Method::POST, vec![origin("http://app.example"), ours], Err(Crossed::AnotherSite)),
            (Method::POST, vec![origin("null"), ours], Err(Crossed::AnotherSite)),
            (Method::POST, vec![ours], Err(Crossed::SaysNothing)),
            (Method::POST, vec![], Ok(())),
            (Method::DELETE, vec![fetch("cross-site")], Err(Crossed::AnotherSite)),
            (
                Method::GET,
                vec![("upgrade", "websocket"), origin("https://evil.example"), ours],
                Err(Crossed::AnotherSite),
            ),
            (Method::GET, vec![("upgrade", "websocket"), origin("https://app.example"), ours], Ok(())),
            (
                Method::GET,
                vec![("sec-websocket-key", "x"), fetch("same-site"), ours],
                Err(Crossed::AnotherSite),
            ),
        ];
        for (method, fields, expected) in table {
            let headers: HeaderMap = fields
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
                .collect();
            assert_eq!(judge(&site, &method, &headers), expected, "{method} {fields:?}");
        }
    }
}
