//! The public routes, one file each.

mod callback;
mod check;
mod devices;
mod failed;
mod health;
mod jwks;
mod login;
mod logout;
mod return_to;
mod session;
mod sign_in;
mod webhook;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use claviger_core::ReturnTo;
use claviger_provider::MESSAGE_BYTES;
use http::{HeaderName, StatusCode, header, request::Parts};

use crate::{claviger::Claviger, extract::Authenticated, head::RequestHead, pages::STYLE, problem::Problem};

/// Our forms and JSON bodies are tiny.
const BODY_BYTES: usize = 4 * 1024;

impl Claviger {
    /// Returns the routes under `/auth`: sign-in, sign-out, the devices page, forward-auth and the
    /// webhook. They fit a router with any state.
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        router(self).with_state(self.clone())
    }

    /// Returns `/healthz` and `/readyz`, for an app that has none of its own.
    pub fn health_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let routes = Router::new().route("/healthz", get(health::live)).route("/readyz", get(health::ready));
        routes.with_state(self.clone())
    }

    /// Returns the answer of `/auth/check` if the request passes and memory suffices to say so.
    /// Otherwise it returns `None`, changes nothing, and the route must answer.
    ///
    /// For a server that calls this before routing, which costs about as much as the check itself.
    pub fn check_at_once(&self, request: &mut Parts, head: &RequestHead) -> Option<Response> {
        check::at_once(self, request, head)
    }
}

impl Claviger {
    /// Returns the answer of `/auth/check` for a request to `/v1/check`, which means the same. It
    /// also has the assertion, if assertions are signed. The caller made sure that the request has
    /// the credential for it.
    pub async fn check(&self, request: Request) -> Response {
        check::private(self, request).await
    }
}

fn router(claviger: &Claviger) -> Router<Claviger> {
    let guarded = Router::new()
        .route("/auth/login", get(login::login))
        .route("/auth/sign-in", get(sign_in::sign_in))
        .route("/auth/callback", get(callback::callback))
        .route(failed::PATH, get(failed::failed))
        .route(ReturnTo::KEPT, get(return_to::return_to))
        .route("/auth/logout", post(logout::logout))
        .route("/auth/session", get(session::session))
        .route("/auth/devices", get(devices::list))
        .route("/auth/devices/end-others", post(devices::end_others))
        .route("/auth/devices/{id}/end", post(devices::end_one))
        .route("/auth/style.css", get(style))
        .route(jwks::PATH, get(jwks::key_set))
        .route("/auth/{*rest}", any(not_found))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(claviger.clone(), guard))
        .layer(DefaultBodyLimit::max(BODY_BYTES));
    Router::new()
        .route(check::PATH, any(check::check))
        .route(&format!("{}/", check::PATH), any(check::check))
        .route(&format!("{}/{{*target}}", check::PATH), any(check::check))
        .route("/auth/webhook", any(webhook::webhook).layer(DefaultBodyLimit::max(MESSAGE_BYTES)))
        .merge(guarded)
}

async fn guard(State(claviger): State<Claviger>, request: Request, next: Next) -> Response {
    if request.extensions().get::<Authenticated>().is_some() {
        tracing::error!(
            "Claviger's routes are inside its layer, which removes their cookies; merge them after `.layer(…)`"
        );
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let (mut parts, body) = request.into_parts();
    let head = match claviger.head(&mut parts) {
        Ok(head) => head,
        Err(refused) => return refused,
    };
    if let Err(refused) = claviger.guard(&head) {
        return refused;
    }
    parts.extensions.insert(head);
    next.run(Request::from_parts(parts, body)).await
}

async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "max-age=3600"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (headers, STYLE)
}

const NOT_FOUND: Problem =
    Problem::new(StatusCode::NOT_FOUND, "not_found", "Not found", "There is nothing at this address.");

const WRONG_METHOD: Problem = Problem::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "method_not_allowed",
    "Not possible",
    "This address does not accept this kind of request.",
);

async fn not_found(head: RequestHead) -> Response {
    NOT_FOUND.answer_to(&head)
}

async fn wrong_method(head: RequestHead) -> Response {
    WRONG_METHOD.answer_to(&head)
}
