//! Builds a gateway from its parts: store, engine, Claviger's own routes, API proxy, reverse proxy.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Extension, extract::Request, response::Response, routing::any};
use claviger_axum::{Claviger, RequestHead, Site};
use claviger_core::{Timestamp, request::routes::Policy};
use claviger_engine::{Clock, Engine, HttpClient, OsEntropy, Parts, SystemClock, WebhookSettings};
use claviger_provider::{Provider, RefreshTokens, Registration};
use claviger_store::Store;
use claviger_store_postgres::{DatabaseClock, OpenError, Options, PostgresStore};
use claviger_store_sqlite::SqliteStore;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    api::ApiProxy,
    config::{
        Config, Route,
        secrets::{Database, Secrets},
        values::Proxies,
    },
    entry::Entry,
    inbound::Bodies,
    private::{Private, credentials::CredentialsInForce},
    problems,
    proxy::{Proxy, streams::Streams},
};

/// A gateway that is ready to serve.
pub struct Gateway {
    claviger: Claviger,
    streams: Streams,
    entry: Entry,
    credentials: CredentialsInForce,
}

impl Gateway {
    /// Opens the store and builds the gateway.
    ///
    /// # Errors
    /// What prevents the start, as a sentence for the operator.
    pub async fn open(config: &Config, secrets: Secrets) -> anyhow::Result<Self> {
        let store = OpenStore::open(config, &secrets).await?;
        Self::on(store, config, secrets).await
    }

    /// Builds the gateway on an open store.
    ///
    /// # Errors
    /// What prevents the start, as a sentence for the operator.
    pub(crate) async fn on(store: OpenStore, config: &Config, secrets: Secrets) -> anyhow::Result<Self> {
        let OpenStore { store, clock } = store;
        let engine = Engine::start(Parts {
            store,
            http: Arc::new(HttpClient::new().context("TLS towards the provider cannot be set up")?),
            clock,
            entropy: Arc::new(OsEntropy),
            keyring: secrets.keyring,
            provider: provider(config, secrets.client_secret),
            settings: config.engine(),
            assertions: config.assertions(),
            webhook: secrets.webhook.map(|secret| WebhookSettings { callback: config.callback(), secret }),
        })
        .await?;
        let claviger = Claviger::new(engine, site(config));
        let streams = Streams::default();
        let entry = entry(config, &claviger, &streams)?;
        let credentials = CredentialsInForce::default();
        credentials.replace(secrets.credentials);
        Ok(Self { claviger, streams, entry, credentials })
    }

    /// The engine and the site.
    pub fn claviger(&self) -> &Claviger {
        &self.claviger
    }

    /// The open requests of all sessions.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// The credentials of the private listener.
    pub fn credentials(&self) -> &CredentialsInForce {
        &self.credentials
    }

    /// What the private listener serves.
    pub(crate) fn private(&self, metrics: PrometheusHandle) -> Private {
        Private::new(self.claviger.clone(), self.credentials.clone(), metrics)
    }

    /// The service for all public requests.
    pub fn entry(&self) -> Entry {
        self.entry.clone()
    }
}

/// A store, and the clock that all its users share.
pub(crate) struct OpenStore {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl OpenStore {
    /// Opens the store that the configuration names.
    pub(crate) async fn open(config: &Config, secrets: &Secrets) -> anyhow::Result<Self> {
        match &secrets.database {
            Some(database) => Ok(Self::shared(config, database).await?),
            None => Self::own(config).await,
        }
    }

    async fn own(config: &Config) -> anyhow::Result<Self> {
        let path = config.store.path.clone();
        let store = tokio::task::spawn_blocking(move || SqliteStore::open(&path))
            .await
            .context("the session store could not be opened")??;
        store.check().await?;
        Ok(Self { store: Arc::new(store), clock: Arc::new(SystemClock) })
    }

