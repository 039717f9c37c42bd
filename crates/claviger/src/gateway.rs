//! Puts a gateway together: store, engine, Claviger's own routes, API proxy, reverse proxy.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{
    extract::{ConnectInfo, Request},
    response::Response,
    routing::any,
};
use claviger_axum::{Claviger, SameSite, Site};
use claviger_core::{
    policy::{self, Lifetimes},
    time::Timestamp,
};
use claviger_engine::{
    Clock, Engine, HttpClient, NoticeSettings, OsEntropy, Parts, Settings, Sweep, SystemClock,
};
use claviger_provider::{Endpoints, Provider};
use claviger_store::Store;
use claviger_store_postgres::{DatabaseClock, Options, PostgresStore};
use claviger_store_sqlite::SqliteStore;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, Api},
    config::{
        self, Config,
        secrets::{Database, Secrets},
    },
    entry::Entry,
    problems,
    proxy::{Proxy, path, streams::Streams},
};

/// A gateway that is ready to serve.
pub struct Gateway {
    claviger: Claviger,
    streams: Streams,
    entry: Entry,
}

impl Gateway {
    /// Opens the store and puts everything together. Open streams close when `stop` comes.
    ///
    /// # Errors
    /// What keeps it from starting, as a sentence for the operator.
    pub async fn open(config: &Config, secrets: Secrets, stop: CancellationToken) -> anyhow::Result<Self> {
        let (store, clock) = match &secrets.database {
            Some(database) => shared_store(config, database).await?,
            None => own_store(config).await?,
        };
        let engine = Engine::start(Parts {
            store,
            http: Arc::new(HttpClient::new().context("TLS towards the provider cannot be set up")?),
            clock,
            entropy: Arc::new(OsEntropy),
            keyring: secrets.keyring,
            provider: provider(config, secrets.client_secret),
            settings: settings(config),
            notices: secrets.webhook.map(|secret| NoticeSettings { callback: config.callback(), secret }),
        })
        .await?;
        let claviger = Claviger::new(engine, site(config));
        let streams = Streams::new(stop);
        let entry = entry(config, &claviger, &streams)?;
        Ok(Self { claviger, streams, entry })
    }

    /// The engine and the site.
    pub fn claviger(&self) -> &Claviger {
        &self.claviger
    }

    /// The open requests of all sessions.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Everything that is served.
    pub fn entry(&self) -> Entry {
        self.entry.clone()
    }
}

async fn own_store(config: &Config) -> anyhow::Result<(Arc<dyn Store>, Arc<dyn Clock>)> {
    let path = config.store.path.clone();
    let store = tokio::task::spawn_blocking(move || SqliteStore::open(&path))
        .await
        .context("the session store could not be opened")??;
    Ok((Arc::new(store), Arc::new(SystemClock)))
}

/// Instances that share a store go by one clock, so that a lease means the same to all.
async fn shared_store(
    config: &Config,
    database: &Database,
) -> anyhow::Result<(Arc<dyn Store>, Arc<dyn Clock>)> {
    let store = PostgresStore::open(&database.address, &database_options(config, database)).await?;
    let clock = SharedClock(store.clock());
    Ok((Arc::new(store), Arc::new(clock)))
}

struct SharedClock(DatabaseClock);

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

/// How the database is used.
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
    let api = Api::new(claviger.clone(), streams.clone(), config).context(tls)?;
    let call = any(move |request: Request| {
        let api = api.clone();
        async move { api.serve(request).await }
    });
    let router =
        claviger.routes().route(api::PREFIX, call.clone()).route(&format!("{}/{{*path}}", api::PREFIX), call);
    let router = match config.upstream.clone() {
        None => router.fallback(nothing),
        Some(address) => {
            let proxy = Proxy::new(claviger.clone(), streams.clone(), config, address).context(tls)?;
            router.fallback(move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request| async move {
                let own = path::OWN.iter().any(|own| path::is_below(request.uri().path(), own));
                if own { nothing(request).await } else { proxy.serve(peer, request).await }
            })
        }
    };
    Ok(Entry::new(router, Some(claviger.clone()), config.limits.body_pause.0))
}

async fn nothing(request: Request) -> Response {
    problems::NOTHING.answer_to(request.method(), request.headers())
}

fn site(config: &Config) -> Site {
    Site {
        insecure: !config.public_url.is_https(),
        same_site: match config.session.same_site {
            config::SameSite::Lax => SameSite::Lax,
            config::SameSite::Strict => SameSite::Strict,
        },
        trusted_proxies: config.trusted_proxies.clone(),
        cookie_lifetime: config.session.absolute.0,
        ..Site::new(config.public_url.origin())
    }
}

fn provider(config: &Config, client_secret: claviger_core::secret::ClientSecret) -> Provider {
    let endpoints = match &config.provider.mock_url_for_development {
        Some(mock) => Endpoints::twitch_at(mock.url()),
        None => Endpoints::twitch(),
    };
    let mut provider = Provider::twitch(
        config.provider.client_id.clone(),
        client_secret,
        redirect_uri(config),
        config.provider.scopes.clone(),
        endpoints,
    );
    if let Some(mock) = &config.provider.mock_url_for_development {
        provider.issuer = Some(format!("{}/oauth2", mock.origin()));
    }
    provider.habits = config.provider.habits();
    provider.revokes_refresh_tokens = config.provider.revokes_refresh_tokens;
    provider
}

/// The redirect URI to register with the provider.
pub fn redirect_uri(config: &Config) -> String {
    format!("{}/auth/callback", config.public_url.origin())
}

fn settings(config: &Config) -> Settings {
    let session = &config.session;
    Settings {
        lifetimes: Lifetimes {
            idle: session.idle.0,
            absolute: session.absolute.0,
            proof: session.proof.0,
            max_unverified: session.max_unverified.0,
            refresh_spread: session.refresh_spread.0,
            ..Lifetimes::default()
        },
        custody: match session.custody {
            config::Custody::Device => policy::Custody::Device,
            config::Custody::Server => policy::Custody::Server,
            config::Custody::None => policy::Custody::None,
        },
        devices_per_user: session.devices_per_user,
        carry_access_token: session.carry_access_token,
        refreshes_per_second: config.provider.refreshes_per_second,
        sweep: Sweep {
            period: config.sweep.period.0,
            validations_per_second: config.sweep.validations_per_second,
            keep_alive: config.sweep.keep_alive,
            probe_period: config.sweep.probe_period.0,
        },
        cascade: match session.cascade {
            config::Cascade::Confirm => policy::Cascade::Confirm,
            config::Cascade::Always => policy::Cascade::Always,
            config::Cascade::Never => policy::Cascade::Never,
        },
        ..Settings::default()
    }
}
