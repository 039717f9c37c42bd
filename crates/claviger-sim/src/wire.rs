//! The provider, and each instance's way to it: the mock's pure handler behind a network that
//! loses, delays and breaks.
//!
//! A request that was sent continues even if its sender dies. The network sends some requests
//! twice: validations, revocations, and refreshes that spend nothing. It does not do that with
//! one-time tokens, since no client could survive it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use claviger_core::{AuthorizationCode, ProviderHabits, Rotation, Timestamp, limits};
use claviger_engine::{Callback, ProviderHttp};
use claviger_mock::{Config, Connection, Endpoint, Fault, FaultKind, MockTwitch, Settings};
use claviger_provider::Unanswered;
use http::{Request, Response, StatusCode};
use tokio::sync::{Notify, oneshot};

use crate::{
    fate::{CLOCKS_APART, Fate, Point, START},
    ledger::Ledger,
    plan::{Offers, Plan},
    record::Record,
    rng::Rng,
    spent::{self, Heard, Sent},
    spread::Spread,
    variant::Variant,
};

pub(crate) struct Provider {
    mock: Mutex<MockTwitch>,
    ledger: Arc<Ledger>,
    record: Arc<Record>,
    rng: Arc<Rng>,
    habits: ProviderHabits,
    offers: Offers,
    network: Mutex<Network>,
    facts: Mutex<Facts>,
    spread: Mutex<SpreadWatch>,
    /// SPREAD needs clocks that agree.
    /// Wakes the delivery of webhook events.
    pub(crate) mail: Notify,
}

/// The state of the network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Network {
    /// No request leaves.
    pub(crate) unplugged: bool,
    /// Requests and answers may take longer than anybody waits.
    pub(crate) slow: bool,
    /// Requests per thousand that never arrive, and as many answers.
    pub(crate) loses_permille: u64,
}

#[derive(Default)]
struct Facts {
    /// Refresh tokens whose answer is awaited.
    awaited: Vec<Awaited>,
    /// How often a spent refresh token arrived.
    reused: BTreeMap<String, u32>,
    /// Pairs whose answer reached a process.
    delivered: Vec<Delivered>,
    /// The refresh token issued with each access token.
    issued: BTreeMap<String, String>,
    /// Refresh tokens that a refresh spent.
    spent: BTreeSet<String>,
}

/// A refresh token whose answer is awaited: by whom, and since when.
struct Awaited {
    token: String,
    by: Arc<Fate>,
    since: Duration,
}

/// A pair whose answer reached a process.
#[derive(Clone)]
pub(crate) struct Delivered {
    pub(crate) access: String,
    pub(crate) to: Arc<Fate>,
}

impl Provider {
    pub(crate) fn new(
        plan: &Plan,
        settings: Settings,
        spread: Spread,
        ledger: Arc<Ledger>,
        record: Arc<Record>,
        rng: Arc<Rng>,
    ) -> Self {
        let mock = MockTwitch::new(Config::strict().settings(|own| *own = settings), plan.seed);
        Self {
            mock: Mutex::new(mock),
            ledger,
            record,
            rng,
            habits: plan.habits,
            offers: plan.offers,
            network: Mutex::default(),
            facts: Mutex::default(),
            spread: Mutex::new(SpreadWatch { spread, judged_from: Some(Duration::ZERO) }),
            mail: Notify::new(),
        }
    }

