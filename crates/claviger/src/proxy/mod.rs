//! The reverse proxy: who may come in, what the app is told, and how bytes pass in both directions.
//!
//! | module | the question it answers |
//! |---|---|
//! | [`path`] | in which ways can this path be read |
//! | [`policy`] | which assurance does it need |
//! | [`headers`] | which headers end here, which are set here |
//! | [`body`], `tunnel` | how do bytes pass, and when is it over |
//! | [`streams`] | which requests of a session are open |

pub mod body;
pub mod headers;
pub mod path;
pub mod policy;
pub mod streams;
mod tunnel;

use std::{net::SocketAddr, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use claviger_axum::{Claviger, Problem, Site};
use claviger_engine::{Caller, Denied};
use http::{HeaderMap, HeaderValue, Uri, header, request::Parts, uri::Scheme};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    config::{Config, SiteUrl},
    problems,
};
use body::OfSession;
use policy::{Admission, Policy};
use streams::{Hold, Streams};

/// Idle connections to the app are closed after so long: less than any common server's own limit (Node.js: 5 s), so
/// that a request rarely meets a connection that the app is closing.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);
/// So many idle connections to the app are kept.
const IDLE_CONNECTIONS: usize = 64;

/// Stands in front of an app.
#[derive(Clone)]
pub struct Proxy {
    claviger: Claviger,
    streams: Streams,
    policy: Policy,
    app: App,
}

/// The app, and how to reach it.
#[derive(Clone)]
struct App {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    address: SiteUrl,
    preserve_host: bool,
    answer_timeout: Duration,
    public: SiteUrl,
}

