//! Faults on demand: endpoint, kind, and number of calls.
//!
//! Nothing here knows a provider, except for the names of [`Endpoint`].

mod change;
mod text;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::log::Endpoint;

pub use change::{Change, Encoding};
pub(crate) use text::HELP;

/// One fault.
///
/// Of the faults that match a request, delays add up and changes apply one after the other, the
/// oldest first. Of the others only the oldest applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The endpoint that fails.
    pub endpoint: Endpoint,
    /// Only calls with this grant type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<String>,
    /// Number of calls that still pass before the fault begins.
    #[serde(default)]
    pub skip: u32,
    /// Number of calls that still fail; `None` means all until cleared.
    #[serde(default)]
    pub calls: Option<u32>,
    /// What happens.
    #[serde(flatten)]
    pub kind: FaultKind,
}

impl Fault {
    /// Fails every call until cleared.
    pub fn always(endpoint: Endpoint, kind: FaultKind) -> Self {
        Self { endpoint, grant_type: None, skip: 0, calls: None, kind }
    }

    /// Fails the next call.
    pub fn once(endpoint: Endpoint, kind: FaultKind) -> Self {
        Self::times(1, endpoint, kind)
    }

    /// Fails the next `calls` calls.
    pub fn times(calls: u32, endpoint: Endpoint, kind: FaultKind) -> Self {
        Self { calls: Some(calls), ..Self::always(endpoint, kind) }
    }

    /// Applies only to `/oauth2/token` calls with this grant type.
    #[must_use]
    pub fn grant_type(mut self, grant_type: impl Into<String>) -> Self {
        self.grant_type = Some(grant_type.into());
        self
    }

    /// Lets `calls` calls pass first.
    #[must_use]
    pub fn after(mut self, calls: u32) -> Self {
        self.skip = calls;
        self
    }

    /// Checks a fault from outside.
    ///
    /// # Errors
    /// A sentence for the person who adds the fault.
    pub fn check(&self) -> Result<(), String> {
        match &self.kind {
            FaultKind::Status { status, .. } => check_status(*status),
            FaultKind::Change(change) => change.check(),
            _ => Ok(()),
        }
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing takes effect; this answer is given. A change adds headers to it.
    Status {
        /// The status, 200 to 599.
        status: u16,
        /// The body, empty by default.
        #[serde(default)]
        body: String,
        /// The `Retry-After` header.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<RetryAfter>,
    },
    /// The request takes effect at once and is answered late.
    Delay {
        /// Milliseconds to wait.
        delay_ms: u64,
    },
    /// The connection closes without an answer, and nothing takes effect.
    CloseBefore,
    /// The request takes effect, then the connection closes without an answer.
    CloseAfter,
    /// The request takes effect; the answer has status 200 and an unusable body.
    Malformed {
        /// What the body looks like.
        body: MalformedBody,
    },
    /// The request takes effect; parts of the answer are different.
    Change(Change),
}

fn check_status(status: u16) -> Result<(), String> {
    if (200..600).contains(&status) {
        return Ok(());
    }
    Err(format!("the status of a fault must be from 200 to 599, not {status}"))
}

impl FaultKind {
    /// An answer with this status and an empty body.
    pub fn status(status: u16) -> Self {
        Self::Status { status, body: String::new(), retry_after: None }
    }

    /// 429 with an empty body, as seen from `/validate` (twurple#390), with or without
    /// `Retry-After`.
    pub fn too_many_requests(retry_after: Option<RetryAfter>) -> Self {
        Self::Status { status: 429, body: String::new(), retry_after }
    }

