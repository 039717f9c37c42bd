//! The mock as a plain value: a request and a time go in, a reply comes out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use crate::config::{Client, Config, Settings, User};
use crate::eventsub::{Eventsub, SubscriptionType};
use crate::exchange::{self, Answer, Call, Refusal};
use crate::faults::{self, Fault, FaultKind, Faults, Plan};
use crate::helix::Buckets;
use crate::limits;
use crate::log::{Counters, Endpoint, Log, LogEntry, Outcome};
use crate::oauth::signing::Signing;
use crate::oauth::token::grant_type_name;
use crate::secret::Mint;
use crate::state::{AccessToken, OidcRequest, Pair, SignIn, State};

/// A local Twitch without clock, randomness or IO.
///
/// The same seed and the same calls give the same tokens; only the key that signs id_tokens is
/// random.
pub struct MockTwitch {
    initial: Config,
    pub(crate) clients: BTreeMap<String, Client>,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) settings: Settings,
    pub(crate) mint: Mint,
    pub(crate) signing: Signing,
    pub(crate) state: State,
    pub(crate) buckets: Buckets,
    pub(crate) faults: Faults,
    pub(crate) eventsub: Eventsub,
    pub(crate) log: Log,
    /// What the last order on the page did, until it is shown.
    pub(crate) said: Option<String>,
    pub(crate) last_now_ms: i64,
}

/// What the socket does with a request.
pub struct Reply {
    /// The answer; not sent if the connection closes.
    pub response: Response<Bytes>,
    /// How long to wait before answering or closing.
    pub delay: Duration,
    /// What happens to the connection.
    pub connection: Connection,
}

/// What happens to the connection of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The answer is sent and the connection stays.
    Keep,
    /// Nothing is sent.
    CloseWithoutAnswer,
}

/// Tokens handed out by [`MockTwitch::sign_in`].
#[derive(Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// The access token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: String,
    /// Lifetime of the access token in seconds.
    pub expires_in_secs: u32,
}

impl fmt::Debug for MockTwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockTwitch")
            .field("clients", &self.clients.len())
            .field("users", &self.users.len())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.response.status())
            .field("delay", &self.delay)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("expires_in_secs", &self.expires_in_secs).finish_non_exhaustive()
    }
}

