//! A start that waits for a database that cannot be reached.

use std::time::{Duration, Instant};

use axum::{Extension, Router, response::Response, routing::get};
use claviger_axum::RequestHead;
use claviger_store_postgres::OpenError;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{
        Config,
        secrets::{Database, Secrets},
    },
    entry::Entry,
    gateway::{self, OpenStore},
    inbound::Bodies,
    problems,
    server::{Front, Listener},
};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the log says that the start still waits.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Opens the store. It waits for a database that cannot be reached, for `store.start_wait` and the
/// attempt that is under way then: an attempt is never cut off, since it may change the tables.
/// Meanwhile health checks are answered at the gateway's address, which is returned then.
///
/// # Errors
/// What prevents the start, as a sentence for the operator.
pub(crate) async fn open_store(
    config: &Config,
    secrets: &Secrets,
) -> anyhow::Result<(OpenStore, Option<Front>)> {
    let Some(database) = &secrets.database else {
        return Ok((OpenStore::open(config, secrets).await?, None));
    };
    match OpenStore::shared(config, database).await {
        Ok(store) => Ok((store, None)),
        Err(error) if error.may_pass() => wait_for(config, database, error).await,
        Err(error) => Err(error.into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a start waits concerns no session")]
async fn wait_for(
    config: &Config,
    database: &Database,
    mut error: OpenError,
) -> anyhow::Result<(OpenStore, Option<Front>)> {
    let limit = config.store.start_wait.0;
    let (began, mut logged) = (Instant::now(), None::<Instant>);
    let mut front = None;
    while began.elapsed() < limit {
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            logged = Some(Instant::now());
            let (waited_seconds, limit_seconds) = (began.elapsed().as_secs(), limit.as_secs());
            tracing::warn!(%error, waited_seconds, limit_seconds, "waiting for the session store before the start");
        }
        if front.is_none() {
            front = Some(open(config).await?);
        }
        tokio::time::sleep(PAUSE.min(limit.saturating_sub(began.elapsed()))).await;
        match OpenStore::shared(config, database).await {
            Ok(store) => {
                tracing::info!("the session store can be used; the start goes on");
                return Ok((store, front));
            }
            Err(failed) if failed.may_pass() => error = failed,
            Err(failed) => return Err(failed.into()),
        }
    }
    Err(error.into())
}

/// Answers health checks at the gateway's address until the gateway does.
async fn open(config: &Config) -> anyhow::Result<Front> {
    let listener = Listener::open(&config.listen, "listen").await?;
    let stopping = CancellationToken::new();
    let router = Router::new().route("/healthz", get("ok\n")).fallback(starting);
    let site = gateway::site(config);
    let policy = site.routes.clone();
    let bodies = Bodies::new(&config.limits, config.provider.api_path(), stopping.clone());
    let entry = Entry::new(router, site, policy, None, bodies);
    Ok(Front::open(listener, config, entry, stopping))
}

async fn starting(Extension(head): Extension<RequestHead>) -> Response {
    problems::STARTING.answer_to(&head)
}
