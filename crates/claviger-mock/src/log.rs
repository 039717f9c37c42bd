//! The request log: calls and answers, without secrets.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::limits;

/// The purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `/oauth2/authorize`
    Authorize,
    /// `/oauth2/token`
    Token,
    /// `/oauth2/validate`
    Validate,
    /// `/oauth2/revoke`
    Revoke,
    /// `/oauth2/.well-known/openid-configuration`
    OpenidConfiguration,
    /// `/oauth2/keys`
    Keys,
    /// `/oauth2/userinfo`
    Userinfo,
    /// `/helix/users`
    HelixUsers,
    /// `/helix/authorization/users`
    HelixAuthorizationUsers,
    /// `/helix/subscriptions`
    HelixSubscriptions,
    /// `/helix/eventsub/subscriptions`
    HelixEventsubSubscriptions,
    /// `/settings/connections`
    Connections,
    /// Any other path outside `/` and `/mock/`.
    Unknown,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Authorize,
        Self::Token,
        Self::Validate,
        Self::Revoke,
        Self::OpenidConfiguration,
        Self::Keys,
        Self::Userinfo,
        Self::HelixUsers,
        Self::HelixAuthorizationUsers,
        Self::HelixSubscriptions,
        Self::HelixEventsubSubscriptions,
        Self::Connections,
        Self::Unknown,
    ];

    /// The endpoint of a path; `None` for the mock's own pages and control API.
    pub fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "/" => return None,
            "/oauth2/authorize" => Self::Authorize,
            "/oauth2/token" => Self::Token,
            "/oauth2/validate" => Self::Validate,
            "/oauth2/revoke" => Self::Revoke,
            "/oauth2/.well-known/openid-configuration" => Self::OpenidConfiguration,
            "/oauth2/keys" => Self::Keys,
            "/oauth2/userinfo" => Self::Userinfo,
            "/helix/users" => Self::HelixUsers,
            "/helix/authorization/users" => Self::HelixAuthorizationUsers,
            "/helix/subscriptions" => Self::HelixSubscriptions,
            "/helix/eventsub/subscriptions" => Self::HelixEventsubSubscriptions,
            "/settings/connections" => Self::Connections,
            own if own == "/mock" || own.starts_with("/mock/") => return None,
            _ => Self::Unknown,
        })
    }

    /// The name used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Token => "token",
            Self::Validate => "validate",
            Self::Revoke => "revoke",
            Self::OpenidConfiguration => "openid_configuration",
            Self::Keys => "keys",
            Self::Userinfo => "userinfo",
            Self::HelixUsers => "helix_users",
            Self::HelixAuthorizationUsers => "helix_authorization_users",
            Self::HelixSubscriptions => "helix_subscriptions",
            Self::HelixEventsubSubscriptions => "helix_eventsub_subscriptions",
            Self::Connections => "connections",
            Self::Unknown => "unknown",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered with this status.
    Answered(u16),
    /// The connection was closed and nothing happened.
    ClosedBefore,
    /// It took effect, the answer would have had this status, and the connection was closed
    /// instead.
    ClosedAfter(u16),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Grows by one with each request and is not reset when old entries are dropped.
    pub sequence: u64,
    /// When it arrived, in Unix milliseconds.
    pub at_ms: i64,
    /// What was called.
    pub endpoint: Endpoint,
    /// The HTTP method.
    pub method: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether a fault shaped the answer.
    pub faulty: bool,
    /// The grant type; `other` for an unknown one.
    pub grant_type: Option<String>,
    /// The client, if it is registered.
    pub client_id: Option<String>,
    /// The user, if the request concerns one.
    pub user_id: Option<String>,
    /// The fingerprint of the token presented, not its value; see `MockTwitch::fingerprint`.
    pub token: Option<String>,
    /// Whether the refresh token presented had been spent before.
    pub reused: bool,
}

/// What an endpoint notes about a request, for the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    pub(crate) grant_type: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) reused: bool,
}

/// Totals that are never dropped, unlike log entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Calls of each endpoint.
    pub endpoints: BTreeMap<Endpoint, u64>,
    /// Calls of `/oauth2/token` by grant type.
    pub grant_types: BTreeMap<String, u64>,
    /// Refresh tokens presented that had been spent before.
    pub reused_refresh_tokens: u64,
}

/// The newest requests and the totals of all.
#[derive(Default)]
pub(crate) struct Log {
    entries: VecDeque<LogEntry>,
    counters: Counters,
    sequence: u64,
}

impl Log {
    pub(crate) fn add(&mut self, mut entry: LogEntry) {
        self.sequence += 1;
        entry.sequence = self.sequence;
        *self.counters.endpoints.entry(entry.endpoint).or_default() += 1;
        if let (Endpoint::Token, Some(grant_type)) = (entry.endpoint, &entry.grant_type) {
            *self.counters.grant_types.entry(grant_type.clone()).or_default() += 1;
        }
        self.counters.reused_refresh_tokens += u64::from(entry.reused);
        if self.entries.len() >= limits::LOG_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.entries.iter()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Forgets the entries; totals and sequence continue.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}
