//! The way to the mock without a socket. Answers can be held back and rewritten.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use claviger_core::limits;
use claviger_engine::{Callback, ProviderHttp};
use claviger_mock::{Config, Connection, DEMO_CLIENT_ID, Endpoint, Fault, FaultKind, MockTwitch, Settings};
use claviger_provider::Unanswered;
use http::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    recorded,
    world::{ManualClock, code},
};

type Rewrite = Box<dyn Fn(&mut Value) + Send>;

pub(crate) struct Twitch {
    mock: Mutex<MockTwitch>,
    clock: Arc<ManualClock>,
    gates: Mutex<VecDeque<(Endpoint, Arc<Gate>)>>,
    rewrites: Mutex<Vec<(Endpoint, Rewrite)>>,
    unreachable: Mutex<bool>,
    troubled: Mutex<Vec<(String, OneToken)>>,
    /// All calls; the mock's log keeps only the last ones.
    validated: Mutex<Vec<i64>>,
    /// The delay of each answer.
    latency: Mutex<std::time::Duration>,
    /// Refusals repeat what was sent.
    echoes: Mutex<bool>,
    /// Every secret seen: tokens, codes, verifiers.
    secrets: Mutex<Vec<String>>,
    /// How often each refresh token was sent, except where the answer said that nothing was done.
    sends: Mutex<BTreeMap<String, u32>>,
}

/// The answers to validations of one token; all others are answered as usual.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OneToken {
    /// An answer with this status.
    Status(u16),
    /// An answer of 200 that makes no sense.
    Unreadable,
    /// No answer.
    Silence,
}

/// A gate at which something waits until a test lets it through.
#[derive(Default)]
pub(crate) struct Gate {
    arrived: Notify,
    open: Notify,
}

impl Gate {
    /// Waits until something stands at the gate.
    pub(crate) async fn arrived(&self) {
        let arrival = tokio::time::timeout(crate::world::DAY, self.arrived.notified());
        arrival.await.expect("somebody comes to the gate");
    }

