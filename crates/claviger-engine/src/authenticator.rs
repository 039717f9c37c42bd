//! Says who is calling and whether the session is still good, and hands on the access token.

use std::{sync::Arc, time::Duration};

use claviger_core::{
    ApiRefusal, Ask, Assurance, EndReason, Expiry, Lifetimes, Need, Presence, Session, SessionId, Spent,
    State, Subject, Timestamp, limits, request,
};
use claviger_seal::{CachedToken, CookieIdentity, SessionCookie};

use crate::{
    CheckedClock, Denied, EndError, Env, ForWhom, Grant, Keys, LastSeen, ProviderClient, ReadFrom, Refresher,
    Rows, Validated, Validator, part::part,
};

/// The user and the session that a request comes from.
#[derive(Clone, Debug)]
pub struct Caller {
    session: SessionId,
    who: Who,
    vouched: Vouched,
}

claviger_core::named! {
    /// Who vouches for a caller, as an assertion says it.
    pub(crate) enum Vouched {
        /// The sealed cookie, or a row that has not ended.
        Cookie = "cookie",
        /// A live row with a recent proof.
        Session = "session",
        /// The provider, asked as lately as the route demands.
        Provider = "provider",
    }
}

#[derive(Clone, Debug)]
enum Who {
    /// As the sealed cookie says.
    Cookie(CookieIdentity),
    /// As the row says.
    Row(Arc<Session>),
}

impl Caller {
    fn new(session: SessionId, who: Who, assurance: Assurance) -> Self {
        let vouched = match (&who, assurance) {
            (Who::Cookie(_), _) | (Who::Row(_), Assurance::Row) => Vouched::Cookie,
            (Who::Row(_), Assurance::Cookie | Assurance::Session) => Vouched::Session,
            (Who::Row(_), Assurance::Provider { .. }) => Vouched::Provider,
        };
        Self { session, who, vouched }
    }

    /// The caller's session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The user.
    pub fn subject(&self) -> &Subject {
        match &self.who {
            Who::Cookie(identity) => &identity.subject,
            Who::Row(row) => &row.subject,
        }
    }

    /// What the provider calls the user. Where only the cookie vouches and memory holds no row, it
    /// is the name of the sign-in.
    pub fn display_name(&self) -> &str {
        match &self.who {
            Who::Cookie(identity) => &identity.display_name,
            Who::Row(row) => &row.display_name,
        }
    }

    /// The user and the display name. Those of a cookie are not copied.
    pub fn into_identity(self) -> CookieIdentity {
        match self.who {
            Who::Cookie(identity) => identity,
            Who::Row(row) => {
                CookieIdentity { subject: row.subject.clone(), display_name: row.display_name.clone() }
            }
        }
    }

    /// Who vouches for the caller.
    pub(crate) fn vouched(&self) -> Vouched {
        self.vouched
    }

    /// When the provider last proved the token of the row that vouches.
    pub(crate) fn proven_at(&self) -> Option<Timestamp> {
        match &self.row()?.state {
            State::Live(active) | State::Parked(active) | State::Suspect(active) => Some(active.proven_at),
            State::Ended { .. } => None,
        }
    }

    /// The row that vouches for the caller. None if the cookie does.
    pub fn row(&self) -> Option<&Session> {
        match &self.who {
            Who::Cookie(_) => None,
            Who::Row(row) => Some(row),
        }
    }
}

/// What memory alone says about a request.
#[derive(Debug)]
pub enum AtOnce {
    /// The caller.
    Caller(Caller),
    /// Memory does not know enough. Here is the cookie, to ask the store and the provider with.
    Unknown(SessionCookie),
}

part! {
    /// Authenticates requests.
    pub(crate) struct Authenticator needs {
        env: Env,
        rows: Arc<Rows>,
        keys: Arc<Keys>,
        clock: Arc<CheckedClock>,
        provider: Arc<ProviderClient>,
        last_seen: Arc<LastSeen>,
        validator: Arc<Validator>,
        refresher: Arc<Refresher>,
    } owns {
        lifetimes: Lifetimes = env.settings().lifetimes,
    }
}

/// One request that needs more than memory knows.
struct Request<'a> {
    cookie: &'a SessionCookie,
    assurance: Assurance,
    /// A proof from before this time is not the one that the request may ask for.
    came_at: Timestamp,
    /// Where the row was read from last.
    row_from: ReadFrom,
    proof: ProofAsked,
    /// Whether the session's time is over.
    time: Time,
}

/// Whether a session's time is over, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    /// By our clock.
    Ours,
    /// By the provider's clock it is not.
    NotOver,
}

/// Whether the provider proved the token since the request came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProofAsked {
    NotYet,
    Proven,
}

