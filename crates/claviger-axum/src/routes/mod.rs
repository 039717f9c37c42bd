//! The public addresses, a file each.

mod callback;
mod check;
mod devices;
mod health;
mod login;
mod logout;
mod session;
mod sign_in;
mod webhook;

pub(crate) use check::at_once as check_at_once;
pub(crate) use health::Readiness;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use claviger_provider::MESSAGE_BYTES;
use http::{StatusCode, header};

use crate::{
    Claviger,
    extract::Authenticated,
    pages::STYLE,
    problem::{Problem, as_page},
};

/// A form or a JSON body of ours is tiny.
const BODY_BYTES: usize = 4 * 1024;

pub(crate) fn router(claviger: Claviger) -> Router {
    let guarded = Router::new()
        .route("/auth/login", get(login::login))
        .route("/auth/sign-in", get(sign_in::sign_in))
        .route("/auth/callback", get(callback::callback))
        .route("/auth/logout", post(logout::logout))
        .route("/auth/session", get(session::session))
        .route("/auth/devices", get(devices::list))
        .route("/auth/devices/end-others", post(devices::end_others))
        .route("/auth/devices/{id}/end", post(devices::end_one))
        .route("/auth/style.css", get(style))
        .route("/auth/{*rest}", any(not_found))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(claviger.clone(), guard))
        .layer(DefaultBodyLimit::max(BODY_BYTES));
    Router::new()
        .route("/auth/check", get(check::check).fallback(check::check))
        .route("/auth/webhook", any(webhook::webhook).layer(DefaultBodyLimit::max(MESSAGE_BYTES)))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .merge(guarded)
        .with_state(claviger)
}

async fn guard(State(claviger): State<Claviger>, request: Request, next: Next) -> Response {
    if request.extensions().get::<Authenticated>().is_some() {
        tracing::error!(
            "Claviger's routes stand inside its layer, which takes their cookies: merge them after `.layer(…)`"
        );
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    match claviger.guard(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused,
    }
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")], STYLE)
}

async fn not_found(request: Request) -> Response {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "Not found", "There is nothing at this address.")
        .answer(as_page(request.method(), request.headers()))
}

async fn wrong_method(request: Request) -> Response {
    let message = "This address does not take this kind of request.";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Not possible", message)
        .answer(as_page(request.method(), request.headers()))
}