    /// Lets one through.
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
            echoes: Mutex::default(),
            secrets: Mutex::default(),
            sends: Mutex::default(),
        }
    }

    pub(crate) fn mock(&self) -> MutexGuard<'_, MockTwitch> {
        self.mock.lock().unwrap()
    }

    /// Makes every call of the endpoint fail until the faults are cleared.
    pub(crate) fn always(&self, endpoint: Endpoint, kind: FaultKind) {
        self.mock().add_fault(Fault::always(endpoint, kind));
    }

    /// Makes the next call of the endpoint fail.
    pub(crate) fn once(&self, endpoint: Endpoint, kind: FaultKind) {
        self.mock().add_fault(Fault::once(endpoint, kind));
    }

    pub(crate) fn mend(&self) {
        self.mock().clear_faults();
        self.rewrites.lock().unwrap().clear();
        self.troubled.lock().unwrap().clear();
        *self.unreachable.lock().unwrap() = false;
        *self.echoes.lock().unwrap() = false;
    }

    /// Answers every request of the token endpoint with a refusal that repeats what was sent, until
    /// [`Twitch::mend`].
    pub(crate) fn echo(&self) {
        *self.echoes.lock().unwrap() = true;
    }

    /// Blocks every request until [`Twitch::mend`].
    pub(crate) fn unplug(&self) {
        *self.unreachable.lock().unwrap() = true;
    }

    /// Holds back the next answer of the endpoint after it took effect there.
    pub(crate) fn hold(&self, endpoint: Endpoint) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.gates.lock().unwrap().push_back((endpoint, Arc::clone(&gate)));
        gate
    }

    /// Rewrites every good answer of the endpoint until [`Twitch::mend`].
    pub(crate) fn rewrite(&self, endpoint: Endpoint, change: impl Fn(&mut Value) + Send + 'static) {
        self.rewrites.lock().unwrap().push((endpoint, Box::new(change)));
    }

    pub(crate) fn calls(&self, endpoint: Endpoint) -> u64 {
        self.mock().calls(endpoint)
    }

    pub(crate) fn refreshes(&self) -> u64 {
        self.mock().token_calls("refresh_token")
    }

    /// Returns when refreshes arrived since the log was cleared, in Unix milliseconds.
    pub(crate) fn refresh_times(&self) -> Vec<i64> {
        let refreshed =
            |entry: &&claviger_mock::LogEntry| entry.grant_type.as_deref() == Some("refresh_token");
        self.mock().log().filter(refreshed).map(|entry| entry.at_ms).collect()
    }

    /// Returns when validations arrived since the log was cleared, in Unix milliseconds.
    pub(crate) fn validation_times(&self) -> Vec<i64> {
        self.validated.lock().unwrap().clone()
    }

    /// Forgets what arrived so far.
    pub(crate) fn clear_log(&self) {
        self.mock().clear_log();
        self.validated.lock().unwrap().clear();
    }

    /// Returns how often this token was validated since the log was cleared.
    pub(crate) fn validations_of(&self, token: &str) -> usize {
        let mock = self.mock();
        let name = mock.fingerprint(token);
        let of_it = |entry: &&claviger_mock::LogEntry| {
            entry.endpoint == Endpoint::Validate && entry.token.as_ref() == Some(&name)
        };
        mock.log().filter(of_it).count()
    }

    /// Answers every validation of this token like this until [`Twitch::mend`].
    pub(crate) fn trouble_with(&self, token: &str, failure: OneToken) {
        self.troubled.lock().unwrap().push((format!("OAuth {token}"), failure));
    }

    /// Returns whether the provider accepts this access token. Faults do not apply.
    pub(crate) fn lives(&self, token: &str) -> bool {
        let request = Request::get("/helix/users")
            .header("authorization", format!("Bearer {token}"))
            .header("client-id", DEMO_CLIENT_ID)
            .body(Bytes::new())
            .unwrap();
        let now_ms = self.clock.true_now().as_millis();
        self.mock().handle(&request, now_ms).response.status() == StatusCode::OK
    }

    /// Follows a browser to the authorization page and back to the app.
    pub(crate) fn authorize(&self, location: &str) -> Callback {
        let request = Request::get(location).body(Bytes::new()).unwrap();
        let reply = self.mock().handle(&request, self.clock.true_now().as_millis());
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
            address: None,
        }
    }

    /// Returns every secret seen so far.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.secrets.lock().unwrap().clone()
    }

    /// Records a refresh token that was sent and may be spent, as far as its sender knows.
    fn note_send(&self, request: &Request<Bytes>, status: Option<StatusCode>) {
        let nothing_done = |status: StatusCode| matches!(status.as_u16(), 402..=499 | 501 | 503);
        let mut form = url::form_urlencoded::parse(request.body());
        if let Some((_, token)) = form.find(|(name, _)| name == "refresh_token")
            && !status.is_some_and(nothing_done)
        {
            *self.sends.lock().unwrap().entry(token.into_owned()).or_default() += 1;
        }
    }

    /// Returns the most times that any refresh token was sent and possibly spent.
    pub(crate) fn most_sends(&self) -> u32 {
        self.sends.lock().unwrap().values().copied().max().unwrap_or_default()
    }

    /// Returns how many refresh tokens were sent a second time.
    pub(crate) fn sent_again(&self) -> usize {
        self.sends.lock().unwrap().values().filter(|sends| **sends > 1).count()
    }

    fn trouble_of(&self, request: &Request<Bytes>) -> Option<OneToken> {
        let shown = request.headers().get("authorization")?.to_str().ok()?;
        let troubled = self.troubled.lock().unwrap();
        troubled.iter().find(|(token, _)| token == shown).map(|(_, failure)| *failure)
    }

    /// Delays every answer by this much from now on.
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
            let now_ms = self.clock.true_now().as_millis();
            self.mock().handle(&request, now_ms)
        };
        if endpoint == Some(Endpoint::Validate) {
            self.validated.lock().unwrap().push(self.clock.true_now().as_millis());
        }
        if *self.echoes.lock().unwrap() && endpoint == Some(Endpoint::Token) {
            let sent: Vec<_> =
                url::form_urlencoded::parse(request.body()).map(|(_, value)| value.into_owned()).collect();
            let refusal = serde_json::json!({ "error": "slow_down", "message": sent.join(" ") });
            reply.response = Response::builder().status(429).body(refusal.to_string().into()).unwrap();
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
        recorded::provider_call(&request, &reply.response);
        tokio::time::sleep(reply.delay.min(limits::PROVIDER_ANSWER)).await;
        if heard { Ok(reply.response) } else { Err(Unanswered::NoAnswer) }
    }
}
