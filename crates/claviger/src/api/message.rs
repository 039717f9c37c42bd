//! What passes to the provider's API and back: the bodies, and the headers that are listed here.

use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use claviger_axum::Problem;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{problems::BROKEN_OFF, proxy::body::TooSlow};

/// A body of up to so many bytes is kept until the call is answered, so that the call can be repeated.
const REPLAY_BYTES: usize = 32 * 1024;

/// What a caller may tell the provider's API.
const OUTGOING: &[HeaderName] = &[
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
];

/// What the provider's API may tell a caller, besides its rate limit.
const INCOMING: &[HeaderName] = &[
    header::CONTENT_TYPE,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
];
const RATE_LIMIT: &str = "ratelimit-";

/// The listed headers of a caller's request.
pub(super) fn outgoing(headers: &HeaderMap) -> HeaderMap {
    chosen(headers, |name| OUTGOING.contains(name))
}

/// The answer with its listed headers.
pub(super) fn incoming(answer: http::Response<reqwest::Body>) -> Response {
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = parts.status;
    let listed = |name: &HeaderName| INCOMING.contains(name) || name.as_str().starts_with(RATE_LIMIT);
    *response.headers_mut() = chosen(&parts.headers, listed);
    response
}

fn chosen(headers: &HeaderMap, choose: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| choose(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The body of a call.
pub(super) enum Payload {
    /// All of it, to be sent as often as needed.
    Whole(Bytes),
    /// Too large to be kept: what was read, and the rest.
    Once(Option<(Bytes, Limited<Body>)>),
}

impl Payload {
    /// Reads the beginning of a body.
    pub(super) async fn read(parts: &Parts, body: Body, max_bytes: usize) -> Result<Self, Problem> {
        if body.size_hint().lower() > u64::try_from(max_bytes).unwrap_or(u64::MAX) {
            return Err(TOO_LARGE);
        }
        if parts.method.is_safe() {
            return Ok(Self::Whole(Bytes::new()));
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

/// Why there is no answer: the caller's body, or the provider.
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
        tracing::warn!("the provider's API takes too long to answer");
        return SLOW;
    }
    // The error itself may name the address with its query, so it is not written down.
    tracing::warn!(connecting = error.is_connect(), "the provider's API gave no answer");
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
    "The provider's API gave no answer. Whether the call took effect is not known.",
);

const SLOW: Problem = Problem::new(
    StatusCode::GATEWAY_TIMEOUT,
    "provider_slow",
    "No answer",
    "The provider's API takes too long to answer. Whether the call took effect is not known.",
);
