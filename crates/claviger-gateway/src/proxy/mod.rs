//! The reverse proxy: which requests pass, what the app learns, and how bytes pass in both
//! directions.
//!
//! | module | the question it answers |
//! |---|---|
//! | [`headers`], [`claims`] | which headers are removed, which are set |
//! | `cross_origin` | what pages of other origins may do |
//! | `app` | how is the app reached |
//! | [`body`], `tunnel`, `frames` | how do bytes pass, and when do they stop |
//! | [`streams`] | which requests of a session are open |

mod app;
pub mod body;
mod cross_origin;
mod frames;
pub mod headers;
pub mod streams;
mod tunnel;

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use claviger_axum::{Claviger, Problem, RequestHead, Site};
use claviger_core::request::{
    host::Host,
    path,
    routes::{Admission, AskedMethod, Policy, Preflight, Ruling},
};
use claviger_engine::{Caller, Denied};
use http::{HeaderMap, HeaderValue, Uri, header, request::Parts, uri::Scheme};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;

use crate::{
    config::{Config, Upstream, Via},
    problems,
    rules::{
        self,
        claims::{self, Passing},
    },
    well_known,
};
use app::{AppClient, FromApp};
use body::{Flow, OfSession, Unsaid, UntilStop, Upload};
use streams::{Hold, Streams};

/// A reverse proxy in front of an app.
#[derive(Clone)]
pub struct Proxy {
    claviger: Claviger,
    streams: Streams,
    policy: Policy,
    /// Where calls of the provider's API arrive.
    api_path: String,
    passing: Passing,
    app: Arc<App>,
}

/// The app, and how to reach it.
struct App {
    client: AppClient,
    address: Upstream,
    answer_timeout: Duration,
    scheme: &'static str,
    hosts: Hosts,
}

impl App {
    fn speaks_http2(&self) -> bool {
        *self.address.via() == Via::Http2
    }
}

/// Hosts as headers have them.
struct Hosts {
    public: HeaderValue,
    others: Vec<HeaderValue>,
    /// The app's own, if it does not see the one that was asked for.
    own: Option<HeaderValue>,
}

impl Hosts {
    fn new(config: &Config, app: &Upstream) -> Result<Self, std::io::Error> {
        let value = |host: &str| HeaderValue::from_str(host).map_err(std::io::Error::other);
        Ok(Self {
            public: value(config.public_url.authority())?,
            others: config.other_hosts.iter().map(|host| value(&host.0)).collect::<Result<_, _>>()?,
            own: (!config.proxy.preserve_host).then(|| value(app.site().authority())).transpose()?,
        })
    }

    /// The host that was asked for. What only the proxy in front calls this server is no host of
    /// the site.
    fn asked(&self, host: Host) -> &HeaderValue {
        match host {
            Host::Other(place) => self.others.get(place).unwrap_or(&self.public),
            _ => &self.public,
        }
    }
}

impl Proxy {
    /// A proxy in front of the app at `address`.
    ///
    /// # Errors
    /// If the system's trusted certificates cannot be used.
    pub fn new(
        claviger: Claviger,
        streams: Streams,
        policy: Policy,
        config: &Config,
        address: Upstream,
    ) -> Result<Self, std::io::Error> {
        let client = AppClient::new(config, &address)?;
        let app = Arc::new(App {
            client,
            hosts: Hosts::new(config, &address)?,
            address,
            answer_timeout: config.proxy.answer_timeout.0,
            scheme: if config.public_url.is_https() { "https" } else { "http" },
        });
        let passing = Passing::new(config.proxy.pass_headers.iter().map(|name| name.0.clone()));
        Ok(Self { claviger, streams, policy, api_path: config.provider.api_path(), passing, app })
    }

    /// Serves one request.
    pub async fn serve(&self, request: Request) -> Response {
        let (mut parts, body) = request.into_parts();
        let head = match self.claviger.head(&mut parts) {
            Ok(head) => head,
            Err(refused) => return refused,
        };
        let path = parts.uri.path();
        if rules::own(&self.api_path).iter().any(|own| path::is_below(path, own)) {
            return problems::NOTHING.answer_to(&head);
        }
        let ruling = match self.ruling(&parts, &head) {
            Ok(ruling) => ruling,
            Err(answer) => return answer,
        };
        let allowed = cross_origin::allowed(&head, ruling.cross_origin);
        if head.has_session_cookie()
            && allowed.is_none()
            && let Err(refused) = self.claviger.guard(&head)
        {
            return refused;
        }
        let mut answer = self.pass(parts, &head, ruling.admission, body).await;
        if let Some(origin) = allowed {
            cross_origin::open(answer.headers_mut(), &origin);
        }
        answer
    }

