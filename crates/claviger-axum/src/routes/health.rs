//! `GET /healthz` and `GET /readyz`: whether the process runs, and whether it can serve.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use claviger_engine::Load;
use http::StatusCode;
use serde::Serialize;

use crate::{claviger::Claviger, problem::no_store};

#[derive(Serialize)]
struct Ready {
    ready: bool,
    store: &'static str,
    /// Only if the process is about to stop.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stopping: bool,
    /// Only if the budget is too small.
    #[serde(skip_serializing_if = "Option::is_none")]
    sweep: Option<TooSlow>,
}

/// The budget of validations is too small for the number of sessions.
#[derive(Serialize)]
struct TooSlow {
    budget_per_second: f64,
    needed_per_second: f64,
    sufficient_per_second: f64,
}

impl TooSlow {
    fn of(load: &Load) -> Option<Self> {
        (!load.budget_suffices()).then(|| Self {
            budget_per_second: load.configured_per_second,
            needed_per_second: upwards(load.needed_per_second),
            sufficient_per_second: load.sufficient_per_second.ceil(),
        })
    }
}

/// Rounds a rate up to two decimal places.
fn upwards(rate: f64) -> f64 {
    (rate * 100.0).ceil() / 100.0
}

/// The process answers.
pub(crate) async fn live() -> Response {
    no_store("ok\n".into_response())
}

/// Returns whether the store can be read and written, and the process goes on. An outage of the
/// provider does not count, since sessions go on without it. A budget that is too small is
/// reported, but does not count either.
pub(crate) async fn ready(State(claviger): State<Claviger>) -> Response {
    let readiness = &claviger.inner.readiness;
    let usable = readiness.of(claviger.engine()).await;
    let stopping = readiness.is_stopping();
    let ready = usable && !stopping;
    let sweep = claviger.engine().load().as_ref().and_then(TooSlow::of);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let store = if usable { "ok" } else { "unavailable" };
    no_store((status, Json(Ready { ready, store, stopping, sweep })).into_response())
}
