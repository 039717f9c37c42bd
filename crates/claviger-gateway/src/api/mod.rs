//! The API proxy: calls of the provider's API in the caller's name. The browser sees neither token
//! nor client id.
//!
//! Only calls on the allow-list pass ([`calls`]), and only headers on the lists of `message`.
//!
//! A call that the provider refuses because the token is dead is repeated once with a fresh token,
//! if its body was kept. Otherwise the refusal is passed on unchanged, with the header
//! `x-claviger-not-retried`. The token is fresh by then, so the caller may send the call again.

mod message;

use axum::{body::Body, extract::Request, response::Response};
use claviger_axum::{Claviger, Problem, RequestHead, no_store};
use claviger_core::{Assurance, Custody, limits};
use claviger_engine::{Denied, Grant};
use claviger_seal::SessionCookie;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Limited};

use crate::{
    config::Config,
    proxy::{
        body::{OfSession, UntilStop},
        streams::Streams,
    },
    rules::calls::{self, AllowList},
};
use message::Payload;

/// Says why a call that was refused for a dead token was not repeated.
const NOT_RETRIED: HeaderName = HeaderName::from_static("x-claviger-not-retried");

/// Passes calls on to the provider's API.
#[derive(Clone)]
pub struct ApiProxy {
    claviger: Claviger,
    streams: Streams,
    /// Where the calls arrive.
    path: String,
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

impl ApiProxy {
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
            path: config.provider.api_path(),
            client,
            allowed: config.api.allow_list(),
            keeps_tokens: config.session.custody.0 != Custody::None,
            max_body_bytes: config.api.max_body_bytes,
        })
    }

    /// Serves one call.
    pub async fn serve(&self, request: Request) -> Response {
        let (mut parts, body) = request.into_parts();
        let head = match self.claviger.head(&mut parts) {
            Ok(head) => head,
            Err(refused) => return refused,
        };
        if let Err(refused) = self.claviger.guard(&head) {
            return refused;
        }
        let call = match self.call(&parts) {
            Ok(call) => call,
            Err(problem) => return problem.json(),
        };
        let cookie = match self.claviger.cookie(&head) {
            Ok(cookie) => cookie,
            Err(denied) => return self.claviger.deny(&head, &denied).await,
        };
        let payload = match Payload::read(body, self.max_body_bytes).await {
            Ok(payload) => payload,
            Err(problem) => return problem.json(),
        };
        let hold = self.streams.hold(cookie.session);
        let answered = self.answer(&head, &cookie, &call, payload);
        let ended = hold.ended().clone();
        let response = match ended.run_until_cancelled(answered).await {
            Some(Ok(response)) => {
                let response = response.map(|body| Body::new(OfSession::new(body, hold)));
                UntilStop::wrap(response, self.streams.stopping())
            }
            Some(Err(Failed::Denied(denied))) => self.claviger.deny(&head, &denied).await,
            Some(Err(Failed::Problem(problem))) => problem.json(),
            None => self.broken_off(&head, cookie).await,
        };
        no_store(response)
    }

    /// The answer to a call that was cut off because its session ended or may have ended. The row
    /// decides.
    async fn broken_off(&self, head: &RequestHead, cookie: SessionCookie) -> Response {
        match self.claviger.engine().authenticate(cookie, head.ask(Assurance::Session)).await {
            Ok(_) => CALL_BROKEN_OFF.json(),
            Err(denied) => self.claviger.deny(head, &denied).await,
        }
    }

    /// The call to send to the provider, if it may pass.
    fn call(&self, parts: &Parts) -> Result<Call, Problem> {
        if !self.keeps_tokens {
            return Err(NO_TOKENS);
        }
        let path = parts.uri.path().strip_prefix(&self.path).filter(|path| calls::is_clean(path));
        let path = path.ok_or(UNCLEAN_PATH)?;
        if !self.allowed.permits(&parts.method, path) {
            return Err(NOT_ALLOWED);
        }
        // A clean path is appended to the base, so it cannot change the base.
        let mut url = self.claviger.engine().provider().client.endpoints.api.clone();
        let whole = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&whole);
        url.set_query(parts.uri.query());
        Ok(Call { method: parts.method.clone(), url, headers: message::outgoing(&parts.headers) })
    }

    async fn answer(
        &self,
        head: &RequestHead,
        cookie: &SessionCookie,
        call: &Call,
        mut payload: Payload,
    ) -> Result<Response, Failed> {
        let engine = self.claviger.engine();
        let cached = self.claviger.cached_token(head);
        let cached_generation = cached.as_ref().map(|cached| cached.generation);
        let mut grant = engine.grant(cookie, cached, head.presence()).await?;
        let mut answer = self.send(call, &grant, payload.take()).await?;
        let mut not_retried = false;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let (refused, body) = whole(answer).await?;
            let challenge =
                refused.headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            let refusal = engine.provider().client.read_api_refusal(refused.status, challenge, &body);
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
        if cached_generation != Some(grant.generation) {
            self.claviger.set_cached_token(response.headers_mut(), cookie, &grant);
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
        let mut headers = call.headers.clone();
        provider
            .client
            .authorize_call(&mut headers, &grant.token)
            .map_err(|_| Failed::Denied(Denied::SignInAgain))?;
        let request = self.client.request(call.method.clone(), call.url.clone()).headers(headers).body(body);
        request.send().await.map(Into::into).map_err(|error| Failed::Problem(message::unanswered(&error)))
    }
}

/// Why a call has no answer from the provider.
enum Failed {
    Denied(Denied),
    Problem(Problem),
}

impl From<Denied> for Failed {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

/// Reads a whole answer. Too long an answer counts as empty, because it cannot be understood.
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
    "The gateway had to check whether you are still signed in, and you are. It is unknown whether the call took effect.",
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
