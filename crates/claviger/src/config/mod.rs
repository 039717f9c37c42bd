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
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use claviger_core::policy::{self, ProviderHabits};
use serde::Deserialize;
use url::Url;

pub use layers::{Layers, Origin};
pub use values::{HookUrl, Secret, SiteUrl, Span};

/// Where notices arrive at the gateway.
pub const CALLBACK: &str = "/auth/webhook";

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
    pub sweep: Sweep,
    #[serde(default)]
    pub webhook: Webhook,
    pub proxy: Proxy,
    pub routes: Vec<Route>,
    pub api: Api,
    pub limits: Limits,
    #[serde(default)]
    pub metrics: Metrics,
    pub log: Log,
}

/// `[store]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Store {
    pub path: PathBuf,
    pub url: Option<Secret>,
    pub url_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub insecure_plaintext_to_database: bool,
    pub transaction_pooler: bool,
    pub listen_url: Option<Secret>,
    pub listen_url_file: Option<PathBuf>,
    pub connections: usize,
}

impl Store {
    /// Whether the sessions are kept in PostgreSQL.
    pub fn is_shared(&self) -> bool {
        self.url.is_some() || self.url_file.is_some()
    }

    /// Whether there is an address of its own to listen at.
    pub fn listens_elsewhere(&self) -> bool {
        self.listen_url.is_some() || self.listen_url_file.is_some()
    }
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
    pub rotation: Rotation,
    pub replay_window: Span,
    pub reuse_kills_connection: bool,
    pub old_access_token_survives: bool,
    pub revokes_refresh_tokens: bool,
    pub refreshes_per_second: u32,
    pub mock_url_for_development: Option<SiteUrl>,
}

impl Provider {
    /// What the provider is taken to do with refresh tokens.
    pub fn habits(&self) -> ProviderHabits {
        ProviderHabits {
            rotation: match self.rotation {
                Rotation::None => policy::Rotation::None,
                Rotation::Rotates => policy::Rotation::Rotates,
                Rotation::OneTime => policy::Rotation::OneTime,
            },
            replay_window: self.replay_window.0,
            reuse_kills_connection: self.reuse_kills_connection,
            old_access_token_survives: self.old_access_token_survives,
        }
    }
}

/// `provider.rotation`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the table of settings describes each word")]
pub enum Rotation {
    None,
    Rotates,
    OneTime,
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
    pub refresh_spread: Span,
    pub devices_per_user: u32,
    pub carry_access_token: bool,
    pub same_site: SameSite,
    pub cascade: Cascade,
}

/// `session.cascade`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the table of settings describes each word")]
pub enum Cascade {
    Confirm,
    Always,
    Never,
}

/// `[sweep]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Sweep {
    pub period: Span,
    pub validations_per_second: u32,
    pub keep_alive: bool,
    pub probe_period: Span,
}

/// `[webhook]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Webhook {
    pub secret: Option<Secret>,
    pub secret_file: Option<PathBuf>,
    pub callback_url: Option<HookUrl>,
}

impl Webhook {
    /// Whether the provider is to send notices.
    pub fn is_wanted(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some()
    }
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

/// `[metrics]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of settings describes each field")]
pub struct Metrics {
    pub listen: Option<SocketAddr>,
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
    /// All that is wrong. What a value comes to beside the others is told when each by itself is well-formed.
    pub fn new(layers: &Layers) -> Result<Self, Problems> {
        let mut problems = layers.problems().to_vec();
        problems.extend(check::missing(layers));
        let (config, wrong) = read(layers);
        if let (Some(config), true) = (&config, wrong.is_empty()) {
            problems.extend(check::problems(config, layers));
        }
        problems.extend(wrong);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Problems(problems)),
        }
    }
}

impl Config {
    /// Where the provider sends its notices, if it is to send any.
    pub fn callback(&self) -> Url {
        match &self.webhook.callback_url {
            Some(address) => address.url().clone(),
            None => {
                let mut address = self.public_url.url().clone();
                address.set_path(CALLBACK);
                address
            }
        }
    }
}

/// Reads the values, and tells the wrong ones. For each of them, and for each that is missing, one that is right stands
/// in, so that it hides no other.
fn read(layers: &Layers) -> (Option<Config>, Vec<Problem>) {
    let mut layers = layers.clone();
    let missing: Vec<&str> = layers.missing().filter_map(|keys| keys.first().copied()).collect();
    missing.into_iter().filter_map(settings::find).for_each(|setting| layers.stand_in(setting));
    let (mut wrong, mut replaced) = (Vec::new(), BTreeSet::new());
    loop {
        let error = match serde_path_to_error::deserialize(layers.tree().clone()) {
            Ok(config) => return (Some(config), wrong),
            Err(error) => error,
        };
        let error: serde_path_to_error::Error<toml::de::Error> = error;
        let problem = layers.problem(&error.path().to_string(), error.inner().message());
        let key = problem.key.split('[').next().unwrap_or_default().to_owned();
        wrong.push(problem);
        match settings::find(&key) {
            Some(setting) if replaced.insert(key) => layers.stand_in(setting),
            _ => return (None, wrong),
        }
    }
}

#[cfg(test)]
mod tests;
