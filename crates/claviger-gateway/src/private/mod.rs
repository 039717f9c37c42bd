//! The private listener: what the app's servers, front proxies and the operator ask, each with a
//! credential of their own.
//!
//! | module | what it holds |
//! |---|---|
//! | `openapi` | the OpenAPI document |
//! | [`rights`] | what a credential may do |
//! | [`credentials`] | the credentials, and the file that holds their hashes |
//! | `app_token` | the address with the app's own token |
//!
//! # How to add an address
//!
//! 1. Write a handler with its part of the OpenAPI document, and a line in `addresses` with the
//!    right that it needs. A new right is a line in [`rights`].
//! 2. Answer errors with a [`Problem`], and secrets with `no_store`.
//! 3. Add the address to `ADDRESSES` in `tests/gateway/private.rs`, which attacks all of them.

mod app_token;
pub mod credentials;
mod openapi;
pub mod rights;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{MethodRouter, any},
};
use claviger_axum::{Claviger, Problem, no_store};
use claviger_core::{
    limits::TOKEN_BYTES,
    token_bucket::{Budget, TokenBucket},
};
use claviger_engine::{LogThrottle, Metric, MetricKind};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use metrics::counter;
use metrics_exporter_prometheus::PrometheusHandle;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

use crate::problems;
use credentials::{Credential, CredentialsInForce};
use rights::Right;

/// Number of answers that say that a credential is wrong. Further ones get 429. A valid credential
/// is served all the same, so nobody can lock others out.
const FAILED_TRIES: Budget = Budget { per_second: 2, burst: 20 };
/// When a caller with a wrong credential may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Maximum size of a body, in bytes: a token and what stands around it.
const BODY_BYTES: usize = 2 * TOKEN_BYTES;

/// Counts the requests to the private listener.
pub(crate) static REQUESTS: Metric = Metric {
    name: "claviger_private_requests_total",
    kind: MetricKind::Counter,
    labels: "outcome: allowed, no_credential, wrong_credential, missing_right",
    help: "Requests to the private listener, by what became of their credential. `wrong_credential` means that a program \
           has an old one, or that somebody guesses.",
};

const NO_CREDENTIAL: Problem = Problem::new(
    StatusCode::UNAUTHORIZED,
    "credential_required",
    "A credential is needed",
    "This address needs a credential, in the header 'Authorization: Bearer …'. `claviger credentials add` makes one.",
);

const WRONG_CREDENTIAL: Problem = Problem::new(
    StatusCode::UNAUTHORIZED,
    "credential_invalid",
    "The credential is wrong",
    "This credential is unknown, or was revoked.",
);

const TOO_MANY_TRIES: Problem = Problem::new(
    StatusCode::TOO_MANY_REQUESTS,
    "too_many_tries",
    "Too many tries",
    "Too many requests had no valid credential. Try again in a few seconds.",
);

const MISSING_RIGHT: Problem =
    Problem::new(StatusCode::FORBIDDEN, "right_missing", "The credential is not enough", "");

/// What the private listener serves. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Private {
    inner: Arc<Inner>,
}

struct Inner {
    claviger: Claviger,
    credentials: CredentialsInForce,
    metrics: PrometheusHandle,
    failed_tries: Mutex<TokenBucket>,
    log: LogThrottle,
}

/// The credential of a request.
#[derive(Clone, Debug)]
struct Caller(Arc<Credential>);

impl Private {
    pub(crate) fn new(
        claviger: Claviger,
        credentials: CredentialsInForce,
        metrics: PrometheusHandle,
    ) -> Self {
        let failed_tries = Mutex::new(TokenBucket::new(FAILED_TRIES));
        let log = LogThrottle::default();
        Self { inner: Arc::new(Inner { claviger, credentials, metrics, failed_tries, log }) }
    }

    /// All addresses. Without a valid credential nobody learns which there are.
    pub(crate) fn routes(&self) -> Router {
        let (router, _document) = addresses().split_for_parts();
        router
            .fallback(async || problems::NOTHING)
            .method_not_allowed_fallback(async || problems::BAD_METHOD)
            .layer(middleware::from_fn_with_state(self.clone(), authenticate))
            .layer(DefaultBodyLimit::max(BODY_BYTES))
            .with_state(self.clone())
    }

    /// The credential that a request shows, or the answer to a request without one.
    fn caller(&self, request: &Request) -> Result<Caller, Response> {
        let shown = bearer(request.headers());
        if let Some(credential) = shown.and_then(|secret| self.inner.credentials.find(secret)) {
            return Ok(Caller(credential));
        }
        let (problem, outcome, challenge) = match shown {
            None => (NO_CREDENTIAL, "no_credential", "Bearer"),
            Some(_) => (WRONG_CREDENTIAL, "wrong_credential", "Bearer error=\"invalid_token\""),
        };
        counter!(REQUESTS.name, "outcome" => outcome).increment(1);
        let now = self.inner.claviger.engine().now();
        if self.inner.log.allows(now) {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
            tracing::warn!(
                peer = peer.map_or_else(|| "unix:".to_owned(), |ConnectInfo(address)| address.to_string()),
                outcome,
                "refused a request to the private listener; further ones within a minute are not logged"
            );
        }
        let mut failed_tries = self.inner.failed_tries.lock().unwrap_or_else(PoisonError::into_inner);
        if failed_tries.take(now, Duration::ZERO).is_some() {
            return Err(challenged(&problem, challenge));
        }
        Err(later(&TOO_MANY_TRIES, RETRY_AFTER))
    }
}

