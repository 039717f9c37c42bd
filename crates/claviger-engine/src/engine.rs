//! The engine: the public calls, each delegated to the part that does it.

use std::sync::Arc;

use bytes::Bytes;
use claviger_core::{
    AccessToken, ApiRefusal, Arrival, Ask, ClientSecret, EndReason, Presence, ReturnTo, Session, SessionId,
    Subject, Timestamp,
};
use claviger_provider::Provider;
use claviger_seal::{CachedToken, Keyring, SessionCookie};
use claviger_store::{Store, StoreError};
use http::HeaderMap;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    AppGrant, Assertion, AtOnce, Callback, Caller, Denied, DestinationError, EndError, Ending,
    FinishedSignIn, Grant, KeyRows, KeysRefused, Load, LoginError, LoginStarted, Parts, Report, Settings,
    StartError, Target, WebhookError, WebhookReply, Wiring, background, jobs_watch::JobsWatch, settings,
};

/// Keeps the sessions of one app. Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    parts: Arc<Wiring>,
    jobs_watch: Arc<JobsWatch>,
}

impl Engine {
    /// Makes an engine, and learns from the store which sessions ended lately. Its background jobs
    /// need [`Engine::run`].
    ///
    /// # Errors
    /// If no engine can work with the settings, or the store cannot be read. One that can be read
    /// serves requests; [`Store::check`] says whether it can be written.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        settings::check(&parts.settings, &parts.provider.client)?;
        Ok(Self { parts: Arc::new(Wiring::new(parts).await?), jobs_watch: Arc::default() })
    }

    /// Runs the background jobs until `stop`. Then it writes down what is in memory and lets tasks
    /// finish, within a time limit.
    pub async fn run(&self, stop: CancellationToken) {
        self.jobs_watch.begin();
        background::run(&self.parts, &stop).await;
        self.drain().await;
    }

    /// Writes down what is in memory and lets tasks finish, within
    /// [`SHUTDOWN_DRAIN`](claviger_core::policy::limits::SHUTDOWN_DRAIN).
    pub async fn drain(&self) {
        background::drain(&self.parts).await;
    }

    /// The provider that users sign in with, and our credentials there as they are now.
    pub fn provider(&self) -> Arc<Provider> {
        self.parts.provider.provider()
    }

    /// What the operator decided.
    pub fn settings(&self) -> &Settings {
        self.parts.env.settings()
    }

    /// The store, for health checks and lists.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.parts.env.now()
    }
}

/// Requests.
impl Engine {
    /// Opens a session cookie.
    ///
    /// # Errors
    /// [`Denied::NoSession`] if it is not one of ours; [`Denied::UnknownKey`] if it may be, under a
    /// key that is missing.
    pub fn open_cookie(&self, value: &str) -> Result<SessionCookie, Denied> {
        self.parts.keys.open_cookie(value)
    }

    /// Says who is calling, with the assurance that the route asks for. An
    /// [`Assurance`](claviger_core::Assurance) alone counts as a use of the session.
    ///
    /// # Errors
    /// See [`Denied`]. Only [`Denied::NoSession`], [`Denied::Ended`] and [`Denied::SignInAgain`]
    /// ask for a new sign-in.
    pub async fn authenticate(&self, cookie: SessionCookie, ask: impl Into<Ask>) -> Result<Caller, Denied> {
        self.parts.authenticator.authenticate(cookie, ask.into()).await
    }

    /// Says who is calling if memory knows enough, so that neither the store nor the provider is
    /// asked. Otherwise the cookie is for [`Engine::authenticate`].
    pub fn authenticate_at_once(&self, cookie: SessionCookie, ask: impl Into<Ask>) -> AtOnce {
        self.parts.authenticator.at_once(cookie, ask.into())
    }

    /// The assertion that tells an app who is calling. None without [`Parts::assertions`].
    ///
    /// # Errors
    /// If it cannot be signed. Nobody is signed out.
    pub fn assertion(&self, caller: &Caller) -> Result<Option<Assertion>, Denied> {
        self.parts.assertions.of(caller)
    }

