//! The API proxy: calls of the provider's API in the caller's name. The browser sees neither token nor client id.
//!
//! Only calls on the allow-list pass ([`allow`]), and only headers on the lists of `message`. A call that the provider
//! refuses because the token is dead is repeated once, with a fresh token, if its body is at hand. If it is not, the
//! provider's refusal is passed on as it came, with the header `x-claviger-not-retried`: the token is fresh by then, so
//! the caller may send the call again.

pub mod allow;
mod message;

use axum::{body::Body, extract::Request, response::Response};
use claviger_axum::{Claviger, Problem, no_store};
use claviger_core::{policy::limits, request::Assurance};
use claviger_engine::{Denied, Grant};
use claviger_seal::SessionCookie;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Limited};

use crate::{
    config::{Config, Custody},
    proxy::{body::OfSession, streams::Streams},
};
use allow::AllowList;
use message::Payload;

/// Where the calls arrive.
pub const PREFIX: &str = "/api/twitch";

/// Says why a call that was refused for a dead token was not repeated.
const NOT_RETRIED: HeaderName = HeaderName::from_static("x-claviger-not-retried");

/// Passes calls on to the provider's API.
#[derive(Clone)]
pub struct Api {
    claviger: Claviger,
    streams: Streams,
    client: reqwest::Client,
    allowed: AllowList,
    keeps_tokens: bool,
    max_body_bytes: usize,
}

/// One call, ready to be sent any number of times with the same head.
struct Call {
    method: Method,
    url: url::Url,
    headers: HeaderMap,
}

