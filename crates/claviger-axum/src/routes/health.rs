//! `GET /healthz` and `GET /readyz`: whether the process lives, and whether it can serve.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use crate::{Claviger, respond::no_store};

#[derive(Serialize)]
struct Ready {
    ready: bool,
    store: &'static str,
}

/// The process answers.
pub(crate) async fn live() -> Response {
    no_store("ok\n".into_response())
}

/// The store can be read and written. A provider's trouble is none of readiness: sessions go on without it.
pub(crate) async fn ready(State(claviger): State<Claviger>) -> Response {
    let (status, body) = match claviger.engine().store().check().await {
        Ok(()) => (StatusCode::OK, Ready { ready: true, store: "ok" }),
        Err(error) => {
            tracing::error!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, Ready { ready: false, store: "unavailable" })
        }
    };
    no_store((status, Json(body)).into_response())
}
