//! An app in memory, whose provider signs everybody in.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use claviger_axum::{Claviger, MaybeSignedIn, Site};
use claviger_core::{ClientSecret, Timestamp};
use claviger_engine::{Clock, Engine, Entropy, Parts, ProviderHttp, Settings};
use claviger_provider::{Registration, Unanswered, twitch};
use claviger_seal::{KeyId, Keyring, RootKey};
use claviger_store::MemoryStore;
use http::{HeaderMap, header};
use tower::ServiceExt as _;

pub(crate) const ORIGIN: &str = "https://app.example";
pub(crate) const SESSION: &str = "__Host-claviger";
pub(crate) const LOGIN: &str = "__Host-claviger-login-";
/// A trusted proxy.
pub(crate) const FRONT: &str = "10.0.0.1";

/// What the app's own handler saw. It is an extension of the answer.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) headers: HeaderMap,
    pub(crate) is_signed_in: bool,
}

pub(crate) struct App {
    pub(crate) claviger: Claviger,
    router: Router,
    runtime: tokio::runtime::Runtime,
}

/// A sign-in that was begun.
pub(crate) struct Begun {
    pub(crate) state: String,
    /// Its cookie, with its name.
    pub(crate) cookie: String,
}

impl App {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let secret = ClientSecret::new("canary-of-the-client");
        let registration = Registration::new("ours", secret, format!("{ORIGIN}/auth/callback"), Vec::new());
        let parts = Parts {
            store: Arc::new(MemoryStore::new()),
            http: Arc::new(Generous),
            clock: Arc::new(Stopped),
            entropy: Arc::new(Fixed),
            keyring: Keyring::new(vec![RootKey::new(KeyId(1), [1; 32])]).unwrap(),
            provider: twitch::PRESET.provider(registration),
            settings: Settings::default(),
            webhook: None,
            assertions: None,
        };
        let engine = runtime.block_on(Engine::start(parts)).unwrap();
        let site = Site { trusted_proxies: vec![FRONT.parse().unwrap()], ..Site::new(ORIGIN) };
        let claviger = Claviger::new(engine, site);
        let router = Router::new().fallback(show).layer(claviger.layer()).merge(claviger.routes());
        Self { claviger, router, runtime }
    }

    pub(crate) fn send(&self, request: Request) -> Response {
        self.runtime.block_on(self.router.clone().oneshot(request)).unwrap()
    }

    pub(crate) fn body(&self, response: Response) -> Vec<u8> {
        self.runtime.block_on(axum::body::to_bytes(response.into_body(), 1 << 20)).unwrap().to_vec()
    }

    pub(crate) fn begin(&self) -> Begun {
        let request = Request::get("/auth/login?return_to=/inbox").header("sec-fetch-site", "none");
        let response = self.send(request.body(Body::empty()).unwrap());
        let field = |name| response.headers().get(name).unwrap().to_str().unwrap();
        let (_, state) = field(header::LOCATION).split_once("state=").unwrap();
        let cookie = field(header::SET_COOKIE).split(';').next().unwrap();
        Begun { state: state.split(['&', '#']).next().unwrap().to_owned(), cookie: cookie.to_owned() }
    }

    /// The value of a good session cookie.
    pub(crate) fn sign_in(&self) -> String {
        let Begun { state, cookie } = self.begin();
        let request = Request::get(format!("/auth/callback?code=x&state={state}")).header("cookie", cookie);
        session_of(&self.send(request.body(Body::empty()).unwrap())).unwrap()
    }
}

/// The value to which an answer sets the session cookie.
pub(crate) fn session_of(response: &Response) -> Option<String> {
    let fields = response.headers().get_all(header::SET_COOKIE);
    let mut pairs = fields.iter().filter_map(|field| field.to_str().ok()?.split(';').next()?.split_once('='));
    pairs.find(|(name, value)| *name == SESSION && !value.is_empty()).map(|(_, value)| value.to_owned())
}

async fn show(MaybeSignedIn(caller): MaybeSignedIn, request: Request) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = request.headers().clone();
    response.extensions_mut().insert(Seen { headers, is_signed_in: caller.is_some() });
    response
}

struct Generous;

#[async_trait]
impl ProviderHttp for Generous {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Unanswered> {
        let body: &[u8] = match request.uri().path() {
            "/oauth2/token" => {
                br#"{"access_token":"canary-of-access","refresh_token":"canary-of-refresh","expires_in":14000}"#
            }
            "/oauth2/validate" => {
                br#"{"client_id":"ours","user_id":"1","login":"ada","scopes":[],"expires_in":14000}"#
            }
            _ => b"",
        };
        Ok(http::Response::new(Bytes::from_static(body)))
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }
}

/// The same bytes for everybody, so that a run can be repeated.
struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}