impl Api {
    /// Makes the proxy.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(claviger: Claviger, streams: Streams, config: &Config) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(limits::PROVIDER_CONNECT)
            .read_timeout(config.api.answer_timeout.0)
            .pool_idle_timeout(std::time::Duration::from_secs(20))
            .user_agent(concat!("claviger/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            claviger,
            streams,
            client,
            allowed: AllowList::new(&config.api.allow),
            keeps_tokens: config.session.custody != Custody::None,
            max_body_bytes: config.api.max_body_bytes,
        })
    }

    /// Serves one call.
    pub async fn serve(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        if let Err(refused) = self.claviger.guard(&parts.method, &parts.headers) {
            return refused;
        }
        let call = match self.call(&parts) {
            Ok(call) => call,
            Err(problem) => return problem.json(),
        };
        let payload = match Payload::read(&parts, body, self.max_body_bytes).await {
            Ok(payload) => payload,
            Err(problem) => return problem.json(),
        };
        let cookie = match self.claviger.cookie(&parts.headers) {
            Ok(cookie) => cookie,
            Err(denied) => return self.claviger.deny(&parts, &denied),
        };
        let hold = self.streams.hold(cookie.session);
        let answered = self.answer(&parts.headers, &cookie, &call, payload);
        let ended = hold.ended().clone();
        let response = match ended.run_until_cancelled(answered).await {
            Some(Ok(response)) => response.map(|body| Body::new(OfSession::new(body, hold))),
            Some(Err(Failed::Denied(denied))) => self.claviger.deny(&parts, &denied),
            Some(Err(Failed::Problem(problem))) => problem.json(),
            None => self.broken_off(&parts, cookie).await,
        };
        no_store(response)
    }

    /// The answer to a call that was broken off because its session ended, or may have ended unheard. The row knows.
    async fn broken_off(&self, parts: &Parts, cookie: SessionCookie) -> Response {
        match self.claviger.engine().authenticate(cookie, Assurance::Session).await {
            Ok(_) => CALL_BROKEN_OFF.json(),
            Err(denied) => self.claviger.deny(parts, &denied),
        }
    }

    /// What to ask of the provider, if it may be asked.
    fn call(&self, parts: &Parts) -> Result<Call, Problem> {
        if !self.keeps_tokens {
            return Err(NO_TOKENS);
        }
        let path = parts.uri.path().strip_prefix(PREFIX).filter(|path| allow::is_clean(path));
        let path = path.ok_or(UNCLEAN_PATH)?;
        if !self.allowed.permits(&parts.method, path) {
            return Err(NOT_ALLOWED);
        }
        // The base stays whatever the path holds: it is put behind it, and was found clean.
        let mut url = self.claviger.engine().provider().endpoints.api.clone();
        let whole = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&whole);
        url.set_query(parts.uri.query());
        Ok(Call { method: parts.method.clone(), url, headers: message::outgoing(&parts.headers) })
    }

    async fn answer(
        &self,
        headers: &HeaderMap,
        cookie: &SessionCookie,
        call: &Call,
        mut payload: Payload,
    ) -> Result<Response, Failed> {
        let engine = self.claviger.engine();
        let hint = self.claviger.access_hint(headers);
        let hinted = hint.as_ref().map(|hint| hint.generation);
        let mut grant = engine.grant(cookie, hint).await?;
        let mut answer = self.send(call, &grant, payload.take()).await?;
        let mut not_retried = false;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let (refused, body) = whole(answer).await?;
            let challenge =
                refused.headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            let refusal = engine.provider().read_api_refusal(refused.status, challenge, &body);
            answer = http::Response::from_parts(refused, reqwest::Body::from(body));
            if let Some(fresh) = engine.grant_after_refusal(cookie, &grant, refusal).await? {
                grant = fresh;
                match payload.again() {
                    Some(body) => answer = self.send(call, &grant, body).await?,
                    None => not_retried = true,
                }
            }
        }
        let mut response = message::incoming(answer);
        if not_retried {
            response.headers_mut().insert(NOT_RETRIED, HeaderValue::from_static("body-too-large"));
        }
        if hinted != Some(grant.generation) {
            self.claviger.set_access_hint(response.headers_mut(), cookie, &grant);
        }
        Ok(response)
    }

    async fn send(
        &self,
        call: &Call,
        grant: &Grant,
        body: reqwest::Body,
    ) -> Result<http::Response<reqwest::Body>, Failed> {
        let provider = self.claviger.engine().provider();
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", grant.token.expose()))
            .map_err(|_| Failed::Denied(Denied::SignInAgain))?;
        bearer.set_sensitive(true);
        let mut headers = call.headers.clone();
        headers.insert(header::AUTHORIZATION, bearer);
        if let Ok(client_id) = HeaderValue::from_str(&provider.client_id) {
            headers.insert("client-id", client_id);
        }
        let request = self.client.request(call.method.clone(), call.url.clone()).headers(headers).body(body);
        request.send().await.map(Into::into).map_err(|error| Failed::Problem(message::unanswered(&error)))
    }
}

/// Why a call has no answer of the provider.
enum Failed {
    Denied(Denied),
    Problem(Problem),
}

impl From<Denied> for Failed {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

/// Reads an answer whole. One that is too long is none that could be understood, so it counts as empty.
async fn whole(
    answer: http::Response<reqwest::Body>,
) -> Result<(http::response::Parts, bytes::Bytes), Failed> {
    let (mut parts, body) = answer.into_parts();
    match Limited::new(body, limits::PROVIDER_ANSWER_BYTES).collect().await {
        Ok(collected) => Ok((parts, collected.to_bytes())),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            parts.headers.remove(header::CONTENT_TYPE);
            Ok((parts, bytes::Bytes::new()))
        }
        Err(_) => Err(Failed::Problem(message::NO_ANSWER)),
    }
}

const CALL_BROKEN_OFF: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "call_broken_off",
    "One moment, please",
    "It had to be looked up whether you are still signed in, and you are. Whether the call took effect is not known.",
)
.passing();

const NO_TOKENS: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "no_tokens_kept",
    "Not possible",
    "This site keeps no tokens, so it cannot call the API for anybody.",
);

const UNCLEAN_PATH: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "bad_path",
    "This address is not right",
    "A path of the API has segments of letters, digits, '-' and '_', and nothing else.",
);

const NOT_ALLOWED: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "call_not_allowed",
    "Not allowed",
    "This call of the API is not on this site's list; its operator can add it to api.allow.",
);
