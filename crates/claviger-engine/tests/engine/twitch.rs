//! The way to the mock without a socket. Answers can be held back, and bodies rewritten.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use claviger_core::policy::limits;
use claviger_engine::{Callback, Clock, ProviderHttp};
use claviger_mock::{Config, Connection, DEMO_CLIENT_ID, Endpoint, Fault, FaultKind, MockTwitch, Settings};
use claviger_provider::Unanswered;
use http::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::Notify;

use crate::world::{ManualClock, code};

type Rewrite = Box<dyn Fn(&mut Value) + Send>;

pub(crate) struct Twitch {
    mock: Mutex<MockTwitch>,
    clock: Arc<ManualClock>,
    gates: Mutex<VecDeque<(Endpoint, Arc<Gate>)>>,
    rewrites: Mutex<Vec<(Endpoint, Rewrite)>>,
    unreachable: Mutex<bool>,
    troubled: Mutex<Vec<(String, OneToken)>>,
    /// All of them, where the mock's log keeps the last.
    validated: Mutex<Vec<i64>>,
    /// How long each answer takes.
    latency: Mutex<std::time::Duration>,
    /// Every secret that went by: tokens, codes, verifiers.
    secrets: Mutex<Vec<String>>,
    /// How often each refresh token was sent, but for those times of which the answer said that nothing was done.
    sends: Mutex<BTreeMap<String, u32>>,
}

/// What questions about one token come to, while all others are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OneToken {
    /// An answer with this status.
    Status(u16),
    /// An answer of 200 that nobody understands.
    Unreadable,
    /// No answer.
    Silence,
}

/// Where something waits until a test lets it go.
#[derive(Default)]
pub(crate) struct Gate {
    arrived: Notify,
    open: Notify,
}

impl Gate {
    /// Waits until somebody stands at the gate.
    pub(crate) async fn arrived(&self) {
        let arrival = tokio::time::timeout(crate::world::DAY, self.arrived.notified());
        arrival.await.expect("somebody comes to the gate");
    }

    /// Lets one go.
    pub(crate) fn open(&self) {
        self.open.notify_one();
    }

    pub(crate) async fn wait(&self) {
        self.arrived.notify_one();
        self.open.notified().await;
    }
}

impl Twitch {
    pub(crate) fn new(settings: Settings, clock: Arc<ManualClock>) -> Self {
        let config = Config::strict().settings(|own| *own = settings);
        Self {
            mock: Mutex::new(MockTwitch::new(config, 1)),
            clock,
            gates: Mutex::default(),
            rewrites: Mutex::default(),
            unreachable: Mutex::default(),
            troubled: Mutex::default(),
            validated: Mutex::default(),
            latency: Mutex::default(),
            secrets: Mutex::default(),
            sends: Mutex::default(),
        }
    }