/// The addresses, and what the OpenAPI document says of them.
fn addresses() -> OpenApiRouter<Private> {
    // Proxies ask with the method of the request that they ask about, and may append its address.
    let (schemas, paths, _get) = routes!(check);
    let appended = || require_right(Right::Check, any(check));
    OpenApiRouter::with_openapi(openapi::about())
        .routes(needs(Right::Metrics, routes!(metrics)))
        .routes(needs(Right::AppToken, routes!(app_token::app_token)))
        .routes(needs(Right::Check, (schemas, paths, any(check))))
        .route("/v1/check/", appended())
        .route("/v1/check/{*target}", appended())
}

/// The OpenAPI document of the private listener, as JSON.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn document() -> serde_json::Result<String> {
    addresses().into_openapi().to_pretty_json().map(|document| document + "\n")
}

/// The one bearer token of a request (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next().filter(|_| fields.next().is_none())?;
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// An answer that says when to try again.
fn later(problem: &Problem, pause: Duration) -> Response {
    let mut answer = problem.json();
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs()));
    answer
}

/// An answer that says what kind of credential is needed (RFC 6750 section 3).
fn challenged(problem: &Problem, challenge: &str) -> Response {
    let mut answer = problem.json();
    if let Ok(challenge) = HeaderValue::try_from(challenge) {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

async fn authenticate(State(private): State<Private>, mut request: Request, next: Next) -> Response {
    match private.caller(&request) {
        Ok(caller) => {
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(mut refused) => {
            // Callers without a credential must not keep the places of others.
            refused.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            refused
        }
    }
}

/// Serves an address only to credentials with this right, and documents that.
fn needs(
    right: Right,
    (schemas, mut paths, methods): UtoipaMethodRouter<Private>,
) -> UtoipaMethodRouter<Private> {
    openapi::describe(&mut paths, &right);
    (schemas, paths, require_right(right, methods))
}

fn require_right(right: Right, methods: MethodRouter<Private>) -> MethodRouter<Private> {
    methods.layer(middleware::from_fn_with_state(right, require))
}

async fn require(
    State(right): State<Right>,
    Extension(Caller(credential)): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let (name, method) = (&credential.name, request.method());
    if !credential.rights.contains(&right) {
        counter!(REQUESTS.name, "outcome" => "missing_right").increment(1);
        tracing::warn!(credential = %name, %right, %method, "refused a credential without the right");
        let problem = MISSING_RIGHT.saying(format!("The credential {name} does not have the right {right}."));
        return challenged(&problem, &format!("Bearer error=\"insufficient_scope\", scope=\"{right}\""));
    }
    counter!(REQUESTS.name, "outcome" => "allowed").increment(1);
    // These two come with every request of a user, and every few seconds.
    if matches!(right, Right::Check | Right::Metrics) {
        tracing::debug!(credential = %name, %right, %method, "used a credential");
    } else {
        tracing::info!(credential = %name, %right, %method, "used a credential");
    }
    next.run(request).await
}

/// Says who sent a request
///
/// It means the same as `/auth/check` of the public listener, for any method. Envoy appends the
/// original address to the path.
#[utoipa::path(
    get,
    path = "/v1/check",
    params(
        ("assurance" = Option<String>, Query, description = "optional, cookie, session (the default) or provider"),
        ("max_age" = Option<u64>, Query, description = "With provider: how old its answer may be, in seconds"),
        ("passive" = Option<String>, Query, description = "1: the request is no use of the session"),
        ("denied" = Option<String>, Query, description = "redirect: answer windows with a redirect or a page"),
    ),
    responses(
        (status = 200, description = "The request may pass", headers(
            ("x-auth-provider" = String, description = "The user's provider"),
            ("x-auth-user" = String, description = "The provider's id of the user"),
            ("x-auth-name" = String, description = "The user's name, percent-encoded unless plain ASCII"),
            ("x-auth-login" = String, description = "The user's login at the provider, in the same form"),
            ("x-auth-session" = String, description = "The id of the device's session"),
            ("x-auth-assertion" = String, description = "A signed JWT that says who is calling, if assertion.audience is set"),
            ("Set-Cookie" = String, description = "The session cookie, sealed with the newest key; pass it on to the browser"),
        )),
        (status = 303, description = "Nobody is signed in; with denied=redirect"),
        (status = 400, description = "A parameter is wrong", body = openapi::Failure),
        (
            status = 401,
            description = "Nobody is signed in, or there is no valid credential",
            body = openapi::Failure,
            headers(("x-auth-sign-in" = String, description = "A path of the site to lead the browser to, if a window asks")),
        ),
        (status = 403, description = "Another site made the request, or the credential does not have the right", body = openapi::Failure),
        (status = 431, description = "The browser sends too many cookies", body = openapi::Failure),
        (status = 503, description = "It is not known at the moment", body = openapi::Failure),
    ),
)]
async fn check(State(private): State<Private>, request: Request) -> Response {
    private.inner.claviger.check(request).await
}

/// All metrics, for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")),
)]
async fn metrics(State(private): State<Private>) -> Response {
    no_store(axum::response::IntoResponse::into_response(private.inner.metrics.render()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_shows_one_bearer_token() {
        let table: [(&[&str], Option<&str>); 8] = [
            (&["Bearer abc"], Some("abc")),
            (&["bearer abc"], Some("abc")),
            (&[], None),
            (&["Bearer"], None),
            (&["Basic abc"], None),
            (&["abc"], None),
            (&["Bearer abc", "Bearer abc"], None),
            (&["Bearer \u{e4}"], None),
        ];
        for (fields, expected) in table {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(field.as_bytes()).unwrap());
            }
            assert_eq!(bearer(&headers), expected, "{fields:?}");
        }
    }
}