    /// Instances that share a store use the database's clock, so that they agree on leases.
    pub(crate) async fn shared(config: &Config, database: &Database) -> Result<Self, OpenError> {
        let store = PostgresStore::open(&database.address, &database_options(config, database)).await?;
        // A standby can be read, and is of no use until it is promoted.
        store.check().await?;
        let clock = SharedClock(store.clock());
        Ok(Self { store: Arc::new(store), clock: Arc::new(clock) })
    }
}

struct SharedClock(DatabaseClock);

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

/// The options for the database.
pub(crate) fn database_options(config: &Config, database: &Database) -> Options {
    Options {
        connections: config.store.connections,
        transaction_pooler: config.store.transaction_pooler,
        listen_address: database.listen_address.clone(),
        ..Options::default()
    }
}

fn entry(config: &Config, claviger: &Claviger, streams: &Streams) -> anyhow::Result<Entry> {
    let tls = "TLS towards the provider or the app cannot be set up";
    let api = ApiProxy::new(claviger.clone(), streams.clone(), config).context(tls)?;
    let call = any(move |request: Request| {
        let api = api.clone();
        async move { api.serve(request).await }
    });
    let api_path = config.provider.api_path();
    let router = claviger
        .routes()
        .merge(claviger.health_routes())
        .route(&api_path, call.clone())
        .route(&format!("{api_path}/{{*path}}"), call);
    let policy = claviger.site().routes.clone();
    let router = match config.upstream.clone() {
        None => router.fallback(nothing),
        Some(address) => {
            let proxy = Proxy::new(claviger.clone(), streams.clone(), policy.clone(), config, address);
            let proxy = proxy.context(tls)?;
            router.fallback(move |request: Request| async move { proxy.serve(request).await })
        }
    };
    let bodies = Bodies::new(&config.limits, api_path, streams.stopping());
    Ok(Entry::new(router, claviger.site().clone(), policy, Some(claviger.clone()), bodies))
}

async fn nothing(Extension(head): Extension<RequestHead>) -> Response {
    problems::NOTHING.answer_to(&head)
}

pub(crate) fn site(config: &Config) -> Site {
    Site {
        insecure: !config.public_url.is_https(),
        same_site: config.session.same_site.0,
        trusted_proxies: config.trusted_proxies.iter().filter_map(Proxies::network).collect(),
        trusts_unix_peers: config.trusted_proxies.contains(&Proxies::Unix),
        other_hosts: config.other_hosts.iter().map(|host| host.0.clone()).collect(),
        routes: Policy::new(config.routes.iter().map(Route::rule)),
        cookie_lifetime: config.session.absolute.0,
        clear_site_data: config.session.clear_site_data.iter().map(|word| word.0).collect(),
        ..Site::new(config.public_url.origin())
    }
}

fn provider(config: &Config, client_secret: claviger_core::ClientSecret) -> Provider {
    let registration = Registration::new(
        config.provider.client_id.clone(),
        client_secret,
        redirect_uri(config),
        config.provider.scopes.clone(),
    );
    let preset = config.provider.preset.0;
    let mut provider = match &config.provider.mock_url_for_development {
        Some(mock) => preset.mock_at(mock.url(), registration),
        None => preset.provider(registration),
    };
    provider.habits = config.provider.habits();
    if let Some(revocation) = &mut provider.capabilities.revocation
        && let Some(wanted) = config.provider.revokes_refresh_tokens
    {
        revocation.refresh_tokens = if wanted { RefreshTokens::All } else { RefreshTokens::None };
    }
    provider
}

/// The redirect URI to register with the provider.
pub fn redirect_uri(config: &Config) -> String {
    format!("{}/auth/callback", config.public_url.origin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    /// The library and the gateway have the same defaults.
    #[test]
    fn the_defaults_of_the_configuration_are_those_of_the_engine() {
        let needed = "public_url = \"https://a\"\nkeyring_file = \"k\"\n\
                      provider.client_id = \"a\"\nprovider.client_secret_file = \"s\"\n";
        let config = Config::new(&Layers::defaults().text(needed, "the test").unwrap()).unwrap();
        let provider = provider(&config, claviger_core::ClientSecret::new("s"));
        assert_eq!(
            format!("{:?}", config.engine()),
            format!("{:?}", claviger_engine::Settings::at(&provider))
        );
        assert_eq!(config.provider.habits(), config.provider.preset.0.habits);
        let site = Site::new(config.public_url.origin());
        assert_eq!(format!("{:?}", self::site(&config)), format!("{site:?}"));
    }
}