impl Proxy {
    /// Makes a proxy in front of the app at `address`.
    ///
    /// # Errors
    /// If the system's trusted certificates cannot be used.
    pub fn new(
        claviger: Claviger,
        streams: Streams,
        config: &Config,
        address: SiteUrl,
    ) -> Result<Self, std::io::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.proxy.connect_timeout.0));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .try_with_platform_verifier()
            .map_err(std::io::Error::other)?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // The client's own repetition is left on: it repeats only what was never sent, on a connection that turned out
        // to be closed. What may have reached the app is never repeated.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .set_host(false)
            .build(connector);
        let app = App {
            client,
            address,
            preserve_host: config.proxy.preserve_host,
            answer_timeout: config.proxy.answer_timeout.0,
            public: config.public_url.clone(),
        };
        Ok(Self { claviger, streams, policy: Policy::new(&config.routes), app })
    }

    /// Serves one request.
    pub async fn serve(&self, peer: SocketAddr, request: Request) -> Response {
        let (mut parts, body) = request.into_parts();
        let Ok(reading) = path::read(parts.uri.path()) else {
            return problems::AMBIGUOUS_PATH.answer_to(&parts.method, &parts.headers);
        };
        let entry = self.policy.entry(&reading);
        if carries(&parts.headers, self.claviger.site().session_cookie())
            && let Err(refused) = self.claviger.guard(&parts.method, &parts.headers)
        {
            return refused;
        }
        let visitor = match self.admit(entry, &parts.headers).await {
            Ok(visitor) => visitor,
            Err(denied) => return self.claviger.deny(&parts, &denied),
        };
        let outdated = visitor.as_ref().and_then(|_| self.claviger.outdated_cookie(&parts.headers));
        let upgrade = tunnel::Upgrade::asked(&mut parts);
        let (method, headers) = (parts.method.clone(), navigation_of(&parts.headers));
        let (caller, hold) = visitor.unzip();
        let Some(onward) = self.onward(parts, peer, caller.as_ref(), upgrade.as_ref(), body) else {
            return problems::BAD_HEAD.answer_to(&method, &headers);
        };
        match self.ask(onward).await {
            Ok(answer) => {
                let mut answer = self.back(answer, upgrade, hold, &method, &headers);
                if let Some(outdated) = outdated.filter(|_| !answer.status().is_informational()) {
                    self.claviger.renew_cookie(answer.headers_mut(), &outdated);
                }
                answer
            }
            Err(problem) => problem.answer_to(&method, &headers),
        }
    }

    /// Lets a request in, or says why not.
    async fn admit(&self, entry: Admission, headers: &HeaderMap) -> Result<Option<(Caller, Hold)>, Denied> {
        let Admission::Vouched(assurance) = entry else { return Ok(None) };
        let cookie = self.claviger.cookie(headers)?;
        let hold = self.streams.hold(cookie.session);
        let caller = self.claviger.engine().authenticate(cookie, assurance).await?;
        Ok(Some((caller, hold)))
    }

    /// The request as the app gets it.
    fn onward(
        &self,
        mut parts: Parts,
        peer: SocketAddr,
        caller: Option<&Caller>,
        upgrade: Option<&tunnel::Upgrade>,
        body: Body,
    ) -> Option<http::Request<Body>> {
        let asked_host = match parts.uri.authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => parts.headers.get(header::HOST).cloned(),
        };
        let client = headers::Client {
            peer: peer.ip().to_canonical(),
            trusted: self.claviger.site().trusted_proxies.contains(&peer.ip().to_canonical()),
            scheme: if self.app.public.is_https() { "https" } else { "http" },
            host: asked_host.clone().or_else(|| HeaderValue::from_str(self.app.public.authority()).ok()),
        };
        let fields = &mut parts.headers;
        headers::end_hop(fields);
        fields.remove(header::EXPECT);
        self.claviger.strip_request(fields);
        headers::join_cookies(fields);
        headers::forwarded(fields, &client);
        if let Some(caller) = caller {
            self.claviger.add_identity(fields, caller.clone());
        }
        if let Some(upgrade) = upgrade {
            upgrade.name_in(fields);
        }
        let own_host = HeaderValue::from_str(self.app.address.authority()).ok();
        let host = if self.app.preserve_host { client.host } else { own_host }?;
        fields.insert(header::HOST, host);

        let scheme = if self.app.address.is_https() { Scheme::HTTPS } else { Scheme::HTTP };
        let target = parts.uri.path_and_query()?.clone();
        let uri =
            Uri::builder().scheme(scheme).authority(self.app.address.authority()).path_and_query(target);
        let mut request = http::Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = uri.build().ok()?;
        *request.headers_mut() = parts.headers;
        Some(request)
    }

    async fn ask(&self, request: http::Request<Body>) -> Result<http::Response<Incoming>, Problem> {
        match tokio::time::timeout(self.app.answer_timeout, self.app.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_of_the_client(&error) => Err(problems::BROKEN_OFF),
            Ok(Err(error)) => {
                tracing::warn!(app = %self.app.address.origin(), error = %Causes(&error), "the app is not answering");
                Err(problems::APP_UNREACHABLE)
            }
            Err(_) => {
                tracing::warn!(app = %self.app.address.origin(), "the app takes too long to answer");
                Err(problems::APP_SLOW)
            }
        }
    }

    /// The app's answer as the client gets it.
    fn back(
        &self,
        mut answer: http::Response<Incoming>,
        upgrade: Option<tunnel::Upgrade>,
        hold: Option<Hold>,
        method: &http::Method,
        headers: &HeaderMap,
    ) -> Response {
        headers::retain_set_cookies(answer.headers_mut(), |name| !Site::is_ours(name));
        if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                tracing::warn!("the app switched protocols although nobody asked it to");
                return problems::APP_UNREACHABLE.answer_to(method, headers);
            };
            return upgrade.accepted(answer, &self.streams, hold);
        }
        headers::end_hop(answer.headers_mut());
        let (parts, body) = answer.into_parts();
        let body = match hold {
            Some(hold) => Body::new(OfSession::new(body, hold)),
            None => Body::new(body),
        };
        Response::from_parts(parts, body)
    }
}

/// Whether a request shows a cookie of this name, whatever it holds.
fn carries(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(header::COOKIE).iter().any(|field| {
        let pairs = field.as_bytes().split(|byte| *byte == b';');
        pairs
            .map(<[u8]>::trim_ascii)
            .any(|pair| pair.split(|byte| *byte == b'=').next() == Some(name.as_bytes()))
    })
}

/// What tells a person's window from a program, for an error that comes later.
fn navigation_of(headers: &HeaderMap) -> HeaderMap {
    ["sec-fetch-mode", "sec-fetch-dest", "accept", "x-requested-with", "upgrade"]
        .into_iter()
        .filter_map(|name| Some((http::HeaderName::from_static(name), headers.get(name)?.clone())))
        .collect()
}

/// Whether a request could not be sent because its own body broke off or paused for too long.
fn is_of_the_client(error: &hyper_util::client::legacy::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The causes of an error, in one line.
struct Causes<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
