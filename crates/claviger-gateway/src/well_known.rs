//! Two addresses that browsers and crawlers ask for by themselves. Without a session, the answer is
//! not that somebody must sign in. A `[[routes]]` rule lets the app answer instead.

use axum::response::{IntoResponse, Response};
use claviger_engine::Denied;
use http::{StatusCode, header};

/// Everything needs a sign-in, so a crawler finds nothing here.
const ROBOTS: &str = "User-agent: *\nDisallow: /\n";

/// The answer to a visitor without a session, if this is one of those addresses.
pub(crate) fn answer(path: &str, denied: &Denied) -> Option<Response> {
    if !matches!(denied, Denied::NoSession | Denied::Ended(_)) {
        return None;
    }
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    match path {
        "/robots.txt" => Some((headers, ROBOTS).into_response()),
        "/favicon.ico" => Some((StatusCode::NOT_FOUND, headers).into_response()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_two_addresses_have_answers_for_strangers() {
        let status = |path| answer(path, &Denied::NoSession).map(|answer| answer.status().as_u16());
        let table = [
            ("/robots.txt", Some(200)),
            ("/favicon.ico", Some(404)),
            ("/robots.txt/x", None),
            ("/", None),
            ("/private/favicon.ico", None),
        ];
        for (path, expected) in table {
            assert_eq!(status(path), expected, "{path}");
        }
        assert!(answer("/robots.txt", &Denied::Misconfigured).is_none());
    }
}