    /// An answer that comes late.
    pub fn delay(delay: Duration) -> Self {
        Self::Delay { delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// A `Retry-After` header (RFC 9110, section 10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// A number of seconds.
    Seconds(u32),
    /// An HTTP date, this many seconds from the request.
    DateInSeconds(u32),
}

impl RetryAfter {
    fn header(self, now_ms: i64) -> HeaderValue {
        match self {
            Self::Seconds(seconds) => HeaderValue::from(seconds),
            Self::DateInSeconds(seconds) => {
                crate::exchange::http_date((now_ms / 1_000).saturating_add(i64::from(seconds)))
            }
        }
    }
}

/// An unusable body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MalformedBody {
    /// Bytes that are not UTF-8, as JSON.
    Garbage,
    /// The first half of the real answer, as JSON.
    Truncated,
    /// An HTML page.
    Html,
    /// Valid JSON of another shape.
    OtherShape,
}

/// The effect of all faults on one request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) kind: Option<FaultKind>,
    pub(crate) changes: Vec<Change>,
}

impl Plan {
    pub(crate) fn is_faulty(&self) -> bool {
        self.kind.is_some() || !self.delay.is_zero() || !self.changes.is_empty()
    }
}

/// The faults that still apply, oldest first.
#[derive(Default)]
pub(crate) struct Faults(VecDeque<Fault>);

impl Faults {
    /// Adds a fault. Beyond the limit the oldest is dropped.
    pub(crate) fn add(&mut self, fault: Fault) {
        if self.0.len() >= limits::FAULTS {
            self.0.pop_front();
        }
        self.0.push_back(fault);
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes the fault at this place of the list, and returns whether there was one.
    pub(crate) fn remove(&mut self, index: usize) -> bool {
        self.0.remove(index).is_some()
    }

    /// The effect on a request. It counts the call.
    pub(crate) fn plan(&mut self, endpoint: Endpoint, grant_type: Option<&str>) -> Plan {
        let mut plan = Plan::default();
        let mut delay_ms: u64 = 0;
        for fault in &mut self.0 {
            let fits = fault.endpoint == endpoint
                && fault.grant_type.as_deref().is_none_or(|wanted| grant_type == Some(wanted));
            let adds = matches!(fault.kind, FaultKind::Delay { .. } | FaultKind::Change(_));
            if !fits || (plan.kind.is_some() && !adds) || !fault.strike() {
                continue;
            }
            match &fault.kind {
                FaultKind::Delay { delay_ms: more } => delay_ms = delay_ms.saturating_add(*more),
                FaultKind::Change(change) => plan.changes.push(change.clone()),
                kind => plan.kind = Some(kind.clone()),
            }
        }
        self.0.retain(|fault| fault.calls != Some(0));
        plan.delay = Duration::from_millis(delay_ms.min(limits::DELAY_MS));
        plan
    }
}

impl Fault {
    /// Counts one call, and returns whether the fault applies to it.
    fn strike(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.calls {
            Some(0) => false,
            Some(calls) => {
                *calls -= 1;
                true
            }
            None => true,
        }
    }
}

/// The answer of a status fault.
pub(crate) fn status_answer(
    status: u16,
    body: &str,
    retry_after: Option<RetryAfter>,
    now_ms: i64,
) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !body.is_empty() {
        let json = serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
        let kind = if json { "application/json" } else { "text/html; charset=utf-8" };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(retry_after) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, retry_after.header(now_ms));
    }
    response
}

/// Turns a real answer into a malformed one.
pub(crate) fn malform(mut response: Response<Bytes>, body: MalformedBody) -> Response<Bytes> {
    *response.status_mut() = StatusCode::OK;
    let half = response.body().len() / 2;
    let (kind, bytes) = match body {
        MalformedBody::Garbage => ("application/json", Bytes::from_static(b"{\"\xff\xfe\x00\x9f")),
        MalformedBody::Truncated => ("application/json", response.body().slice(..half)),
        MalformedBody::Html => {
            let page = "<!doctype html><html><body><h1>We will be right back</h1></body></html>";
            ("text/html; charset=utf-8", Bytes::from_static(page.as_bytes()))
        }
        MalformedBody::OtherShape => {
            ("application/json", Bytes::from_static(b"{\"data\":[],\"pagination\":{}}"))
        }
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    *response.body_mut() = bytes;
    response
}
