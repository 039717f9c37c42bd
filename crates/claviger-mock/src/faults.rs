//! Faults on demand: what goes wrong, where, and how often.

mod text;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::log::Endpoint;

pub(crate) use text::HELP;

/// One fault. Delays add up; of the other faults that fit a request the oldest acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The endpoint that misbehaves.
    pub endpoint: Endpoint,
    /// Only calls with this grant type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<String>,
    /// Calls that still pass unharmed before the fault begins.
    #[serde(default)]
    pub skip: u32,
    /// Calls that still fail; `None` until cleared.
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

    /// Concerns only `/oauth2/token` calls with this grant type.
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

    /// Says what is wrong with a fault that came from outside.
    ///
    /// # Errors
    /// A sentence for the person who adds the fault.
    pub fn check(&self) -> Result<(), String> {
        match self.kind {
            FaultKind::Status { status, .. } if !(400..600).contains(&status) => {
                Err(format!("the status of a fault is from 400 to 599, not {status}"))
            }
            _ => Ok(()),
        }
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing takes effect; this answer is given.
    Status {
        /// The status, 400 to 599.
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
    /// The request takes effect; the answer has status 200 and a body that is no use.
    Malformed {
        /// What the body looks like.
        body: MalformedBody,
    },
}

impl FaultKind {
    /// An answer with this status and an empty body.
    pub fn status(status: u16) -> Self {
        Self::Status { status, body: String::new(), retry_after: None }
    }

    /// 429 with an empty body, as seen from `/validate` (twurple#390), with or without `Retry-After`.
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
                let unix_secs = u64::try_from(now_ms / 1_000).unwrap_or(0).saturating_add(u64::from(seconds));
                // The formatter knows the years up to 9999.
                let date = std::time::UNIX_EPOCH + Duration::from_secs(unix_secs.min(253_402_300_799));
                HeaderValue::from_str(&httpdate::fmt_http_date(date)).unwrap_or(HeaderValue::from(seconds))
            }
        }
    }
}

/// A body that is no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MalformedBody {
    /// Bytes that are not UTF-8, as JSON.
    Garbage,
    /// The first half of the true answer, as JSON.
    Truncated,
    /// An HTML page.
    Html,
    /// Valid JSON of another shape.
    OtherShape,
}

/// What the faults ask of one request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) kind: Option<FaultKind>,
}

impl Plan {
    pub(crate) fn is_faulty(&self) -> bool {
        self.kind.is_some() || !self.delay.is_zero()
    }
}

/// The faults waiting, oldest first.
#[derive(Default)]
pub(crate) struct Faults(VecDeque<Fault>);

impl Faults {
    /// Adds a fault; beyond the limit the oldest goes.
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

    /// Takes what applies to a request and uses it up.
    pub(crate) fn plan(&mut self, endpoint: Endpoint, grant_type: Option<&str>) -> Plan {
        let mut plan = Plan::default();
        let mut delay_ms: u64 = 0;
        for fault in &mut self.0 {
            let fits = fault.endpoint == endpoint
                && fault.grant_type.as_deref().is_none_or(|wanted| grant_type == Some(wanted));
            let delays = matches!(fault.kind, FaultKind::Delay { .. });
            if !fits || (plan.kind.is_some() && !delays) || !fault.strike() {
                continue;
            }
            match &fault.kind {
                FaultKind::Delay { delay_ms: more } => delay_ms = delay_ms.saturating_add(*more),
                kind => plan.kind = Some(kind.clone()),
            }
        }
        self.0.retain(|fault| fault.calls != Some(0));
        plan.delay = Duration::from_millis(delay_ms.min(limits::DELAY_MS));
        plan
    }
}

impl Fault {
    /// Counts one call; says whether the fault acts on it.
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

/// Spoils a true answer.
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
