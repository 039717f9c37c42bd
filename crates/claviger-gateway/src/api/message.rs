//! What passes to the provider's API and back: the bodies, and the headers listed here.

use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use claviger_axum::Problem;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{inbound::TooSlow, problems::BROKEN_OFF};

/// Maximum size of a body that is kept until the call is answered, so that the call can be
/// repeated.
const REPLAY_BYTES: usize = 32 * 1024;

/// Headers that pass to the provider's API.
const OUTGOING: &[HeaderName] = &[
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
];

/// Headers that pass back to the caller, besides those of the rate limit.
const INCOMING: &[HeaderName] = &[
    header::CONTENT_TYPE,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
];
const RATE_LIMIT: &str = "ratelimit-";

/// The headers that pass to the provider's API.
pub(super) fn outgoing(headers: &HeaderMap) -> HeaderMap {
    chosen(headers, |name| OUTGOING.contains(name))
}

/// The answer, with the headers that pass back.
pub(super) fn incoming(answer: http::Response<reqwest::Body>) -> Response {
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = parts.status;
    let listed = |name: &HeaderName| INCOMING.contains(name) || name.as_str().starts_with(RATE_LIMIT);
    *response.headers_mut() = chosen(&parts.headers, listed);
    disarm(response.headers_mut());
    response
}

/// Keeps an answer of the provider from acting as a page of this site, should a browser show it:
/// what could hold a script becomes a download, and the rest may do nothing.
fn disarm(headers: &mut HeaderMap) {
    // Which of several counts depends on the browser.
    if headers.get_all(header::CONTENT_TYPE).iter().any(|kind| !is_data(kind.as_bytes())) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    }
    const POLICY: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
}

/// Whether a media type is of data that no browser runs.
fn is_data(kind: &[u8]) -> bool {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let kind = kind.to_ascii_lowercase();
    DATA.contains(&&kind[..]) || (kind.starts_with(b"application/") && kind.ends_with(b"+json"))
}

const DATA: &[&[u8]] = &[
    b"application/json",
    b"application/octet-stream",
    b"application/x-ndjson",
    b"text/plain",
    b"text/csv",
    b"text/calendar",
    b"text/event-stream",
];

fn chosen(headers: &HeaderMap, choose: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| choose(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The body of a call.
pub(super) enum Payload {
    /// The whole body. It can be sent repeatedly.
    Whole(Bytes),
    /// Too large to keep: the beginning that was read, and the rest.
    Once(Option<(Bytes, Limited<Body>)>),
}

impl Payload {
    /// Reads the beginning of a body.
    pub(super) async fn read(body: Body, max_bytes: usize) -> Result<Self, Problem> {
        if body.size_hint().lower() > u64::try_from(max_bytes).unwrap_or(u64::MAX) {
            return Err(TOO_LARGE);
        }
        let mut body = Limited::new(body, max_bytes);
        let mut head = BytesMut::new();
        while head.len() <= REPLAY_BYTES {
            match body.frame().await {
                None => return Ok(Self::Whole(head.freeze())),
                Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| head.extend_from_slice(data)),
                Some(Err(error)) if error.is::<LengthLimitError>() => return Err(TOO_LARGE),
                Some(Err(_)) => return Err(BROKEN_OFF),
            }
        }
        Ok(Self::Once(Some((head.freeze(), body))))
    }

    /// The body, for the first time.
    pub(super) fn take(&mut self) -> reqwest::Body {
        match self {
            Self::Whole(bytes) => bytes.clone().into(),
            Self::Once(rest) => rest.take().map_or_else(reqwest::Body::default, |(head, rest)| {
                let rest = rest.into_data_stream();
                reqwest::Body::wrap_stream(futures_util::stream::iter([Ok(head)]).chain(rest))
            }),
        }
    }

    /// The body once more, if it was kept.
    pub(super) fn again(&mut self) -> Option<reqwest::Body> {
        match self {
            Self::Whole(bytes) => Some(bytes.clone().into()),
            Self::Once(_) => None,
        }
    }
}

/// The problem for a call without an answer. The caller's body or the provider is to blame.
pub(super) fn unanswered(error: &reqwest::Error) -> Problem {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return TOO_LARGE;
        }
        if error.is::<TooSlow>() {
            return BROKEN_OFF;
        }
        cause = error.source();
    }
    if error.is_timeout() {
        tracing::warn!("the provider's API did not answer in time");
        return SLOW;
    }
    // The error may contain the address with its query, so it is not logged.
    tracing::warn!(connecting = error.is_connect(), "the provider's API did not answer");
    NO_ANSWER
}

const TOO_LARGE: Problem = Problem::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "body_too_large",
    "Too large",
    "The body of this call is larger than this site allows.",
);

pub(super) const NO_ANSWER: Problem = Problem::new(
    StatusCode::BAD_GATEWAY,
    "provider_unreachable",
    "No answer",
    "The provider's API gave no answer. It is unknown whether the call took effect.",
);

const SLOW: Problem = Problem::new(
    StatusCode::GATEWAY_TIMEOUT,
    "provider_slow",
    "No answer",
    "The provider's API takes too long to answer. It is unknown whether the call took effect.",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_provider_is_no_page_of_this_site() {
        let table = [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("Application/Problem+JSON", true),
            ("text/plain", true),
            ("text/calendar", true),
            ("text/html", false),
            ("text/html;charset=utf-8", false),
            ("TEXT/HTML", false),
            ("application/xhtml+xml", false),
            ("image/svg+xml", false),
            ("text/xml", false),
            ("text/javascript", false),
            ("application/pdf", false),
            ("text/html, application/json", false),
            ("", false),
        ];
        for (kind, stays) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            disarm(&mut headers);
            assert_eq!(headers[header::CONTENT_TYPE] == kind, stays, "{kind}");
            assert_eq!(headers.contains_key(header::CONTENT_DISPOSITION), !stays, "{kind}");
            assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("sandbox"), "{kind}");
        }
        for kinds in [["application/json", "text/html"], ["text/html", "application/json"]] {
            let fields = kinds.map(|kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind)));
            let mut headers = HeaderMap::from_iter(fields);
            disarm(&mut headers);
            let left: Vec<_> = headers.get_all(header::CONTENT_TYPE).iter().collect();
            assert_eq!(left, ["application/octet-stream"], "{kinds:?}");
        }
    }
}