    /// The public halves of the keys that sign assertions, as a JWK set (RFC 7517). None without
    /// [`Parts::assertions`].
    ///
    /// # Errors
    /// If there are no keys, because those of the store do not open.
    pub fn key_set(&self) -> Result<Option<Bytes>, Denied> {
        self.parts.assertions.key_set()
    }

    /// When idleness ends the session of this row, unless it is used again.
    pub async fn idle_ends_at(&self, row: &Session) -> Timestamp {
        self.parts.authenticator.idle_ends_at(row).await
    }

    /// The caller's access token. A cached token from the browser that belongs to this session and
    /// has not expired saves reading the row.
    ///
    /// # Errors
    /// See [`Engine::authenticate`]; [`Denied::SignInAgain`] if the session keeps no tokens.
    pub async fn grant(
        &self,
        cookie: &SessionCookie,
        cached: Option<CachedToken>,
        presence: Presence,
    ) -> Result<Grant, Denied> {
        self.parts.authenticator.grant(cookie, cached, presence).await
    }

    /// What to do after the provider's API answered 401 to this grant: a grant to try once more
    /// with. None if the refusal is not about the token and belongs to the caller.
    ///
    /// If the row has a newer pair, that is used without another refresh.
    ///
    /// # Errors
    /// See [`Engine::authenticate`].
    pub async fn grant_after_refusal(
        &self,
        cookie: &SessionCookie,
        refused: &Grant,
        refusal: ApiRefusal,
    ) -> Result<Option<Grant>, Denied> {
        self.parts.authenticator.grant_after_refusal(cookie, refused, refusal).await
    }

    /// The cached-token cookie that the browser may carry for its session's pair, if the settings
    /// want one and it fits a cookie.
    pub fn cached_token_cookie(&self, session: SessionId, grant: &Grant) -> Option<String> {
        self.parts.keys.cached_token_cookie(session, grant)
    }

    /// Opens the cached-token cookie. `None` if it does not open.
    pub fn open_cached_token(&self, value: &str) -> Option<CachedToken> {
        self.parts.keys.open_cached_token(value)
    }

    /// The app's own access token (RFC 6749 section 4.4), the same for all callers and instances.
    /// `rejected` is one that the provider answered with 401: then another is returned. Each
    /// instance replaces one a minute because of such reports.
    ///
    /// # Errors
    /// [`Denied::ProviderUnavailable`], also where there is only the rejected one for now;
    /// [`Denied::Misconfigured`], [`Denied::Store`].
    pub async fn app_grant(&self, rejected: Option<AccessToken>) -> Result<AppGrant, Denied> {
        Ok(self.parts.app_token.grant(rejected).await?)
    }

    /// Whether the session may have ended: it did, is suspect, or is too old for memory to know, or
    /// this instance is cut off from the changes of others.
    pub fn doubts(&self, session: SessionId) -> bool {
        self.parts.rows.doubts(session)
    }

    /// Subscribes to the sessions that end, so that open streams of them can be closed. A receiver
    /// that lags behind gets an error and must ask about every session again.
    pub fn endings(&self) -> broadcast::Receiver<Ending> {
        self.parts.rows.endings()
    }
}

/// Sign-ins and sign-outs.
impl Engine {
    /// Begins a sign-in. `ask_again` makes the provider ask even a user who agreed before.
    pub fn begin_login(&self, return_to: ReturnTo, ask_again: bool) -> LoginStarted {
        self.parts.sign_ins.begin(return_to, ask_again)
    }

    /// Begins the repair of the session that this cookie opens. None if it does not need one.
    ///
    /// # Errors
    /// See [`Engine::authenticate`].
    pub async fn begin_repair(
        &self,
        cookie: &SessionCookie,
        return_to: ReturnTo,
    ) -> Result<Option<LoginStarted>, Denied> {
        self.parts.sign_ins.begin_repair(cookie, return_to).await
    }

