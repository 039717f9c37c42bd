//! What an operator decides: defaults, then the file, then environment variables, each over the ones before.
//!
//! [`settings`] is the one table of what can be set. [`layers`] merges the three into one tree and remembers where each
//! value came from; one pass of serde makes a [`Config`] of it; [`check`] looks at what single values cannot tell.

pub mod check;
pub mod explain;
pub mod layers;
pub mod reference;
pub mod secrets;
pub mod settings;
pub mod values;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;

pub use layers::{Layers, Origin};
pub use values::{Secret, SiteUrl, Span};

/// A whole configuration. [`settings::SETTINGS`] says what each field is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Config {
    pub listen: SocketAddr,
    pub public_url: SiteUrl,
    pub upstream: Option<SiteUrl>,
    pub trusted_proxies: Vec<IpAddr>,
    pub insecure_plain_http_for_development: bool,
    pub keyring: Option<Vec<Secret>>,
    pub keyring_file: Option<PathBuf>,
    pub store: Store,
    pub provider: Provider,
    pub session: Session,
    pub proxy: Proxy,
    pub routes: Vec<Route>,
    pub api: Api,
    pub limits: Limits,
    pub log: Log,
}

/// `[store]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Store {
    pub path: PathBuf,
}

/// `[provider]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Provider {
    pub client_id: String,
    pub client_secret: Option<Secret>,
    pub client_secret_file: Option<PathBuf>,
    pub scopes: Vec<String>,
    pub mock_url_for_development: Option<SiteUrl>,
}

/// `[session]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Session {
    pub custody: Custody,
    pub idle: Span,
    pub absolute: Span,
    pub proof: Span,
    pub max_unverified: Span,
    pub devices_per_user: u32,
    pub carry_access_token: bool,
    pub same_site: SameSite,
}

/// `session.custody`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the table of settings describes each word")]
pub enum Custody {
    Device,
    Server,
    None,
}

/// `session.same_site`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the table of settings describes each word")]
pub enum SameSite {
    Lax,
    Strict,
}

/// `[proxy]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Proxy {
    pub preserve_host: bool,
    pub connect_timeout: Span,
    pub answer_timeout: Span,
}

/// One of `[[routes]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Route {
    pub path: String,
    pub assurance: RouteAssurance,
    pub max_age: Option<Span>,
}

/// `routes.assurance`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the table of settings describes each word")]
pub enum RouteAssurance {
    None,
    Cookie,
    Session,
    Provider,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Api {
    pub allow: Vec<Allowed>,
    pub max_body_bytes: usize,
    pub answer_timeout: Span,
}

/// One of `[[api.allow]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Allowed {
    pub method: String,
    pub path: String,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Limits {
    pub connections: usize,
    pub header_read: Span,
    pub keep_alive: Span,
    pub body_pause: Span,
    pub header_bytes: usize,
    pub shutdown: Span,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the table of settings describes each word")]
pub enum LogFormat {
    Text,
    Json,
}

/// One thing that is wrong with a configuration. It names no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, or the path of the file where no key is to blame.
    pub key: String,
    /// Where its value came from.
    pub origin: Option<Origin>,
    /// What is wrong and what to do, as a sentence without a full stop.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} ({origin}): {}", self.key, self.what),
            None => write!(f, "{}: {}", self.key, self.what),
        }
    }
}

/// A configuration that cannot be used. The operator must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot be used; its operator must correct it:{}", list(.0))]
pub struct Problems(pub Vec<Problem>);

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

impl Config {
    /// Makes a configuration of merged layers.
    ///
    /// # Errors
    /// All that is wrong, as far as it can be told at once.
    pub fn new(layers: &Layers) -> Result<Self, Problems> {
        let config: Self = serde_path_to_error::deserialize(layers.tree().clone()).map_err(|error| {
            Problems(vec![layers.problem(&error.path().to_string(), error.inner().message())])
        })?;
        let problems = check::problems(&config, layers);
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }
}

#[cfg(test)]
mod tests;
