//! What the engine counts and measures, on a socket of its own: `GET /metrics` for Prometheus, `GET /status` for
//! `claviger status`, `GET /keys` for `claviger keys list`.

use std::{
    fmt::Write as _,
    net::TcpListener,
    sync::{OnceLock, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    Json, Router,
    response::{IntoResponse as _, Response},
    routing::get,
};
use claviger_engine::{Engine, METRICS, MetricKind};
use http::StatusCode;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::status::{Key, Status};

/// Bounds of a refresh's time, in seconds: a provider has ten.
const REFRESH_SECONDS: [f64; 8] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Samples are folded into their buckets so often; without it they pile up.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Begins to count, once in a process, and gives what can be read.
///
/// # Errors
/// If something else in the process counts already.
fn recorder() -> anyhow::Result<PrometheusHandle> {
    static RECORDER: OnceLock<RwLock<Option<PrometheusHandle>>> = OnceLock::new();
    let place = RECORDER.get_or_init(RwLock::default);
    let mut installed = place.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let handle =
        PrometheusBuilder::new().set_buckets_for_metric(seconds, &REFRESH_SECONDS)?.install_recorder()?;
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
    *installed = Some(handle.clone());
    Ok(handle)
}

/// Serves `/metrics` and `/status` until `stop`.
///
/// # Errors
/// If counting cannot begin, or the socket fails.
pub fn serve(
    listener: TcpListener,
    engine: Engine,
    stop: CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let handle = recorder()?;
    let rendered = handle.clone();
    let of_keys = engine.clone();
    let router = Router::new()
        .route("/metrics", get(move || async move { rendered.render() }))
        .route("/keys", get(move || async move { keys(&of_keys).await }))
        .route("/status", get(move || async move { status(&engine).await }));
    let server = axum_server::from_tcp(listener)?;
    Ok(tokio::spawn(async move {
        let upkeep = async {
            let mut ticks = tokio::time::interval(UPKEEP_EVERY);
            loop {
                ticks.tick().await;
                handle.run_upkeep();
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = upkeep => {}
            served = server.serve(router.into_make_service()) => {
                if let Err(error) = served {
                    tracing::error!(%error, "metrics are not served any more");
                }
            }
        }
    }))
}

async fn status(engine: &Engine) -> Response {
    match engine.report().await {
        Ok(report) => Json(Status::from(&report)).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn keys(engine: &Engine) -> Response {
    match engine.keys().await {
        Ok(keys) => Json(keys.into_iter().map(Key::from).collect::<Vec<_>>()).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// docs/metrics.md.
pub fn markdown() -> String {
    let mut text = "\
<!-- Written from crates/claviger-engine/src/meter.rs by a test. Change it there. -->

# Metrics

`metrics.listen` in the [configuration](configuration.md) names a socket of its own that serves them to Prometheus at `/metrics`. Labels never name a user,
a session or an address. `claviger status` asks the same socket and prints, for people, how things are; programs get it as JSON at `/status`. Counters concern one process; the gauges of rows concern the store.

| metric | kind | labels | what it says |
|---|---|---|---|
"
    .to_owned();
    for metric in METRICS {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {kind} | {} | {} |", metric.name, metric.labels, metric.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_metrics_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::fs::read_to_string(path).unwrap_or_default() != markdown() {
            std::fs::write(path, markdown()).unwrap();
            panic!("docs/metrics.md was out of date and has been written anew: look at it and commit it");
        }
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for metric in METRICS {
            let name = metric.name;
            assert!(name.starts_with("claviger_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            assert!(metric.kind != MetricKind::Histogram || name.ends_with("_seconds"), "{name}");
        }
    }
}