    pub(crate) fn mock(&self) -> MutexGuard<'_, MockTwitch> {
        self.mock.lock().unwrap()
    }

    /// Every call of the endpoint fails until the faults are cleared.
    pub(crate) fn always(&self, endpoint: Endpoint, kind: FaultKind) {
        self.mock().add_fault(Fault::always(endpoint, kind));
    }

    /// The next call of the endpoint fails.
    pub(crate) fn once(&self, endpoint: Endpoint, kind: FaultKind) {
        self.mock().add_fault(Fault::once(endpoint, kind));
    }

    pub(crate) fn mend(&self) {
        self.mock().clear_faults();
        self.rewrites.lock().unwrap().clear();
        self.troubled.lock().unwrap().clear();
        *self.unreachable.lock().unwrap() = false;
    }

    /// No request leaves until [`Twitch::mend`].
    pub(crate) fn unplug(&self) {
        *self.unreachable.lock().unwrap() = true;
    }

    /// The next answer of the endpoint takes effect there and is held back here.
    pub(crate) fn hold(&self, endpoint: Endpoint) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.gates.lock().unwrap().push_back((endpoint, Arc::clone(&gate)));
        gate
    }

    /// Changes every good answer of the endpoint until [`Twitch::mend`].
    pub(crate) fn rewrite(&self, endpoint: Endpoint, change: impl Fn(&mut Value) + Send + 'static) {
        self.rewrites.lock().unwrap().push((endpoint, Box::new(change)));
    }

    pub(crate) fn calls(&self, endpoint: Endpoint) -> u64 {
        self.mock().calls(endpoint)
    }

    pub(crate) fn refreshes(&self) -> u64 {
        self.mock().token_calls("refresh_token")
    }

    /// When refreshes arrived since the log was cleared, in Unix milliseconds.
    pub(crate) fn refresh_times(&self) -> Vec<i64> {
        let refreshed =
            |entry: &&claviger_mock::LogEntry| entry.grant_type.as_deref() == Some("refresh_token");
        self.mock().log().filter(refreshed).map(|entry| entry.at_ms).collect()
    }

    /// When validations arrived since the log was cleared, in Unix milliseconds.
    pub(crate) fn validation_times(&self) -> Vec<i64> {
        self.validated.lock().unwrap().clone()
    }

    /// Forgets what arrived so far.
    pub(crate) fn clear_log(&self) {
        self.mock().clear_log();
        self.validated.lock().unwrap().clear();
    }

    /// How often this token was validated since the log was cleared.
    pub(crate) fn validations_of(&self, token: &str) -> usize {
        let mock = self.mock();
        let name = mock.fingerprint(token);
        let of_it = |entry: &&claviger_mock::LogEntry| {
            entry.endpoint == Endpoint::Validate && entry.token.as_ref() == Some(&name)
        };
        mock.log().filter(of_it).count()
    }

    /// From now on every question about this token ends so, until [`Twitch::mend`].
    pub(crate) fn trouble_with(&self, token: &str, trouble: OneToken) {
        self.troubled.lock().unwrap().push((format!("OAuth {token}"), trouble));
    }

    /// Whether the provider takes this access token. No fault of validations gets in the way.
    pub(crate) fn lives(&self, token: &str) -> bool {
        let request = Request::get("/helix/users")
            .header("authorization", format!("Bearer {token}"))
            .header("client-id", DEMO_CLIENT_ID)
            .body(Bytes::new())
            .unwrap();
        let now_ms = self.clock.now().as_millis();
        self.mock().handle(&request, now_ms).response.status() == StatusCode::OK
    }

    /// Follows a browser to the authorization page and back to the app.
    pub(crate) fn authorize(&self, location: &str) -> Callback {
        let request = Request::get(location).body(Bytes::new()).unwrap();
        let reply = self.mock().handle(&request, self.clock.now().as_millis());
        let location = reply.response.headers()[http::header::LOCATION].to_str().unwrap().to_owned();
        let back = url::Url::parse(&location).unwrap();
        let param = |name: &str| back.query_pairs().find(|(key, _)| key == name).map(|(_, v)| v.into_owned());
        let sent = param("code");
        self.secrets.lock().unwrap().extend(sent.clone());
        Callback {
            state: param("state").unwrap_or_default(),
            code: sent.as_deref().map(code),
            error: param("error"),
            iss: param("iss"),
        }
    }

    /// Every secret that went by so far.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.secrets.lock().unwrap().clone()
    }

    /// Takes note of a refresh token that was sent and is spent by it, for all that its sender can know.
    fn note_send(&self, request: &Request<Bytes>, status: Option<StatusCode>) {
        let nothing_done = |status: StatusCode| matches!(status.as_u16(), 402..=499 | 501 | 503);
        let mut form = url::form_urlencoded::parse(request.body());
        if let Some((_, token)) = form.find(|(name, _)| name == "refresh_token")
            && !status.is_some_and(nothing_done)
        {
            *self.sends.lock().unwrap().entry(token.into_owned()).or_default() += 1;
        }
    }

    /// How often the refresh token was sent that was sent most often, and may be spent by each time.
    pub(crate) fn most_sends(&self) -> u32 {
        self.sends.lock().unwrap().values().copied().max().unwrap_or_default()
    }

    /// How many refresh tokens were sent a second time.
    pub(crate) fn sent_again(&self) -> usize {
        self.sends.lock().unwrap().values().filter(|sends| **sends > 1).count()
    }

    fn trouble_of(&self, request: &Request<Bytes>) -> Option<OneToken> {
        let shown = request.headers().get("authorization")?.to_str().ok()?;
        let troubled = self.troubled.lock().unwrap();
        troubled.iter().find(|(token, _)| token == shown).map(|(_, trouble)| *trouble)
    }

    /// Every answer takes so long from now on.
    pub(crate) fn slow(&self, latency: std::time::Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    fn note_request(&self, request: &Request<Bytes>) {
        let body = url::form_urlencoded::parse(request.body());
        let secret = ["client_secret", "code", "code_verifier", "refresh_token", "token"];
        let found =
            body.filter(|(name, _)| secret.contains(&name.as_ref())).map(|(_, value)| value.into_owned());
        self.secrets.lock().unwrap().extend(found);
    }

    fn shape(&self, endpoint: Option<Endpoint>, answer: &mut Response<Bytes>) {
        let Ok(mut body) = serde_json::from_slice::<Value>(answer.body()) else { return };
        let tokens = ["access_token", "refresh_token"].map(|name| body[name].as_str().map(str::to_owned));
        self.secrets.lock().unwrap().extend(tokens.into_iter().flatten());
        if answer.status() != StatusCode::OK {
            return;
        }
        for (_, change) in self.rewrites.lock().unwrap().iter().filter(|(at, _)| Some(*at) == endpoint) {
            change(&mut body);
        }
        *answer.body_mut() = Bytes::from(body.to_string());
    }

    fn gate(&self, endpoint: Option<Endpoint>) -> Option<Arc<Gate>> {
        let mut gates = self.gates.lock().unwrap();
        let index = gates.iter().position(|(at, _)| Some(*at) == endpoint)?;
        gates.remove(index).map(|(_, gate)| gate)
    }
}

#[async_trait]
impl ProviderHttp for Twitch {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        if *self.unreachable.lock().unwrap() {
            return Err(Unanswered::NotSent);
        }
        tokio::task::yield_now().await;
        let latency = *self.latency.lock().unwrap();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        self.note_request(&request);
        let endpoint = Endpoint::of_path(request.uri().path());
        let mut reply = {
            let now_ms = self.clock.now().as_millis();
            self.mock().handle(&request, now_ms)
        };
        if endpoint == Some(Endpoint::Validate) {
            self.validated.lock().unwrap().push(self.clock.now().as_millis());
        }
        self.shape(endpoint, &mut reply.response);
        match self.trouble_of(&request) {
            Some(OneToken::Status(status)) => {
                *reply.response.status_mut() = StatusCode::from_u16(status).unwrap()
            }
            Some(OneToken::Unreadable) => *reply.response.body_mut() = Bytes::from_static(b"<html>"),
            Some(OneToken::Silence) => reply.delay = 2 * limits::PROVIDER_ANSWER,
            None => {}
        }
        if let Some(gate) = self.gate(endpoint) {
            gate.wait().await;
        }
        let heard = reply.delay <= limits::PROVIDER_ANSWER && reply.connection == Connection::Keep;
        self.note_send(&request, heard.then(|| reply.response.status()));
        tokio::time::sleep(reply.delay.min(limits::PROVIDER_ANSWER)).await;
        if heard { Ok(reply.response) } else { Err(Unanswered::NoAnswer) }
    }
}