/// What one step of a request leads to.
enum Step {
    /// The request is served with this row.
    Serve(Arc<Session>),
    /// This is the row now, and it may need another step.
    Next(Arc<Session>),
}

impl Authenticator {
    /// Says who is calling, with the assurance that the route asks for.
    ///
    /// # Errors
    /// See [`Denied`]. Only [`Denied::NoSession`], [`Denied::Ended`] and [`Denied::SignInAgain`]
    /// ask for a new sign-in.
    pub(crate) async fn authenticate(&self, cookie: SessionCookie, ask: Ask) -> Result<Caller, Denied> {
        match self.at_once(cookie, ask) {
            AtOnce::Caller(caller) => Ok(caller),
            AtOnce::Unknown(cookie) => {
                // Boxed because it is large and seldom needed. Most requests would only carry it
                // around.
                let row = Box::pin(self.vouch(&cookie, ask.assurance)).await?;
                self.note_use(row.id, ask.presence);
                Ok(Caller::new(row.id, Who::Row(row), ask.assurance))
            }
        }
    }

    /// Says who is calling if memory knows enough, so that neither the store nor the provider is
    /// asked.
    pub(crate) fn at_once(&self, mut cookie: SessionCookie, ask: Ask) -> AtOnce {
        let (now, session) = (self.env.now(), cookie.session);
        if matches!(ask.assurance, Assurance::Cookie | Assurance::Row)
            && self.cookie_holds(&cookie, now)
            && let Some(mut identity) = cookie.identity.take()
        {
            // The cookie holds the name of the sign-in.
            if let Some(row) = self.rows.cache().row(session, now) {
                identity.display_name.clone_from(&row.display_name);
            }
            self.note_use(session, ask.presence);
            return AtOnce::Caller(Caller::new(session, Who::Cookie(identity), ask.assurance));
        }
        match self.remembered(&cookie, ask.assurance, now) {
            Some(row) => {
                self.note_use(session, ask.presence);
                AtOnce::Caller(Caller::new(session, Who::Row(row), ask.assurance))
            }
            None => AtOnce::Unknown(cookie),
        }
    }

    /// The caller's access token. A cached token from the browser that belongs to this session and
    /// has not expired saves reading the row.
    ///
    /// # Errors
    /// See [`Denied`]; [`Denied::SignInAgain`] if the session keeps no tokens.
    pub(crate) async fn grant(
        &self,
        cookie: &SessionCookie,
        cached: Option<CachedToken>,
        presence: Presence,
    ) -> Result<Grant, Denied> {
        if let Some(cached) = cached.filter(|cached| self.accepts_cached_token(cookie, cached)) {
            self.note_use(cookie.session, presence);
            let expiry = Expiry::At(cached.expires_at);
            return Ok(Grant { token: cached.token, generation: cached.generation, expiry });
        }
        let row = self.vouch(cookie, Assurance::Session).await?;
        self.note_use(row.id, presence);
        self.keys.grant(&row)
    }

    /// When idleness ends the session of this row, unless it is used again. A row in memory does
    /// not say what other instances served, so the store is asked unless this one served it just
    /// now. While the store does not answer, memory does.
    pub(crate) async fn idle_ends_at(&self, row: &Session) -> Timestamp {
        let last_use = match self.last_seen.lately(row.id, self.env.now()) {
            Some(at) => at,
            None => match self.rows.load_stored(row.id).await {
                Ok(Some(stored)) => stored.last_seen_at,
                Ok(None) | Err(_) => row.last_seen_at,
            },
        };
        last_use.max(row.last_seen_at).after(self.lifetimes.idle)
    }

    /// What to do after the provider's API answered 401 to this grant: a grant to try once more
    /// with. None if the refusal is not about the token and belongs to the caller.
    ///
    /// If the row has a newer pair, that is used without another refresh.
    ///
    /// # Errors
    /// See [`Denied`].
    pub(crate) async fn grant_after_refusal(
        &self,
        cookie: &SessionCookie,
        refused: &Grant,
        refusal: ApiRefusal,
    ) -> Result<Option<Grant>, Denied> {
        if refusal == ApiRefusal::NotTheToken {
            return Ok(None);
        }
        let row = self.rows.load_own(cookie, ReadFrom::Store).await?;
        if row.ended() {
            return Err(Denied::of_ended(&row));
        }
        let generation = row.generation().ok_or(Denied::SignInAgain)?;
        if generation <= refused.generation {
            if refusal == ApiRefusal::DeadToken {
                let suspect = |row: Session| row.suspect(generation);
                self.rows.update(cookie.session, suspect).await?;
            } else {
                match self.validator.validate(cookie.session, ForWhom::Request).await? {
                    Validated::Recorded(_) => {}
                    Validated::NoAnswer(_) | Validated::OverShare(_) | Validated::NotOffered => {
                        return Ok(None);
                    }
                }
            }
        }
        let row = self.vouch(cookie, Assurance::Session).await?;
        let grant = self.keys.grant(&row)?;
        Ok((grant.generation > refused.generation).then_some(grant))
    }

