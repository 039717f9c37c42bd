//! `GET /healthz` and `GET /readyz`: whether the process lives, and whether it can serve.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use claviger_core::time::Timestamp;
use claviger_engine::Engine;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::{Claviger, problem::no_store};

#[derive(Serialize)]
struct Ready {
    ready: bool,
    store: &'static str,
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

/// The store can be read and written. A provider's trouble is none of readiness: sessions go on without it.
pub(crate) async fn ready(State(claviger): State<Claviger>) -> Response {
    let ready = claviger.inner.readiness.of(claviger.engine()).await;
    let (status, store) =
        if ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    no_store((status, Json(Ready { ready, store })).into_response())
}