    /// Finishes a sign-in. `login_cookie` is the value of the cookie with this state's suffix.
    /// `shown` is the session that the same browser shows, which the new one replaces. `user_agent`
    /// is the browser's header.
    ///
    /// # Errors
    /// [`LoginError`]. Then no session begins, and a token that was issued is revoked. No session
    /// ends either, unless the store's answer to the last step was lost: then the replaced session
    /// may have ended.
    pub async fn finish_login(
        &self,
        callback: Callback,
        login_cookie: Option<&str>,
        shown: Option<&SessionCookie>,
        user_agent: &str,
    ) -> Result<FinishedSignIn, LoginError> {
        self.jobs_watch.warn_unless_begun();
        self.parts.sign_ins.finish(callback, login_cookie, shown, user_agent).await
    }

    /// Keeps a destination that is too long for headers and cookies, and returns its reference.
    /// None if it cannot be kept.
    pub async fn keep_destination(&self, destination: &ReturnTo) -> Option<String> {
        self.parts.destinations.keep(destination).await
    }

    /// The destination that was kept under this reference. None if it is not known any more.
    ///
    /// # Errors
    /// See [`DestinationError`].
    pub async fn kept_destination(
        &self,
        reference: &str,
        arrival: Arrival,
    ) -> Result<Option<ReturnTo>, DestinationError> {
        self.parts.destinations.find(reference, arrival).await
    }

    /// Whether the sign-in of this cookie leads to that address. It may be over.
    pub fn login_leads_to(&self, login_cookie: &str, address: &str) -> bool {
        self.parts.sign_ins.leads_to(login_cookie, address)
    }

    /// Where a callback's sign-in leads, whether it is still open or not. None if this browser
    /// began no such sign-in.
    pub fn login_destination(&self, state: &str, login_cookie: Option<&str>) -> Option<ReturnTo> {
        self.parts.sign_ins.destination(state, login_cookie)
    }

    /// Ends the sessions and gives how many had not ended before. It is safe to repeat.
    ///
    /// When it returns, the end is durable, no request of this process is served with them any
    /// more, and their revocations are in the outbox. A failure of the provider neither delays nor
    /// undoes it. What another instance ended before, this process learns when it reads the rows.
    ///
    /// # Errors
    /// [`EndError::NotFound`] for a single session that does not exist or is not the user's. If the
    /// store fails, some or all may have ended: repeat it.
    pub async fn end(&self, target: Target, reason: EndReason) -> Result<usize, EndError> {
        self.parts.sign_out.end(target, reason).await
    }

    /// Ends the session that this cookie opens. A cookie that only names it ends nothing.
    ///
    /// # Errors
    /// [`EndError::NotFound`] if there is no such session.
    pub async fn end_own(&self, cookie: &SessionCookie, reason: EndReason) -> Result<usize, EndError> {
        self.parts.sign_out.end_own(cookie, reason).await
    }

    /// The sessions of a user that have not ended, last used first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn devices(&self, subject: &Subject) -> Result<Vec<Session>, StoreError> {
        self.parts.rows.devices(subject).await
    }

    /// Whether the provider is to send webhook events.
    pub fn wants_webhook_events(&self) -> bool {
        self.parts.webhook_events.wanted()
    }

    /// Takes in a webhook event. When it returns, the event is written down; the work follows after
    /// it.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub async fn take_webhook_event(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<WebhookReply, WebhookError> {
        self.parts.webhook_events.take(headers, body).await
    }
}

/// Keys.
impl Engine {
    /// Uses other keys for whatever is sealed or opened from now on. Requests in flight end with
    /// the keys that they began with.
    ///
    /// # Errors
    /// [`KeysRefused`]: a key is missing that rows need, or is another one than before. Then
    /// nothing is changed.
    pub async fn use_keys(&self, keyring: Keyring) -> Result<(), KeysRefused> {
        self.parts.keys.replace(keyring).await
    }

    /// Uses another client secret for all requests to the provider from now on.
    pub async fn use_client_secret(&self, client_secret: ClientSecret) {
        self.parts.provider.use_client_secret(client_secret).await;
    }

    /// Requires that every row, and the keys that sign assertions, can be opened. It scans all
    /// rows.
    ///
    /// # Errors
    /// [`KeysRefused::InUse`] and [`KeysRefused::SignsAssertions`] name a key that is missing.
    /// [`KeysRefused::AssertionKeysDoNotOpen`] if it is another key of the same id.
    pub async fn require_keys(&self) -> Result<(), KeysRefused> {
        self.parts.keys.require_all().await?;
        self.parts.assertions.keys().require().await
    }