    /// The row from memory, if it is all that the request needs.
    fn remembered(
        &self,
        cookie: &SessionCookie,
        assurance: Assurance,
        now: Timestamp,
    ) -> Option<Arc<Session>> {
        let row = self.rows.cache().row(cookie.session, now)?;
        let enough = request::need(&row, now, assurance, &self.lifetimes) == Need::Nothing;
        (enough && row.secret_hash.matches(&cookie.secret)).then_some(row)
    }

    fn accepts_cached_token(&self, cookie: &SessionCookie, cached: &CachedToken) -> bool {
        let now = self.env.now();
        cached.session == cookie.session
            && cached.expires_at > now.after(self.lifetimes.refresh_margin)
            && self.cookie_holds(cookie, now)
    }

    fn cookie_holds(&self, cookie: &SessionCookie, now: Timestamp) -> bool {
        now < cookie.good_until
            && !self.rows.is_cut_off(now)
            && !request::cookie_is_over(cookie.session, now, &self.lifetimes)
            && !self.rows.cache().denies(cookie.session)
    }

    /// The row, after everything that the request needs was done.
    async fn vouch(&self, cookie: &SessionCookie, assurance: Assurance) -> Result<Arc<Session>, Denied> {
        let mut row = self.rows.load_own(cookie, ReadFrom::Memory).await?;
        let mut request = Request {
            cookie,
            assurance,
            came_at: self.env.now(),
            row_from: ReadFrom::Memory,
            proof: ProofAsked::NotYet,
            time: Time::Ours,
        };
        for _ in 0..limits::STEPS_PER_REQUEST {
            let now = self.env.now();
            let lifetimes = self.lifetimes.of_tokens(self.provider.token_life());
            let need = match request.time {
                Time::Ours => request::need(&row, now, assurance, &lifetimes),
                Time::NotOver => request::need_in_time(&row, now, assurance, &lifetimes),
            };
            let step = match need {
                Need::Nothing => Step::Serve(row),
                Need::Proof => self.prove(row, &mut request).await?,
                Need::Refresh => self.refresh(row, &mut request).await?,
                Need::RefreshEarly => {
                    self.refresher.refresh_early(&row, &cookie.secret);
                    Step::Serve(row)
                }
                Need::End(reason) => Step::Next(self.end_if_over(reason, &mut request).await?),
                Need::Refuse(reason) => return Err(Denied::Ended(reason)),
                Need::SignIn => return Err(Denied::SignInAgain),
            };
            match step {
                Step::Serve(row) => return Ok(row),
                Step::Next(next) => row = next,
            }
        }
        Err(Denied::ProviderUnavailable { retry_after: limits::RETRY_AFTER })
    }

    /// Gets a proof. Before the provider is asked, the row is read from the store, since memory
    /// does not receive the proofs of other instances.
    async fn prove(&self, row: Arc<Session>, request: &mut Request<'_>) -> Result<Step, Denied> {
        if request.proof == ProofAsked::Proven {
            return Ok(Step::Serve(row));
        }
        if !self.validator.is_offered() {
            return self.prove_by_refresh(row, request).await;
        }
        if request.row_from == ReadFrom::Memory {
            request.row_from = ReadFrom::Store;
            return Ok(Step::Next(self.rows.load_own(request.cookie, ReadFrom::Store).await?));
        }
        let asked_at = self.env.now();
        let failure = match self.validator.validate(row.id, ForWhom::Request).await? {
            Validated::Recorded(row) => {
                request.note_proof(&row);
                return Ok(Step::Next(row));
            }
            Validated::NoAnswer(failure) => failure,
            Validated::OverShare(wait) => return serve_over_share(row, self.env.now(), wait),
            Validated::NotOffered => return self.prove_by_refresh(row, request).await,
        };
        let row = self.after_wait(row, request.cookie).await?;
        if request::may_serve_unproven(&row, asked_at, request.assurance, &self.lifetimes) {
            return Ok(Step::Serve(row));
        }
        if matches!(request.assurance, Assurance::Provider { .. }) {
            return Err(Denied::ProviderUnavailable { retry_after: failure.pause() });
        }
        Ok(Step::Next(self.park(&row).await?))
    }

