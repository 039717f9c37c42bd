//! `/auth/check`: answers a front proxy's question whether a request may pass (forward-auth).
//!
//! 200 with the identity headers lets it pass; 401 and 503 do not. Parameters, set in the proxy's configuration:
//! `assurance=cookie|session|provider`, `max_age=` seconds for `provider`, and `denied=redirect` for proxies that pass
//! our answer on to the browser (Caddy, Traefik): navigations are then led to the sign-in.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    response::Response,
};
use claviger_core::request::Assurance;
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};

use crate::{
    Claviger, guard,
    navigation::can_navigate,
    params::Params,
    problem::Problem,
    respond::{self, bad_request},
};

pub(crate) async fn check(State(claviger): State<Claviger>, request: Request) -> Response {
    let (parts, _body) = request.into_parts();
    let asked = match Asked::read(&parts) {
        Ok(asked) => asked,
        Err(problem) => return problem.json(),
    };
    let original = match Original::of(&claviger, &parts) {
        Ok(original) => original,
        Err(problem) => return problem.json(),
    };
    if let Err(crossed) = guard::judge(claviger.site(), &original.method, &parts.headers) {
        return claviger.refuse_crossing(&parts.headers, crossed);
    }
    match claviger.caller(&parts.headers, asked.assurance).await {
        Ok(caller) => {
            let mut response = Response::new(Body::empty());
            response.headers_mut().reserve(8);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            claviger.add_identity(response.headers_mut(), &caller);
            response
        }
        Err(denied) => {
            let problem = respond::of_denied(&denied);
            let leads_on = asked.redirects
                && problem.status == StatusCode::UNAUTHORIZED
                && can_navigate(&original.method, &parts.headers);
            if leads_on { respond::to_sign_in(original.target, &denied) } else { problem.json() }
        }
    }
}

/// Where proxies tell the original address: Caddy and Traefik, and nginx as the guide sets it up.
static TARGETS: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-uri"), HeaderName::from_static("x-original-uri")];
/// Where they tell the original method.
static METHODS: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-method"), HeaderName::from_static("x-original-method")];

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
        let params =
            Params::of(&parts.uri).and_then(|params| params.only(&["assurance", "max_age", "denied"]));
        let params = params.map_err(|error| respond::of_bad_params(&error))?;
        let one = |name| params.one(name).map_err(|error| respond::of_bad_params(&error));
        let max_age = match one("max_age")? {
            None => Duration::ZERO,
            Some(text) => text
                .parse()
                .map(Duration::from_secs)
                .map_err(|_| bad_request("max_age is a number of seconds"))?,
        };
        let assurance = match one("assurance")? {
            Some("cookie") => Assurance::Cookie,
            None | Some("session") => Assurance::Session,
            Some("provider") => Assurance::Provider { max_age },
            Some(_) => return Err(bad_request("assurance is one of cookie, session, provider")),
        };
        let redirects = match one("denied")? {
            None => false,
            Some("redirect") => true,
            Some(_) => return Err(bad_request("denied is redirect, or left out")),
        };
        Ok(Self { assurance, redirects })
    }
}

/// The request that the proxy asks about, as far as the proxy is believed.
struct Original<'a> {
    method: Method,
    target: &'a str,
}

impl<'a> Original<'a> {
    fn of(claviger: &Claviger, parts: &'a Parts) -> Result<Self, Problem> {
        // A socket that takes both families shows the peers of IPv4 as addresses of IPv6 (RFC 4291 section 2.5.5.2).
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical());
        let trusted = peer.is_some_and(|peer| claviger.site().trusted_proxies.contains(&peer));
        // A word that is not trusted may make us stricter, but never laxer.
        let told = told_method(parts)?.filter(|method| trusted || !method.is_safe());
        let target = if trusted { TARGETS.iter().find_map(|name| parts.headers.get(name)) } else { None };
        let target = target.and_then(|value| value.to_str().ok());
        Ok(Self { method: told.unwrap_or_else(|| parts.method.clone()), target: target.unwrap_or("/") })
    }
}

/// The method that the headers tell. Proxies pass a client's own headers on where they set none, so a method that is told
/// twice and differently, or makes no sense, is believed by nobody.
fn told_method(parts: &Parts) -> Result<Option<Method>, Problem> {
    let mut told = METHODS.iter().flat_map(|name| parts.headers.get_all(name));
    let Some(first) = told.next() else { return Ok(None) };
    if told.any(|other| other != first) {
        return Err(bad_request("the forwarded headers name two methods"));
    }
    Method::from_bytes(first.as_bytes())
        .map(Some)
        .map_err(|_| bad_request("the forwarded headers name no method"))
}