    pub(crate) fn mock(&self) -> MutexGuard<'_, MockTwitch> {
        self.mock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_network(&self, change: impl FnOnce(&mut Network)) {
        change(&mut self.network.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn network(&self) -> Network {
        *self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the mock directly, without a request.
    pub(crate) fn beside<T>(&self, work: impl FnOnce(&mut MockTwitch) -> T) -> T {
        let mut mock = self.mock();
        mock.set_now(self.now().as_millis());
        let done = work(&mut mock);
        drop(mock);
        self.mail.notify_one();
        done
    }

    /// Makes the next calls fail like this.
    pub(crate) fn fails(&self, endpoint: Endpoint, kind: FaultKind, calls: u32) {
        let fault = Fault::times(calls, endpoint, kind);
        self.mock().add_fault(fault);
    }

    pub(crate) fn fails_until_mended(&self, endpoint: Endpoint, kind: FaultKind) {
        self.mock().add_fault(Fault::always(endpoint, kind));
    }

    pub(crate) fn mend(&self) {
        let mut mock = self.mock();
        mock.clear_faults();
        mock.settings_mut().token_lag_ms = 0;
        drop(mock);
        self.set_network(|network| *network = Network::default());
    }

    pub(crate) fn delivered(&self) -> Vec<Delivered> {
        self.facts().delivered.clone()
    }

    /// Returns whether the provider accepts this access token. Faults apply.
    pub(crate) fn takes(&self, token: &str) -> bool {
        let request = Request::get("/oauth2/validate").header("authorization", format!("OAuth {token}"));
        let Ok(request) = request.body(Bytes::new()) else { return false };
        self.handle(&request).0.response.status() == StatusCode::OK
    }

    /// Returns whether the user has the app connected.
    pub(crate) fn connected(&self, user: &str) -> bool {
        self.mock().is_connected(user, claviger_mock::DEMO_CLIENT_ID)
    }

    /// Returns whether the user exists.
    pub(crate) fn exists(&self, user: &str) -> bool {
        self.mock().users().any(|own| own.id == user)
    }

    /// Sends a browser to the authorization page, where this user agrees at once, and back.
    pub(crate) fn authorize(&self, user: &str, location: &str) -> Option<Callback> {
        self.mock().settings_mut().authorize_at_once_as = Some(user.to_owned());
        let request = Request::get(location).body(Bytes::new()).ok()?;
        let (reply, _) = self.handle(&request);
        let back = reply.response.headers().get(http::header::LOCATION)?.to_str().ok()?.to_owned();
        let back = url::Url::parse(&back).ok()?;
        let param = |name: &str| back.query_pairs().find(|(key, _)| key == name).map(|(_, v)| v.into_owned());
        Some(Callback {
            state: param("state").unwrap_or_default(),
            code: param("code").map(AuthorizationCode::new),
            error: param("error"),
            iss: param("iss"),
            address: None,
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        START.after(self.record.elapsed())
    }

    /// Handles a request. Returns whether it brought a spent refresh token.
    fn handle(&self, request: &Request<Bytes>) -> (claviger_mock::Reply, bool) {
        let now_ms = self.now().as_millis();
        let mut mock = self.mock();
        let reply = mock.handle(request, now_ms);
        let reused = mock.log().next_back().is_some_and(|entry| entry.reused);
        drop(mock);
        self.mail.notify_one();
        (reply, reused)
    }

    /// Returns whether a refresh has spent the refresh token that came with this access token. Only
    /// one-time tokens can be spent.
    pub(crate) fn spent(&self, access: &str) -> bool {
        let facts = self.facts();
        self.habits.rotation == Rotation::OneTime
            && facts.issued.get(access).is_some_and(|refresh| facts.spent.contains(refresh))
    }

    /// A request arrives.
    fn arrive(&self, request: &Request<Bytes>, refresh_token: Option<&str>) -> claviger_mock::Reply {
        let (reply, reused) = self.handle(request);
        if let Some((access, refresh)) = pair_of(&reply.response) {
            let mut facts = self.facts();
            if let Some(sent) = refresh_token.filter(|sent| *sent != refresh) {
                facts.spent.insert(sent.to_owned());
            }
            self.ledger.issued(access.clone());
            facts.issued.insert(access, refresh);
        }
        if let Some(token) = refresh_token.filter(|_| reused) {
            self.record.count("provider: spent token arrived", 8);
            let mut facts = self.facts();
            let times = facts.reused.entry(token.to_owned()).or_default();
            *times += 1;
            let allowed = match self.habits.rotation {
                Rotation::None => u32::MAX,
                Rotation::Rotates | Rotation::OneTime => u32::from(!self.habits.replay_window.is_zero()),
            };
            if *times > allowed {
                self.record.violate("SPENT", format!("a spent refresh token arrived {times} times"));
            }
        }
        reply
    }

    /// SPENT: no refresh token is sent while a living holder of the lease awaits its answer.
    fn awaits(&self, token: &str, fate: &Arc<Fate>) {
        let since = self.record.elapsed();
        // The clocks of two instances may differ by a few seconds.
        let leased = limits::CLAIM_LEASE.saturating_sub(Duration::from_secs(5));
        let mut facts = self.facts();
        let in_flight =
            |other: &Awaited| other.token == token && other.by.alive() && since - other.since < leased;
        if facts.awaited.iter().any(in_flight) {
            self.record.violate("SPENT", "a refresh token was sent while its answer was awaited");
        }
        facts.awaited.push(Awaited { token: token.to_owned(), by: Arc::clone(fate), since });
    }

    fn awaits_no_more(&self, token: &str, fate: &Arc<Fate>) {
        let mut facts = self.facts();
        let index =
            facts.awaited.iter().position(|other| other.token == token && Arc::ptr_eq(&other.by, fate));
        if let Some(index) = index {
            facts.awaited.swap_remove(index);
        }
    }

    /// SPREAD: counts a validation against the budget.
    fn validates(&self) {
        let now = self.record.elapsed();
        let mut watch = self.spread.lock().unwrap_or_else(PoisonError::into_inner);
        let is_judged = watch.judged_from.is_some_and(|from| from <= now);
        if is_judged && !watch.spread.sent(now) {
            self.record.violate("SPREAD", "more validations were sent than the budget allows");
        }
    }

    /// Checks SPREAD afresh, or not while clocks are wrong. What an instance reserved by a wrong
    /// clock, or beside it, may still be used for a moment.
    pub(crate) fn watch_spread(&self, clocks_are_right: bool) {
        let from = self.record.elapsed() + limits::RATE_LIMIT_AHEAD + limits::RATE_LIMIT_LATE + CLOCKS_APART;
        let mut watch = self.spread.lock().unwrap_or_else(PoisonError::into_inner);
        watch.spread.forget();
        watch.judged_from = clocks_are_right.then_some(from);
    }

    /// CAPABILITY: no endpoint is called that the provider lacks. A sign-in may ask whose its new
    /// token is: every provider answers that.
    fn check_capabilities(&self, validates: bool, request: &Request<Bytes>) {
        let revokes = Endpoint::of_path(request.uri().path()) == Some(Endpoint::Revoke);
        if (validates && !self.offers.validation) || (revokes && !self.offers.revocation) {
            self.record.violate("CAPABILITY", format!("{} was called", request.uri().path()));
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The judge of SPREAD.
struct SpreadWatch {
    spread: Spread,
    /// Since the history began. None while clocks are wrong.
    judged_from: Option<Duration>,
}

/// One instance's way to the provider.
pub(crate) struct Wire {
    pub(crate) provider: Arc<Provider>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) fate: Arc<Fate>,
    pub(crate) variant: Variant,
}

impl Wire {
    fn may_arrive_twice(&self, request: &Request<Bytes>) -> bool {
        match Endpoint::of_path(request.uri().path()) {
            Some(Endpoint::Validate | Endpoint::Revoke) => true,
            Some(Endpoint::Token) => {
                self.provider.habits.rotation == Rotation::None && refresh_token_of(request).is_some()
            }
            _ => false,
        }
    }

    /// Sends the request, and waits for its answer as long as the engine's client does.
    async fn exchange(
        &self,
        request: Request<Bytes>,
        refresh_token: Option<String>,
    ) -> Result<Response<Bytes>, Unanswered> {
        let network = self.provider.network();
        if network.unplugged {
            self.fate.record.count("fault: provider unreachable", self.fate.who);
            return Err(Unanswered::NotSent);
        }
        let refreshes = refresh_token.is_some();
        let sent = refresh_token.as_deref().and_then(|token| self.ledger.leaves(self.fate.who, token));
        let (answer, awaited) = oneshot::channel();
        if self.may_arrive_twice(&request) && self.fate.rng.chance(60) {
            self.fate.record.count("network: request sent twice", self.fate.who);
            let (unheard, _) = oneshot::channel();
            let provider = Arc::clone(&self.provider);
            tokio::spawn(travel(provider, network, request.clone(), refresh_token.clone(), unheard));
        }
        tokio::spawn(travel(Arc::clone(&self.provider), network, request, refresh_token, answer));
        if refreshes {
            self.fate.pass(Point::RequestSent).await;
        }
        let answer = tokio::time::timeout(limits::PROVIDER_ANSWER, awaited).await;
        if refreshes {
            self.fate.pass(Point::AnswerUnheard).await;
        }
        self.fate.live_on().await;
        let answer = answer.ok().and_then(Result::ok).ok_or(Unanswered::NoAnswer);
        if answer.is_err() {
            self.fate.record.count("fault: no answer", self.fate.who);
        }
        if let Some(sent) = sent {
            self.note_answer(sent, &answer);
        }
        answer
    }

    /// Records what the sender of a refresh token received.
    fn note_answer(&self, sent: Sent, answer: &Result<Response<Bytes>, Unanswered>) {
        let heard = spent::heard(answer, &self.provider.habits);
        self.ledger.heard(sent, heard);
        let issued = answer.as_ref().ok().and_then(pair_of).is_some();
        match heard {
            _ if !sent.again => {}
            Heard::TurnedAway => self.fate.record.count("replay: turned away", self.fate.who),
            Heard::Anything if issued => self.fate.record.count("replay: a pair", self.fate.who),
            Heard::Anything => self.fate.record.count("replay: used up without a pair", self.fate.who),
        }
    }
}

/// Carries a request to the provider and its answer back, even if nobody waits.
async fn travel(
    provider: Arc<Provider>,
    network: Network,
    request: Request<Bytes>,
    refresh_token: Option<String>,
    answer: oneshot::Sender<Response<Bytes>>,
) {
    let longest = Duration::from_millis(if network.slow { 9_000 } else { 200 });
    tokio::time::sleep(provider.rng.span(Duration::from_millis(1), longest)).await;
    if network.slow && provider.rng.chance(200) {
        // It arrives after its sender has given up, and perhaps after the lease.
        provider.record.count("fault: request late", 8);
        tokio::time::sleep(provider.rng.span(limits::PROVIDER_ANSWER, limits::CLAIM_LEASE * 3)).await;
    }
    if network.loses_permille > 0 && provider.rng.chance(network.loses_permille) {
        return provider.record.count("fault: request lost", 8);
    }
    let reply = provider.arrive(&request, refresh_token.as_deref());
    tokio::time::sleep(reply.delay + provider.rng.span(Duration::from_millis(1), longest)).await;
    if network.loses_permille > 0 && reply.response.status() == StatusCode::OK && provider.rng.chance(200) {
        provider.record.count("fault: gateway error after the deed", 8);
        let mut broken = Response::new(Bytes::new());
        // Where reuse is harmful, the engine does not trust a 503 without Retry-After either.
        let either = provider.habits.reuse_is_harmful() && provider.rng.chance(500);
        *broken.status_mut() = if either { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_GATEWAY };
        let _ = answer.send(broken);
        return;
    }
    let lost = network.loses_permille > 0 && provider.rng.chance(network.loses_permille);
    if lost || reply.connection == Connection::CloseWithoutAnswer {
        return provider.record.count("fault: answer lost", 8);
    }
    // The receiver may be gone.
    let _ = answer.send(reply.response);
}

#[async_trait]
impl ProviderHttp for Wire {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        self.fate.live_on().await;
        // A sign-in validates its token before any row holds it; that is not part of the budget.
        let asks = validated(&request).is_some_and(|token| self.ledger.owner(&token).is_some());
        if asks {
            self.provider.validates();
        }
        self.provider.check_capabilities(asks, &request);
        let (refresh_token, gone_before) = (refresh_token_of(&request), self.fate.gone());
        if let Some(token) = &refresh_token {
            self.fate.pass(Point::RequestUnsent).await;
            self.provider.awaits(token, &self.fate);
        }
        let mut answer = self.exchange(request.clone(), refresh_token.clone()).await;
        if self.variant == Variant::RetriesLostAnswer
            && refresh_token.is_some()
            && matches!(answer, Err(Unanswered::NoAnswer))
        {
            answer = self.exchange(request, refresh_token.clone()).await;
        }
        if let Some(token) = &refresh_token {
            self.provider.awaits_no_more(token, &self.fate);
        }
        if let Some((access, _)) = answer.as_ref().ok().and_then(pair_of) {
            self.provider.facts().delivered.push(Delivered { access, to: Arc::clone(&self.fate) });
        }
        if self.variant == Variant::DropsWithCaller
            && refresh_token.is_some()
            && self.fate.gone() > gone_before
        {
            std::future::pending::<()>().await;
        }
        answer
    }
}

/// Returns the access token that the request validates.
fn validated(request: &Request<Bytes>) -> Option<String> {
    let asks = request.uri().path() == "/oauth2/validate";
    let value = request.headers().get(http::header::AUTHORIZATION).filter(|_| asks)?;
    Some(value.to_str().ok()?.strip_prefix("OAuth ")?.to_owned())
}

fn refresh_token_of(request: &Request<Bytes>) -> Option<String> {
    let mut form = url::form_urlencoded::parse(request.body());
    form.find(|(name, _)| name == "refresh_token").map(|(_, value)| value.into_owned())
}

/// Returns the access and refresh token of an answer.
fn pair_of(answer: &Response<Bytes>) -> Option<(String, String)> {
    let body: serde_json::Value = serde_json::from_slice(answer.body()).ok()?;
    let text = |name| Some(body.get(name)?.as_str()?.to_owned());
    if answer.status() == StatusCode::OK { text("access_token").zip(text("refresh_token")) } else { None }
}
