//! The metrics socket: `GET /metrics` for Prometheus, `GET /status` for `claviger status`, and
//! `GET /keys` for `claviger keys list`.

use std::{
    fmt::Write as _,
    net::TcpListener,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use claviger_core::request::host;
use claviger_engine::{Engine, METRICS, Metric, MetricKind, RENAMED_METRICS};
use http::{HeaderValue, StatusCode, header};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    private, server,
    status::{Key, Status},
};

/// Bounds of the buckets for the duration of a refresh, in seconds. A refresh times out after ten.
const REFRESH_SECONDS: [f64; 8] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How often samples are folded into their buckets. Without it they pile up.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Every metric there is.
fn all() -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().chain([&server::REFUSED, &private::REQUESTS])
}

/// Installs the recorder once in a process, and returns the handle that renders it.
///
/// # Errors
/// If the process has another recorder already.
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
    for metric in all() {
        describe(metric.kind, metric.name, metric.help.to_owned());
    }
    for (old, metric) in renamed() {
        describe(metric.kind, old, format!("Old name of {}.", metric.name));
    }
    *installed = Some(handle.clone());
    Ok(handle)
}

fn describe(kind: MetricKind, name: &'static str, help: String) {
    match kind {
        MetricKind::Counter => metrics::describe_counter!(name, help),
        MetricKind::Gauge => metrics::describe_gauge!(name, help),
        MetricKind::Histogram => metrics::describe_histogram!(name, help),
    }
}

/// The old names of metrics, each with the metric that it belongs to.
fn renamed() -> impl Iterator<Item = (&'static str, &'static Metric)> {
    let find = |name| all().find(|metric| metric.name == name);
    RENAMED_METRICS.iter().filter_map(move |(old, new)| Some((*old, find(*new)?)))
}

/// Starts to record, and returns what shows the metrics. Old samples are cleared until `stop`.
///
/// # Errors
/// If the recorder cannot be installed.
pub fn record(stop: CancellationToken) -> anyhow::Result<PrometheusHandle> {
    let handle = recorder()?;
    let kept = handle.clone();
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        let mut ticks = tokio::time::interval(UPKEEP_EVERY);
        loop {
            ticks.tick().await;
            kept.run_upkeep();
        }
    }));
    Ok(handle)
}

/// Serves the socket until `stop`, for requests that name a private host or one of these.
///
/// # Errors
/// If the socket fails.
pub fn serve(
    listener: TcpListener,
    hosts: Vec<String>,
    engine: Engine,
    handle: PrometheusHandle,
    stop: CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    for (old, metric) in renamed() {
        tracing::info!("metric {old} is now called {}; this release exports both names", metric.name);
    }
    let of_keys = engine.clone();
    let router = Router::new()
        .route("/metrics", get(move || async move { handle.render() }))
        .route("/keys", get(move || async move { keys(&of_keys).await }))
        .route("/status", get(move || async move { status(&engine).await }))
        .layer(middleware::from_fn_with_state(Arc::<[String]>::from(hosts), require_private_host));
    let served = server::serve_few(listener.try_into()?, router, stop);
    Ok(tokio::spawn(served))
}

/// A page of another site can make a browser ask here, through a name of its own that leads here.
async fn require_private_host(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let field = || request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    if host::is_private(authority.or_else(field).unwrap_or_default(), &hosts) {
        return next.run(request).await;
    }
    let words = "This host is not one of metrics.hosts.\n";
    (StatusCode::MISDIRECTED_REQUEST, words).into_response()
}

async fn status(engine: &Engine) -> Response {
    Json(Status::from(&engine.report().await)).into_response()
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
<!-- Written from crates/claviger-engine/src/metrics.rs by a test. Change it there. -->

# Metrics

`metrics.listen` in the [configuration](configuration.md) names the address where Prometheus reads
them, at `/metrics`. Labels never name a user, a session or an address. Counters count what one
process did; gauges of rows describe the store.

`claviger status` reads the same socket and prints a summary. Programs get that summary as JSON at
`/status`.

| metric | kind | labels | meaning |
|---|---|---|---|
"
    .to_owned();
    for metric in all() {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {kind} | {} | {} |", metric.name, metric.labels, metric.help);
    }
    text.push_str(
        "\n## Old names\n\nThese metrics were renamed. This release exports both names; the next one exports the new \
         one only.\n\n| old name | name |\n|---|---|\n",
    );
    for (old, metric) in renamed() {
        let _ = writeln!(text, "| `{old}` | `{}` |", metric.name);
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
            panic!("docs/metrics.md was out of date and has been rewritten: look at it and commit it");
        }
    }

    #[test]
    fn each_old_name_belongs_to_a_metric_and_to_no_other() {
        assert_eq!(renamed().count(), RENAMED_METRICS.len());
        assert!(renamed().all(|(old, _)| all().all(|metric| metric.name != old)));
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for metric in all() {
            let name = metric.name;
            assert!(name.starts_with("claviger_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            assert!(metric.kind != MetricKind::Histogram || name.ends_with("_seconds"), "{name}");
        }
    }
}
