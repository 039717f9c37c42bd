//! `/auth/check`: answers a front proxy's question whether a request may pass (forward-auth).
//!
//! 200 with the identity headers lets it pass; 401 and 503 do not. Parameters, set in the proxy's configuration:
//! `assurance=cookie|session|provider`, `max_age=` seconds for `provider`, and `denied=redirect` for proxies that pass
//! our answer on to the browser (Caddy, Traefik): navigations are then led to the sign-in.

use std::{net::SocketAddr, time::Duration};

use axum::{
    extract::{ConnectInfo, State},
    response::{IntoResponse, Response},
};
use claviger_core::request::Assurance;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};

use crate::{
    Claviger, guard,
    navigation::can_navigate,
    params::Params,
    respond::{self, Problem},
};

pub(crate) async fn check(State(claviger): State<Claviger>, parts: Parts) -> Response {
    let asked = match Asked::read(&parts) {
        Ok(asked) => asked,
        Err(problem) => return problem.answer(false),
    };
    let original = Original::of(&claviger, &parts);
    if let Err(crossed) = guard::judge(claviger.site(), &original.method, &parts.headers) {
        return respond::cross_site(&parts.headers, crossed);
    }
    match claviger.caller(&parts.headers, asked.assurance).await {
        Ok(caller) => {
            let mut headers = HeaderMap::with_capacity(8);
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            claviger.add_identity(&mut headers, &caller);
            (StatusCode::OK, headers).into_response()
        }
        Err(denied) => {
            let problem = respond::of_denied(&denied);
            let leads_on = asked.redirects
                && problem.status == StatusCode::UNAUTHORIZED
                && can_navigate(&original.method, &parts.headers);
            if leads_on { respond::to_sign_in(original.target) } else { problem.answer(false) }
        }
    }
}

/// What the proxy's configuration asks for.
struct Asked {
    assurance: Assurance,
    redirects: bool,
}

impl Asked {
    fn read(parts: &Parts) -> Result<Self, Problem> {
        if parts.uri.query().is_none() {
            return Ok(Self { assurance: Assurance::Session, redirects: false });
        }
        let params = Params::of(&parts.uri).map_err(|error| respond::of_bad_params(&error))?;
        let one = |name| params.one(name).map_err(|error| respond::of_bad_params(&error));
        let max_age = match one("max_age")? {
            None => Duration::ZERO,
            Some(text) => {
                text.parse().map(Duration::from_secs).map_err(|_| wrong("max_age is a number of seconds"))?
            }
        };
        let assurance = match one("assurance")? {
            Some("cookie") => Assurance::Cookie,
            None | Some("session") => Assurance::Session,
            Some("provider") => Assurance::Provider { max_age },
            Some(_) => return Err(wrong("assurance is one of cookie, session, provider")),
        };
        Ok(Self { assurance, redirects: one("denied")? == Some("redirect") })
    }
}

fn wrong(message: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", "This address is not right", message)
}

/// The request that the proxy asks about, as far as the proxy is believed.
struct Original<'a> {
    method: Method,
    target: &'a str,
}

impl<'a> Original<'a> {
    fn of(claviger: &Claviger, parts: &'a Parts) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let trusted = peer.is_some_and(|peer| claviger.site().trusted_proxies.contains(&peer));
        let field = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| parts.headers.get(*name)).filter(|_| trusted);
            value.and_then(|value| value.to_str().ok())
        };
        let method = field(["x-forwarded-method", "x-original-method"]);
        let method = method.and_then(|name| Method::from_bytes(name.as_bytes()).ok());
        Self {
            method: method.unwrap_or_else(|| parts.method.clone()),
            target: field(["x-forwarded-uri", "x-original-uri"]).unwrap_or("/"),
        }
    }
}