    /// Makes new keys that sign assertions, if the stored ones do not open. They are shared, so
    /// call it only if the operator says that the root key is lost: the old ones are then lost for
    /// all instances. Until then, instances that cannot open them answer 503.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn replace_unreadable_signing_keys(&self) -> Result<(), StoreError> {
        self.parts.assertions.keys().replace_unreadable().await
    }

    /// Takes over the keys that sign assertions from other instances, and takes the step of their
    /// rotation that is due.
    ///
    /// # Errors
    /// If the store cannot be used. Then the keys of before are used.
    pub async fn look_at_signing_keys(&self) -> Result<(), StoreError> {
        self.parts.assertions.keys().look().await
    }

    /// Each key of the keyring, and each that rows need, with the rows that it sealed. It scans all
    /// rows.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn keys(&self) -> Result<Vec<KeyRows>, StoreError> {
        self.parts.keys.list().await
    }

    /// The session cookie sealed with the key that seals now, if an older one sealed it and its
    /// session is trusted.
    pub fn reseal_cookie(&self, value: &str) -> Option<String> {
        self.parts.keys.reseal_cookie(value)
    }

    /// Whether a cookie is to be sealed again, by what its header says.
    pub fn is_cookie_outdated(&self, value: &str) -> bool {
        self.parts.keys.keyring().is_cookie_outdated(value)
    }

    /// Whether there may be cookies of older keys. While there is only one key, this is all that
    /// they cost a request.
    pub fn has_older_keys(&self) -> bool {
        self.parts.keys.keyring().has_older()
    }

    /// Seals rows again that older keys sealed, unless another instance does. Gives the number of
    /// rows that are left after it.
    ///
    /// # Errors
    /// If the store cannot be used. The next call goes on from where this one stood.
    pub async fn reseal(&self) -> Result<u64, StoreError> {
        self.parts.resealer.reseal().await
    }
}

/// What the background jobs do, for tests and tools that drive it themselves; and how things are.
impl Engine {
    /// Carries out the revocations that are due, until none is. Gives the number of those that are
    /// done.
    ///
    /// # Errors
    /// If the store cannot be used. Then they stay in the outbox.
    pub async fn carry_out_revocations(&self) -> Result<usize, StoreError> {
        self.parts.outbox.revoke_due().await
    }

    /// Validates the slots that are due, until none is.
    ///
    /// # Errors
    /// If the store cannot be used. The remaining slots are due again when their leases end.
    pub async fn sweep_due(&self) -> Result<(), StoreError> {
        self.parts.sweep.validate_due().await
    }

    /// Investigates the suspicions that are due, until none is. Gives the number of those that are
    /// closed.
    ///
    /// # Errors
    /// If the store cannot be used. A suspicion stays until it is closed.
    pub async fn investigate_suspicions(&self) -> Result<usize, StoreError> {
        self.parts.disconnects.investigate_due().await
    }

    /// Checks the users without a living token, of whom no validation tells, in the slots that are
    /// due.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn check_due_connections(&self) -> Result<(), StoreError> {
        self.parts.connection_sweep.check_due().await
    }

    /// Ends the sessions whose time is over.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn end_overdue(&self) -> Result<(), StoreError> {
        self.parts.housekeeping.end_overdue().await
    }

    /// Deletes tombstones that no cookie can name any more, and what else nobody needs.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn purge(&self) -> Result<(), StoreError> {
        self.parts.housekeeping.purge().await
    }

    /// Measures the load, and logs an error if the rate limit is too low for it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn measure_load(&self) -> Result<(), StoreError> {
        self.parts.load.measure().await
    }

    /// The last measurement of the load. None before the first one.
    pub fn load(&self) -> Option<Load> {
        self.parts.load.last()
    }

    /// The state of the engine. It costs one read of the store.
    pub async fn report(&self) -> Report {
        Report::of(&self.parts).await
    }
}
