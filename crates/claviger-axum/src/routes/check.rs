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
use claviger_engine::Caller;
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};

use crate::{
    Claviger, guard,
    navigation::can_navigate,
    params,
    problem::Problem,
    respond::{self, bad_request},
};

pub(crate) async fn check(State(claviger): State<Claviger>, request: Request) -> Response {
    let (mut parts, _body) = request.into_parts();
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
        Ok(caller) => pass(&claviger, caller, &mut parts),
        Err(denied) => {
            let problem = respond::of_denied(&denied);
            let leads_on = asked.redirects
                && problem.status == StatusCode::UNAUTHORIZED
                && can_navigate(&original.method, &parts.headers);
            if leads_on { respond::to_sign_in(original.target(&parts), &denied) } else { problem.json() }
        }
    }
}

/// The answer of [`check`] where the request passes and nothing has to be waited for.
pub(crate) fn at_once(claviger: &Claviger, parts: &mut Parts) -> Option<Response> {
    let asked = Asked::read(parts).ok()?;
    let original = Original::of(claviger, parts).ok()?;
    guard::judge(claviger.site(), &original.method, &parts.headers).ok()?;
    let cookie = claviger.cookie(&parts.headers).ok()?;
    let caller = claviger.engine().authenticate_at_once(cookie, asked.assurance).ok()?;
    Some(pass(claviger, caller, parts))
}

/// Lets a request pass, which is over with this: its header map becomes the answer's, since a new one costs two allocations.
fn pass(claviger: &Claviger, caller: Caller, parts: &mut Parts) -> Response {
    let outdated = claviger.outdated_cookie(&parts.headers);
    let mut headers = std::mem::take(&mut parts.headers);
    headers.clear();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    claviger.add_identity(&mut headers, caller);
    if let Some(outdated) = outdated {
        claviger.renew_cookie(&mut headers, &outdated);
    }
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers;
    response
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
        let [assurance, max_age, denied] = params::exactly(&parts.uri, ["assurance", "max_age", "denied"])
            .map_err(|error| respond::of_bad_params(&error))?;
        let max_age = match max_age {
            None => Duration::ZERO,
            Some(text) => text
                .parse()
                .map(Duration::from_secs)
                .map_err(|_| bad_request("max_age is a number of seconds"))?,
        };
        let assurance = match assurance.as_deref() {
            Some("cookie") => Assurance::Cookie,
            None | Some("session") => Assurance::Session,
            Some("provider") => Assurance::Provider { max_age },
            Some(_) => return Err(bad_request("assurance is one of cookie, session, provider")),
        };
        let redirects = match denied.as_deref() {
            None => false,
            Some("redirect") => true,
            Some(_) => return Err(bad_request("denied is redirect, or left out")),
        };
        Ok(Self { assurance, redirects })
    }
}

/// The request that the proxy asks about, as far as the proxy is believed.
struct Original {
    method: Method,
    /// Whether a proxy asks that is believed.
    trusted: bool,
}

impl Original {
    fn of(claviger: &Claviger, parts: &Parts) -> Result<Self, Problem> {
        // A socket that takes both families shows the peers of IPv4 as addresses of IPv6 (RFC 4291 section 2.5.5.2).
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical());
        let trusted = peer.is_some_and(|peer| claviger.site().trusted_proxies.contains(&peer));
        // A word that is not trusted may make us stricter, but never laxer.
        let told = told_method(parts)?.filter(|method| trusted || !method.is_safe());
        Ok(Self { method: told.unwrap_or_else(|| parts.method.clone()), trusted })
    }

    /// Where the request wanted to go.
    fn target<'a>(&self, parts: &'a Parts) -> &'a str {
        let target =
            if self.trusted { TARGETS.iter().find_map(|name| parts.headers.get(name)) } else { None };
        target.and_then(|value| value.to_str().ok()).unwrap_or("/")
    }
}

/// The method that the headers tell. Proxies pass a client's own headers on where they set none, so a method that is told
/// twice and differently, or makes no sense, is believed by nobody.
fn told_method(parts: &Parts) -> Result<Option<Method>, Problem> {
    // One look at every name is less work than to look one up.
    let mut told = parts.headers.iter().filter(|(name, _)| METHODS.contains(name)).map(|(_, value)| value);
    let Some(first) = told.next() else { return Ok(None) };
    if told.any(|other| other != first) {
        return Err(bad_request("the forwarded headers name two methods"));
    }
    Method::from_bytes(first.as_bytes())
        .map(Some)
        .map_err(|_| bad_request("the forwarded headers name no method"))
}
