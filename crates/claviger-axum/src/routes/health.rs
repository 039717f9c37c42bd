//! `GET /healthz` and `GET /readyz`: whether the process lives, and whether it can serve.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use claviger_core::time::Timestamp;
use claviger_engine::{Engine, Load};
use http::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::{Claviger, problem::no_store};

#[derive(Serialize)]
struct Ready {
    ready: bool,
    store: &'static str,
    /// Only where there is something to say about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sweep: Option<TooSlow>,
}

/// The budget of validations does not keep up with the sessions.
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

/// A rate with two digits after the point, never less than it is.
fn upwards(rate: f64) -> f64 {
    (rate * 100.0).ceil() / 100.0
}

/// The process answers.
pub(crate) async fn live() -> Response {
    no_store("ok\n".into_response())
}

/// Whether the store could be used a moment ago. Asking it costs a write, and anybody may ask us.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Timestamp, bool)>>);

/// An answer counts for so long.
const FRESH: Duration = Duration::from_secs(1);

impl Readiness {
    async fn of(&self, engine: &Engine) -> bool {
        let mut last = self.0.lock().await;
        match *last {
            Some((at, ready)) if engine.now().since(at) < FRESH => ready,
            _ => {
                let ready = engine
                    .store()
                    .check()
                    .await
                    .inspect_err(|error| tracing::error!(%error, "not ready"))
                    .is_ok();
                *last = Some((engine.now(), ready));
                ready
            }
        }
    }
}

/// The store can be read and written. A provider's trouble is none of readiness: sessions go on without it. Nor is a budget
/// that is too small, but it is told.
pub(crate) async fn ready(State(claviger): State<Claviger>) -> Response {
    let ready = claviger.inner.readiness.of(claviger.engine()).await;
    let sweep = claviger.engine().load().as_ref().and_then(TooSlow::of);
    let (status, store) =
        if ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    no_store((status, Json(Ready { ready, store, sweep })).into_response())
}