impl MockTwitch {
    /// A mock with these clients, users and settings. The seed determines the tokens.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut mock = Self {
            initial: config,
            clients: BTreeMap::new(),
            users: BTreeMap::new(),
            settings: Settings::default(),
            mint: Mint::new(seed),
            signing: Signing::default(),
            state: State::default(),
            buckets: Buckets::default(),
            faults: Faults::default(),
            eventsub: Eventsub::default(),
            log: Log::default(),
            said: None,
            last_now_ms: 0,
        };
        mock.reset();
        mock
    }

    /// Answers one request that arrives at `now_ms`, in Unix milliseconds.
    pub fn handle(&mut self, request: &Request<Bytes>, now_ms: i64) -> Reply {
        self.last_now_ms = now_ms;
        let mut call = Call::new(request, now_ms);
        let Some(endpoint) = Endpoint::of_path(request.uri().path()) else {
            let answer =
                if request.body().len() > limits::BODY_BYTES { too_large() } else { self.control(&mut call) };
            let response = exchange::dated(answer, now_ms);
            return Reply { response, delay: Duration::ZERO, connection: Connection::Keep };
        };
        if endpoint == Endpoint::Token {
            call.note.grant_type = call.params.get("grant_type").map(|name| grant_type_name(name).to_owned());
        }
        let plan = self.faults.plan(endpoint, call.params.get("grant_type"));
        let (response, outcome) = self.answer(&mut call, endpoint, &plan);
        self.record(call, endpoint, outcome, plan.is_faulty());
        let connection = match outcome {
            Outcome::Answered(_) => Connection::Keep,
            Outcome::ClosedBefore | Outcome::ClosedAfter(_) => Connection::CloseWithoutAnswer,
        };
        Reply { response: exchange::dated(response, now_ms), delay: plan.delay, connection }
    }

    fn answer(&mut self, call: &mut Call<'_>, endpoint: Endpoint, plan: &Plan) -> (Answer, Outcome) {
        let mut answer = match &plan.kind {
            Some(FaultKind::CloseBefore) => {
                return (exchange::empty(StatusCode::BAD_GATEWAY), Outcome::ClosedBefore);
            }
            Some(FaultKind::Status { status, body, retry_after }) => {
                faults::status_answer(*status, body, *retry_after, call.now_ms)
            }
            Some(FaultKind::Malformed { body }) => faults::malform(self.route(call, endpoint), *body),
            Some(FaultKind::CloseAfter) => {
                let answer = self.route(call, endpoint);
                let outcome = Outcome::ClosedAfter(answer.status().as_u16());
                return (answer, outcome);
            }
            Some(FaultKind::Delay { .. } | FaultKind::Change(_)) | None => self.route(call, endpoint),
        };
        plan.changes.iter().for_each(|change| change.apply(&mut answer));
        let outcome = Outcome::Answered(answer.status().as_u16());
        (answer, outcome)
    }

    fn route(&mut self, call: &mut Call<'_>, endpoint: Endpoint) -> Answer {
        if call.request.body().len() > limits::BODY_BYTES {
            return too_large();
        }
        let answer = match endpoint {
            Endpoint::Authorize => Ok(self.authorize(call)),
            Endpoint::Token => self.token(call),
            Endpoint::Validate => self.validate(call),
            Endpoint::Revoke => self.revoke(call),
            Endpoint::OpenidConfiguration => Ok(self.openid_configuration(call)),
            Endpoint::Keys => self.keys(call),
            Endpoint::Userinfo => self.userinfo(call),
            Endpoint::HelixUsers
            | Endpoint::HelixAuthorizationUsers
            | Endpoint::HelixSubscriptions
            | Endpoint::HelixEventsubSubscriptions => self.helix(call, endpoint),
            Endpoint::Connections => Ok(self.connections(call)),
            Endpoint::Unknown => Ok(exchange::not_found()),
        };
        answer.unwrap_or_else(Refusal::into_answer)
    }

    fn record(&mut self, call: Call<'_>, endpoint: Endpoint, outcome: Outcome, faulty: bool) {
        let note = call.note;
        self.log.add(LogEntry {
            sequence: 0,
            at_ms: call.now_ms,
            endpoint,
            method: method_name(call.request.method()).to_owned(),
            outcome,
            faulty,
            grant_type: note.grant_type,
            client_id: note.client_id,
            user_id: note.user_id,
            token: note.token,
            reused: note.reused,
        });
    }

    /// A live access token that reads know already (`token_lag_ms`). The log gets its client and
    /// user.
    pub(crate) fn live_token(&self, presented: &str, call: &mut Call<'_>) -> Option<&AccessToken> {
        let token = self.state.access(presented, call.now_ms)?;
        if token.known_from_ms > call.now_ms {
            return None;
        }
        call.note.client_id = Some(token.sign_in.pair.client_id.clone());
        call.note.user_id = token.sign_in.pair.user_id.clone();
        Some(token)
    }

    /// The id of a registered client, for the log; anything else could be a secret put in the wrong
    /// place.
    pub(crate) fn known_client(&self, client_id: &str) -> Option<String> {
        self.clients.get(client_id).map(|client| client.client_id.clone())
    }

    /// The address of the mock as the caller knows it.
    pub(crate) fn base_url(&self, call: &Call<'_>) -> String {
        match (&self.initial.public_url, call.header(http::header::HOST)) {
            (Some(url), _) => url.clone(),
            (None, Some(host)) => format!("http://{host}"),
            (None, None) => "http://localhost".to_owned(),
        }
    }
}

/// Calls for tests and the control API, besides requests.
impl MockTwitch {
    /// Restores the initial clients, users and settings, and forgets tokens, faults, subscriptions,
    /// log and totals.
    pub fn reset(&mut self) {
        let by_id = self.initial.clients.iter().map(|client| (client.client_id.clone(), client.clone()));
        self.clients = by_id.collect();
        self.users = self.initial.users.iter().map(|user| (user.id.clone(), user.clone())).collect();
        self.settings = self.initial.settings.clone();
        self.state = State::default();
        self.buckets = Buckets::default();
        self.faults = Faults::default();
        self.eventsub.clear();
        self.log = Log::default();
    }

    /// Sets the time, in Unix milliseconds, for changes that happen without a request.
    pub fn set_now(&mut self, now_ms: i64) {
        self.last_now_ms = now_ms;
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings, to be changed.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Registers a client, or replaces the one with the same id.
    pub fn add_client(&mut self, client: Client) {
        self.clients.insert(client.client_id.clone(), client);
    }

    /// Adds a user, or replaces the one with the same id.
    pub fn add_user(&mut self, user: User) {
        self.users.insert(user.id.clone(), user);
    }

    pub(crate) fn end_connection(&mut self, pair: &Pair) -> bool {
        let was_connected = self.state.disconnect(pair);
        if was_connected {
            self.announce(SubscriptionType::UserAuthorizationRevoke, pair);
        }
        was_connected
    }

    /// The registered clients.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    /// The people who can sign in.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// Adds a fault.
    pub fn add_fault(&mut self, fault: Fault) {
        self.faults.add(fault);
    }

    /// The faults that still apply.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.list()
    }