    /// What a request needs, and what a page of another origin may do.
    fn ruling(&self, parts: &Parts, head: &RequestHead) -> Result<Ruling<'_>, Response> {
        let ask = |method| {
            let ruling = self.policy.ruling(method, parts.uri.path(), head.path());
            ruling.map_err(|fault| problems::ambiguous_path(fault).answer_to(head))
        };
        if let (Some(origin), Some(wanted)) = (head.foreign_origin(), head.preflight_for()) {
            let ruling = ask(wanted.to_str().map_or(AskedMethod::Any, AskedMethod::One))?;
            let rule = ruling.cross_origin;
            match rule.map_or(Preflight::Ordinary, |rule| rule.preflight(origin.as_bytes())) {
                Preflight::Ordinary => {}
                Preflight::Passes => return Ok(Ruling { admission: Admission::Anyone, ..ruling }),
                Preflight::Allowed => return Err(cross_origin::accept(&parts.headers, origin, wanted)),
            }
        }
        ask(head.asked_method())
    }

    /// Passes a request on if its session suffices.
    async fn pass(&self, mut parts: Parts, head: &RequestHead, admission: Admission, body: Body) -> Response {
        let visitor = match self.admit(admission, head).await {
            Ok(visitor) => visitor,
            Err(denied) => {
                return match well_known::answer(parts.uri.path(), &denied) {
                    Some(known) => known,
                    None => self.claviger.deny(head, &denied).await,
                };
            }
        };
        let outdated = visitor.as_ref().and_then(|_| self.claviger.outdated_cookie(head));
        let upgrade = tunnel::Upgrade::asked(&mut parts).filter(|_| !self.app.speaks_http2());
        let (caller, hold) = visitor.unzip();
        let Some(mut onward) = self.onward(parts, head, caller.as_ref(), upgrade.as_ref(), body) else {
            return problems::BAD_HEAD.answer_to(head);
        };
        if let Some(caller) = &caller
            && let Err(denied) = self.claviger.add_assertion(onward.headers_mut(), caller)
        {
            return self.claviger.deny(head, &denied).await;
        }
        match self.ask(onward, hold.as_ref()).await {
            Ok(answer) => {
                let mut answer = self.back(answer, upgrade, hold, head);
                if let Some(outdated) = outdated.filter(|_| !answer.status().is_informational()) {
                    self.claviger.renew_cookie(answer.headers_mut(), &outdated);
                }
                answer
            }
            Err(NoAnswer::Problem(problem)) => problem.answer_to(head),
            Err(NoAnswer::SessionEnded) => self.broken_off(head, admission).await,
        }
    }

    /// The answer to a request whose session ended, or may have ended, before the app answered. The
    /// row decides.
    async fn broken_off(&self, head: &RequestHead, admission: Admission) -> Response {
        match self.admit(admission, head).await {
            Ok(_) => problems::BROKEN_OFF_BY_DOUBT.answer_to(head),
            Err(denied) => self.claviger.deny_midway(head, &denied).await,
        }
    }

    /// Authenticates a request, if its path needs that.
    async fn admit(
        &self,
        admission: Admission,
        head: &RequestHead,
    ) -> Result<Option<(Caller, Hold)>, Denied> {
        match admission {
            Admission::Anyone => Ok(None),
            Admission::Optional => {
                let Ok(cookie) = self.claviger.cookie(head) else { return Ok(None) };
                let hold = self.streams.hold(cookie.session);
                Ok(self.claviger.recognize(head, cookie).await.map(|caller| (caller, hold)))
            }
            Admission::Vouched(assurance) => {
                let cookie = self.claviger.cookie(head)?;
                let hold = self.streams.hold(cookie.session);
                let caller = self.claviger.engine().authenticate(cookie, head.ask(assurance)).await?;
                Ok(Some((caller, hold)))
            }
        }
    }

    /// The request as the app gets it.
    fn onward(
        &self,
        mut parts: Parts,
        head: &RequestHead,
        caller: Option<&Caller>,
        upgrade: Option<&tunnel::Upgrade>,
        body: Body,
    ) -> Option<http::Request<Body>> {
        let hosts = &self.app.hosts;
        let asked = hosts.asked(head.host());
        let client = headers::Client { peer: head.peer(), scheme: self.app.scheme, host: asked };
        let fields = &mut parts.headers;
        let takes_trailers = headers::takes_trailers(fields);
        headers::end_hop(fields);
        if takes_trailers {
            headers::ask_for_trailers(fields);
        }
        fields.remove(header::EXPECT);
        claims::remove(fields, &self.passing, head.peer().is_front(), parts.method.is_safe());
        self.claviger.strip_request(fields, head);
        headers::forwarded(fields, &client);
        if let Some(caller) = caller {
            self.claviger.add_identity(fields, caller.clone());
        }
        if let Some(upgrade) = upgrade {
            upgrade.request_in(fields);
        }
        let host = hosts.own.as_ref().unwrap_or(asked);
        let app = &self.app.address;
        let mut authority = app.site().authority();
        if self.app.speaks_http2() {
            // The address names the host, and the length of a body need not be announced.
            authority = host.to_str().ok()?;
            fields.remove(header::HOST);
            fields.remove(header::CONNECTION);
        } else {
            fields.insert(header::HOST, host.clone());
        }
        // The client sends the body of a GET or HEAD only if the head announces one.
        if !self.app.speaks_http2()
            && parts.method.is_safe()
            && !body.is_end_stream()
            && !fields.contains_key(header::CONTENT_LENGTH)
        {
            fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }

        let scheme = if app.site().is_https() { Scheme::HTTPS } else { Scheme::HTTP };
        let target = parts.uri.path_and_query()?.clone();
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target);
        let mut request = http::Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = uri.build().ok()?;
        *request.headers_mut() = parts.headers;
        Some(request)
    }

    async fn ask(
        &self,
        request: http::Request<Body>,
        hold: Option<&Hold>,
    ) -> Result<http::Response<FromApp>, NoAnswer> {
        let app = &self.app;
        let (head, body) = request.into_parts();
        let (body, flow) = Upload::new(body);
        let asked = app.client.request(http::Request::from_parts(head, body));
        let asked = Flow::answered(flow.as_deref(), app.answer_timeout, asked);
        let answer = match hold {
            Some(hold) => {
                let answer = hold.ended().run_until_cancelled(asked).await;
                answer.filter(|_| !hold.ended().is_cancelled()).ok_or(NoAnswer::SessionEnded)?
            }
            None => asked.await,
        };
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) if is_of_the_client(&error) => Err(problems::BROKEN_OFF.into()),
            Some(Err(error)) => {
                tracing::warn!(app = %app.address, error = %Causes(&error), "the app is not answering");
                Err(blame(&error).into())
            }
            None => {
                tracing::warn!(app = %app.address, "the app did not answer in time");
                Err(problems::APP_SLOW.into())
            }
        }
    }

    /// The app's answer as the client gets it.
    fn back(
        &self,
        mut answer: http::Response<FromApp>,
        upgrade: Option<tunnel::Upgrade>,
        hold: Option<Hold>,
        head: &RequestHead,
    ) -> Response {
        if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                tracing::warn!("the app switched protocols without a request to do so");
                return problems::APP_UNREACHABLE.answer_to(head);
            };
            headers::retain_set_cookies(answer.headers_mut(), |name| !Site::is_ours(name));
            return upgrade.accepted(answer, &self.streams, hold);
        }
        filter(answer.headers_mut());
        if hold.is_some() {
            self.claviger.keep_private(answer.headers_mut());
        }
        let (parts, body) = answer.into_parts();
        let body = body.map_frame(filter_trailers as fn(Frame<Bytes>) -> Frame<Bytes>);
        let of_head =
            head.method() == http::Method::HEAD && !parts.headers.contains_key(header::CONTENT_LENGTH);
        let body = match hold {
            // Without this, a length of nothing would be invented.
            _ if of_head => Body::new(Unsaid),
            Some(hold) => Body::new(OfSession::new(body, hold)),
            None => Body::new(body),
        };
        UntilStop::wrap(Response::from_parts(parts, body), self.streams.stopping())
    }
}

