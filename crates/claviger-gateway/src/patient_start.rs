//! A start that waits for a database that cannot be reached.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, extract::Request, response::Response, routing::get};
use claviger_axum::{RequestHead, Site};
use claviger_store_postgres::OpenError;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{
        Config,
        secrets::{Database, Secrets},
    },
    gateway::{self, OpenStore},
    problems, server,
};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the log says that the start still waits.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Opens the store. It waits for a database that cannot be reached, for `store.start_wait` and the
/// attempt that is under way then: an attempt is never cut off, since it may change the tables.
/// Meanwhile health checks are answered.
///
/// # Errors
/// What prevents the start, as a sentence for the operator.
pub(crate) async fn open_store(config: &Config, secrets: &Secrets) -> anyhow::Result<OpenStore> {
    let Some(database) = &secrets.database else { return OpenStore::open(config, secrets).await };
    match OpenStore::shared(config, database).await {
        Ok(store) => Ok(store),
        Err(error) if error.may_pass() => wait_for(config, database, error).await,
        Err(error) => Err(error.into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a start waits concerns no session")]
async fn wait_for(config: &Config, database: &Database, mut error: OpenError) -> anyhow::Result<OpenStore> {
    let limit = config.store.start_wait.0;
    let (began, mut logged) = (Instant::now(), None::<Instant>);
    let mut health = None;
    while began.elapsed() < limit {
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            logged = Some(Instant::now());
            let (waited_seconds, limit_seconds) = (began.elapsed().as_secs(), limit.as_secs());
            tracing::warn!(%error, waited_seconds, limit_seconds, "waiting for the session store before the start");
        }
        if health.is_none() {
            health = Some(Health::answer(config).await?);
        }
        tokio::time::sleep(PAUSE.min(limit.saturating_sub(began.elapsed()))).await;
        match OpenStore::shared(config, database).await {
            Ok(store) => {
                if let Some(health) = health {
                    health.end().await?;
                }
                tracing::info!("the session store can be used; the start goes on");
                return Ok(store);
            }
            Err(failed) if failed.may_pass() => error = failed,
            Err(failed) => return Err(failed.into()),
        }
    }
    Err(error.into())
}

/// Answers health checks at the gateway's address until the gateway does.
struct Health {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Health {
    async fn answer(config: &Config) -> anyhow::Result<Self> {
        let listener = server::Listener::open(&config.listen, "listen").await?;
        let stop = CancellationToken::new();
        let site = Arc::new(gateway::site(config));
        let starting = move |request: Request| async move { starting(&site, request) };
        let router = Router::new().route("/healthz", get("ok\n")).fallback(starting);
        let serving = tokio::spawn(server::serve_few(listener, router, stop.clone()));
        Ok(Self { stop, serving })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.serving.await?)
    }
}

fn starting(site: &Site, request: Request) -> Response {
    let (parts, _body) = request.into_parts();
    match RequestHead::read(site, &parts) {
        Ok(head) => problems::STARTING.answer_to(&head),
        Err(_) => problems::STARTING.json(),
    }
}