    /// Ends the fault at this place of the list, and returns whether there was one.
    pub fn remove_fault(&mut self, index: usize) -> bool {
        self.faults.remove(index)
    }

    /// Ends all faults.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// The newest requests, oldest first.
    pub fn log(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.log.entries()
    }

    /// Forgets the log; totals stay.
    pub fn clear_log(&mut self) {
        self.log.clear();
    }

    /// Totals of all requests since the start or the last reset.
    pub fn counters(&self) -> &Counters {
        self.log.counters()
    }

    /// Number of calls of an endpoint.
    pub fn calls(&self, endpoint: Endpoint) -> u64 {
        self.counters().endpoints.get(&endpoint).copied().unwrap_or(0)
    }

    /// Number of calls of `/oauth2/token` with a grant type.
    pub fn token_calls(&self, grant_type: &str) -> u64 {
        self.counters().grant_types.get(grant_type).copied().unwrap_or(0)
    }

    /// The name of a token in the log.
    pub fn fingerprint(&self, token: &str) -> String {
        self.mint.fingerprint(token)
    }

    /// The user disconnects an app: all tokens between the two die (Twitch docs: authentication),
    /// and the app's subscribers are notified.
    pub fn disconnect(&mut self, user_id: &str, client_id: &str) -> bool {
        self.end_connection(&Pair::user(client_id, user_id))
    }

    /// Whether the user has authorized the app.
    pub fn is_connected(&self, user_id: &str, client_id: &str) -> bool {
        self.state.authorized_scopes(&Pair::user(client_id, user_id)).is_some()
    }

    /// Ends all access tokens of a user; refresh tokens still work. Returns how many ended.
    pub fn expire_access_tokens(&mut self, user_id: &str) -> usize {
        self.state.expire_access(user_id)
    }

    /// Kills all access and refresh tokens of a user, as a changed password does; authorizations
    /// stay.
    pub fn kill_tokens(&mut self, user_id: &str) -> usize {
        self.state.pairs_of(user_id).iter().map(|pair| self.state.kill_tokens(pair)).sum()
    }

    /// Kills one access or refresh token; says whether it lived.
    pub fn kill_token(&mut self, token: &str) -> bool {
        self.state.kill(token)
    }

    /// Number of live access tokens of a user, at the time that was set last.
    pub fn live_access_tokens(&self, user_id: &str) -> usize {
        let of_user = |token: &AccessToken| token.sign_in.pair.user_id.as_deref() == Some(user_id);
        self.state.live_access(self.last_now_ms).filter(|(_, token)| of_user(token)).count()
    }

    /// Number of live refresh tokens of a user.
    pub fn live_refresh_tokens(&self, user_id: &str) -> usize {
        let of_user = |pair: &Pair| pair.user_id.as_deref() == Some(user_id);
        self.state.live_refresh().filter(|(_, token)| of_user(&token.sign_in.pair)).count()
    }

    /// The user authorizes an app. Subscribers are notified if that is new, or if the user was
    /// asked.
    pub(crate) fn grant(&mut self, pair: &Pair, scopes: &[String], was_asked: bool) {
        let is_new = self.state.authorized_scopes(pair).is_none();
        self.state.authorize(pair, scopes);
        if is_new || was_asked {
            self.announce(SubscriptionType::UserAuthorizationGrant, pair);
        }
    }

    /// Signs a user in without a browser; `None` if client or user is unknown.
    pub fn sign_in(
        &mut self,
        user_id: &str,
        client_id: &str,
        scopes: &[&str],
        now_ms: i64,
    ) -> Option<SignedIn> {
        if !self.users.contains_key(user_id) || !self.clients.contains_key(client_id) {
            return None;
        }
        self.last_now_ms = now_ms;
        let pair = Pair::user(client_id, user_id);
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.grant(&pair, &scopes, false);
        let family = self.state.new_family();
        let sign_in = SignIn { pair, scopes, oidc: OidcRequest::default(), family };
        let refresh_token = self.mint.refresh_token(self.settings.awkward_refresh_tokens);
        self.state.add_refresh(refresh_token.clone(), sign_in.clone());
        let expires_in_secs = self.settings.token_lifetime_secs;
        let access_token = self.add_access_token(sign_in, expires_in_secs, now_ms);
        Some(SignedIn { access_token, refresh_token, expires_in_secs })
    }

    /// Replaces the key that signs id_tokens.
    pub fn rotate_signing_key(&mut self) {
        self.signing.rotate();
    }
}

fn method_name(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn too_large() -> Answer {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request body too large").into_answer()
}