/// Removes from an answer, or from its trailers, what is for one hop and what sets our cookies.
fn filter(fields: &mut HeaderMap) {
    headers::retain_set_cookies(fields, |name| !Site::is_ours(name));
    headers::end_hop_of_answer(fields);
}

fn filter_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut fields) => {
            filter(&mut fields);
            Frame::trailers(fields)
        }
        Err(frame) => frame,
    }
}

/// Why there is no answer of the app.
enum NoAnswer {
    Problem(Problem),
    /// The session ended first, or may have ended.
    SessionEnded,
}

impl From<Problem> for NoAnswer {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Whether a request failed because its own body was incomplete or paused too long.
fn is_of_the_client(error: &hyper_util::client::legacy::Error) -> bool {
    of_hyper(error).is_some_and(hyper::Error::is_user)
}

/// What to say of an app that gave no answer.
fn blame(error: &hyper_util::client::legacy::Error) -> Problem {
    match of_hyper(error) {
        Some(error) if error.is_parse_too_large() => problems::APP_HEAD_TOO_LARGE,
        Some(error) if error.is_parse() => problems::APP_NOT_HTTP,
        _ => problems::APP_UNREACHABLE,
    }
}

/// The first cause that is hyper's.
fn of_hyper(error: &hyper_util::client::legacy::Error) -> Option<&hyper::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
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