    /// Gets a proof where the provider has no validation.
    async fn prove_by_refresh(&self, row: Arc<Session>, request: &mut Request<'_>) -> Result<Step, Denied> {
        match request::need_without_validation(&row, self.env.now(), request.assurance, &self.lifetimes) {
            Need::Refresh => {
                let mut place = match self.validator.early_place(&row) {
                    Ok(place) => place,
                    Err(wait) => return serve_over_share(row, self.env.now(), wait),
                };
                if let Some(place) = &mut place {
                    place.spent = Spent::Yes;
                }
                self.refresh(row, request).await
            }
            Need::Nothing => Ok(Step::Serve(row)),
            _ => Err(Denied::SignInAgain),
        }
    }

    /// Gets a new pair. Without one, the old pair is served while its access token lives, and after
    /// a short wait if it is good.
    async fn refresh(&self, row: Arc<Session>, request: &mut Request<'_>) -> Result<Step, Denied> {
        let seen = row.generation().ok_or(Denied::SignInAgain)?;
        let is_good =
            request::may_serve_unrefreshed(&row, self.env.now(), request.assurance, &self.lifetimes);
        let patience = if is_good { limits::REFRESH_PATIENCE } else { limits::ADOPTION_WAIT };
        let refresh = self.refresher.refresh(row.id, seen, Some(&request.cookie.secret), patience);
        let denied = match refresh.await {
            Ok(row) => {
                request.note_proof(&row);
                return Ok(Step::Next(row));
            }
            Err(denied) => denied,
        };
        let may_pass = matches!(
            denied,
            Denied::ProviderUnavailable { .. }
                | Denied::Misconfigured
                | Denied::SignInAgain
                | Denied::Store(_)
        );
        let row = self.after_wait(row, request.cookie).await?;
        let now = self.env.now();
        if may_pass && request::may_serve_unproven(&row, now, request.assurance, &self.lifetimes) {
            return Ok(Step::Serve(row));
        }
        Err(denied)
    }

    /// The row after a wait for the provider. A row that ended or became suspect in the meantime is
    /// read again, and so is every row while changes are not delivered (invariant ENDED).
    async fn after_wait(&self, row: Arc<Session>, cookie: &SessionCookie) -> Result<Arc<Session>, Denied> {
        if self.rows.cache().is_current(self.env.now()) && !self.rows.cache().denies(row.id) {
            return Ok(row);
        }
        let row = self.rows.load_own(cookie, ReadFrom::Store).await?;
        if row.ended() { Err(Denied::of_ended(&row)) } else { Ok(row) }
    }

    /// Ends a session whose time is over, unless the store knows a later use than this process. The
    /// time is the provider's if our clock is ahead. An unconfirmed clock ends nothing.
    async fn end_if_over(
        &self,
        reason: EndReason,
        request: &mut Request<'_>,
    ) -> Result<Arc<Session>, Denied> {
        let unconfirmed = Denied::ClockUnconfirmed { retry_after: limits::RETRY_AFTER };
        let now = self.clock.confirmed().await.ok_or(unconfirmed)?;
        self.last_seen.flush().await?;
        let over = |row: &Session| request::time_is_over(row, now, &self.lifetimes).is_some();
        let cookie = request.cookie;
        match self.rows.end_one(cookie.session, reason, over).await {
            Ok(_) | Err(EndError::NotFound) => {}
            Err(EndError::Store(error)) => return Err(Denied::Store(error)),
        }
        let row = self.rows.load_own(cookie, ReadFrom::Store).await?;
        if !over(&row) {
            request.time = Time::NotOver;
        }
        Ok(row)
    }

    async fn park(&self, row: &Session) -> Result<Arc<Session>, Denied> {
        let generation = row.generation().ok_or(Denied::SignInAgain)?;
        self.rows.update(row.id, |row: Session| row.park(generation)).await?;
        self.rows.load_stored(row.id).await?.ok_or(Denied::NoSession)
    }

    fn note_use(&self, session: SessionId, presence: Presence) {
        if presence == Presence::Active {
            self.last_seen.note(session, self.env.now());
        }
    }
}

/// Serves a request of a user whose share of early proofs is used up, if the last proof is very
/// young.
fn serve_over_share(row: Arc<Session>, now: Timestamp, wait: Duration) -> Result<Step, Denied> {
    if request::may_serve_over_share(&row, now) {
        Ok(Step::Serve(row))
    } else {
        Err(Denied::ProviderUnavailable { retry_after: wait })
    }
}

impl Request<'_> {
    /// Takes note of a row that was validated or refreshed for this request.
    fn note_proof(&mut self, row: &Session) {
        let proven = row.active().is_some_and(|active| active.proven_at >= self.came_at);
        self.proof = if proven { ProofAsked::Proven } else { ProofAsked::NotYet };
    }
}
