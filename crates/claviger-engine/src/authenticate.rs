//! Says who is calling and whether the session is still good, and hands on the access token.

use std::sync::Arc;

use claviger_core::{
    ids::{SessionId, Subject, Version},
    policy::limits,
    request::{Assurance, Need, cookie_is_over, may_serve_unproven, need, time_is_over},
    secret::AccessToken,
    session::Session,
    time::{Expiry, Timestamp},
    verdict::ApiRefusal,
};
use claviger_seal::{AccessHint, CookieIdentity, SessionCookie};

use crate::{
    Engine,
    errors::{Denied, EndError},
    prove::Asked,
};

/// Who is calling.
#[derive(Clone, Debug)]
pub struct Caller {
    session: SessionId,
    who: Who,
}

#[derive(Clone, Debug)]
enum Who {
    /// As the sealed cookie says.
    Cookie(CookieIdentity),
    /// As the row says.
    Row(Arc<Session>),
}

impl Caller {
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

    /// What the provider called the user at sign-in.
    pub fn display_name(&self) -> &str {
        match &self.who {
            Who::Cookie(identity) => &identity.display_name,
            Who::Row(row) => &row.display_name,
        }
    }

    /// The user and the name, for who needs nothing else of the caller: those of a cookie are not copied.
    pub fn into_identity(self) -> CookieIdentity {
        match self.who {
            Who::Cookie(identity) => identity,
            Who::Row(row) => {
                CookieIdentity { subject: row.subject.clone(), display_name: row.display_name.clone() }
            }
        }
    }

    /// The row that vouches for the caller; none where the cookie does.
    pub fn row(&self) -> Option<&Session> {
        match &self.who {
            Who::Cookie(_) => None,
            Who::Row(row) => Some(row),
        }
    }
}

/// An access token to call the provider's API with.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The token.
    pub token: AccessToken,
    /// Which of the session's pairs it belongs to.
    pub generation: Version,
    /// When it expires.
    pub expiry: Expiry,
}

impl Engine {
    /// Opens a session cookie.
    ///
    /// # Errors
    /// [`Denied::NoSession`] if it is not one of ours; [`Denied::UnknownKey`] if it may be, under a key that is missing.
    pub fn open_cookie(&self, value: &str) -> Result<SessionCookie, Denied> {
        SessionCookie::open(&self.keyring(), value).map_err(Denied::from_cookie)
    }

    /// Says who is calling, with the assurance that the route asks for.
    ///
    /// # Errors
    /// See [`Denied`]. Only [`Denied::NoSession`], [`Denied::Ended`] and [`Denied::SignInAgain`] ask for a new sign-in.
    pub async fn authenticate(&self, cookie: SessionCookie, assurance: Assurance) -> Result<Caller, Denied> {
        match self.authenticate_at_once(cookie, assurance) {
            Ok(caller) => Ok(caller),
            Err(cookie) => {
                // Boxed, since it is seldom needed and large: most requests would only carry it about.
                let row = Box::pin(self.vouch(&cookie, assurance)).await?;
                Ok(Caller { session: row.id, who: Who::Row(row) })
            }
        }
    }

    /// Says who is calling where memory knows enough, so that neither the store nor the provider is asked.
    ///
    /// # Errors
    /// The cookie, for [`Engine::authenticate`] to look further.
    pub fn authenticate_at_once(
        &self,
        cookie: SessionCookie,
        assurance: Assurance,
    ) -> Result<Caller, SessionCookie> {
        let now = self.now();
        let cookie = match self.believe(cookie, assurance, now) {
            Ok(caller) => return Ok(caller),
            Err(cookie) => cookie,
        };
        match self.remembered(&cookie, assurance, now) {
            Some(row) => Ok(Caller { session: row.id, who: Who::Row(row) }),
            None => Err(cookie),
        }
    }

    /// The caller's access token, and the caller's row if it had to be asked. A hint from the browser that is of this
    /// session and has not expired saves the question.
    ///
    /// # Errors
    /// See [`Engine::authenticate`]; [`Denied::SignInAgain`] where the session keeps no tokens.
    pub async fn grant(&self, cookie: &SessionCookie, hint: Option<AccessHint>) -> Result<Grant, Denied> {
        if let Some(hint) = hint.filter(|hint| self.believe_hint(cookie, hint)) {
            self.inner.touches.note(cookie.session, self.now());
            let expiry = Expiry::At(hint.expires_at);
            return Ok(Grant { token: hint.token, generation: hint.generation, expiry });
        }
        let row = self.vouch(cookie, Assurance::Session).await?;
        self.grant_of(&row)
    }

    /// What to do about a 401 that the provider's API gave to this grant: a grant to try once more with, or none if
    /// the refusal is not about the token and belongs to the caller.
    ///
    /// A newer pair in the row is adopted without another refresh.
    ///
    /// # Errors
    /// See [`Engine::authenticate`].
    pub async fn grant_after_refusal(
        &self,
        cookie: &SessionCookie,
        refused: &Grant,
        refusal: ApiRefusal,
    ) -> Result<Option<Grant>, Denied> {
        if refusal == ApiRefusal::NotTheToken {
            return Ok(None);
        }
        let row = self.own_row(cookie, true).await?;
        if row.ended() {
            return Err(Denied::of_ended(&row));
        }
        let generation = row.generation().ok_or(Denied::SignInAgain)?;
        if generation <= refused.generation {
            if refusal == ApiRefusal::DeadToken {
                self.amend(cookie.session, |row: Session| Ok((row.suspect(generation)?, None))).await?;
            } else if let Asked::Nothing(_) = self.prove(cookie.session).await? {
                return Ok(None);
            }
        }
        let row = self.vouch(cookie, Assurance::Session).await?;
        let grant = self.grant_of(&row)?;
        Ok((grant.generation > refused.generation).then_some(grant))
    }

    /// The hint that the browser may carry for its session's pair, if the configuration wants one and it fits a cookie.
    pub fn access_hint(&self, session: SessionId, grant: &Grant) -> Option<String> {
        let Expiry::At(expires_at) = grant.expiry else { return None };
        let hint =
            AccessHint { session, generation: grant.generation, token: grant.token.clone(), expires_at };
        self.settings().carry_access_token.then(|| hint.seal(&self.keyring(), self.nonce())).flatten()
    }

    /// Opens the hint that a browser carries. One that does not open is no hint.
    pub fn open_access_hint(&self, value: &str) -> Option<AccessHint> {
        AccessHint::open(&self.keyring(), value).ok()
    }

    /// The caller by the sealed cookie alone, where that is enough; else the cookie back.
    fn believe(
        &self,
        cookie: SessionCookie,
        assurance: Assurance,
        now: Timestamp,
    ) -> Result<Caller, SessionCookie> {
        if assurance != Assurance::Cookie || !self.cookie_holds(&cookie, now) {
            return Err(cookie);
        }
        match cookie {
            SessionCookie { session, identity: Some(identity), .. } => {
                self.inner.touches.note(session, now);
                Ok(Caller { session, who: Who::Cookie(identity) })
            }
            cookie => Err(cookie),
        }
    }

    /// The row from memory, where it is all that the request needs.
    fn remembered(
        &self,
        cookie: &SessionCookie,
        assurance: Assurance,
        now: Timestamp,
    ) -> Option<Arc<Session>> {
        let row = self.inner.known.row(cookie.session, now)?;
        let enough = need(&row, now, assurance, &self.settings().lifetimes) == Need::Nothing;
        (enough && row.secret_hash.matches(&cookie.secret)).then(|| self.used(row, now))
    }

    fn believe_hint(&self, cookie: &SessionCookie, hint: &AccessHint) -> bool {
        let now = self.now();
        hint.session == cookie.session
            && hint.expires_at > now.after(self.settings().lifetimes.refresh_margin)
            && self.cookie_holds(cookie, now)
    }

    fn cookie_holds(&self, cookie: &SessionCookie, now: Timestamp) -> bool {
        now < cookie.good_until
            && !cookie_is_over(cookie.session, now, &self.settings().lifetimes)
            && !self.inner.known.distrusts(cookie.session)
    }

    /// The row that the cookie opens.
    pub(crate) async fn own_row(&self, cookie: &SessionCookie, fresh: bool) -> Result<Arc<Session>, Denied> {
        let row =
            if fresh { self.fresh_row(cookie.session).await? } else { self.row(cookie.session).await? };
        row.filter(|row| row.secret_hash.matches(&cookie.secret)).ok_or(Denied::NoSession)
    }

    /// The row, after whatever the request needs was done.
    async fn vouch(&self, cookie: &SessionCookie, assurance: Assurance) -> Result<Arc<Session>, Denied> {
        let lifetimes = self.settings().lifetimes;
        let mut row = self.own_row(cookie, false).await?;
        // An answer that another request or instance got earlier is not the one that this request may ask for.
        let came_at = self.now();
        let proven_since = |row: &Session| row.holding().is_some_and(|holding| holding.proven_at >= came_at);
        let mut proven_now = false;
        let mut as_stored = false;
        for _ in 0..limits::STEPS_PER_REQUEST {
            let now = self.now();
            match need(&row, now, assurance, &lifetimes) {
                Need::Nothing => return Ok(self.used(row, now)),
                Need::Proof if proven_now => return Ok(self.used(row, now)),
                Need::Refuse(reason) => return Err(Denied::Ended(reason)),
                Need::SignIn => return Err(Denied::SignInAgain),
                Need::End(reason) => row = self.end_if_over(cookie, reason).await?,
                // Memory does not hear of the proofs that other instances get, the sweep's above all.
                Need::Proof if !as_stored => {
                    row = self.own_row(cookie, true).await?;
                    as_stored = true;
                }
                Need::Proof => match self.prove(row.id).await? {
                    Asked::Settled(settled) => {
                        row = settled;
                        proven_now = proven_since(&row);
                    }
                    Asked::Nothing(trouble) => {
                        row = self.after_wait(row, cookie).await?;
                        if may_serve_unproven(&row, now, assurance, &lifetimes) {
                            return Ok(self.used(row, now));
                        }
                        if matches!(assurance, Assurance::Provider { .. }) {
                            return Err(Denied::ProviderTrouble { retry_after: trouble.pause() });
                        }
                        row = self.park(&row).await?;
                    }
                },
                Need::RefreshEarly => {
                    self.refresh_early(&row, &cookie.secret);
                    return Ok(self.used(row, now));
                }
                Need::Refresh => {
                    let seen = row.generation().ok_or(Denied::SignInAgain)?;
                    row = match self.refresh(row.id, seen, Some(&cookie.secret)).await {
                        Ok(fresh) => fresh,
                        Err(denied) => return self.serve_old_pair(row, cookie, denied, assurance).await,
                    };
                    proven_now = proven_since(&row);
                }
            }
        }
        Err(Denied::ProviderTrouble { retry_after: limits::RETRY_AFTER })
    }

    /// The row after a wait for the provider: one that ended or became suspect meanwhile is read again, and so is each while
    /// nobody would be told of that (invariant ENDED).
    async fn after_wait(&self, row: Arc<Session>, cookie: &SessionCookie) -> Result<Arc<Session>, Denied> {
        let known = &self.inner.known;
        if known.hears_all(self.now()) && !known.distrusts(row.id) {
            return Ok(row);
        }
        let row = self.own_row(cookie, true).await?;
        if row.ended() { Err(Denied::of_ended(&row)) } else { Ok(row) }
    }

    /// A refresh that could not be had is no harm while the access token lives.
    async fn serve_old_pair(
        &self,
        row: Arc<Session>,
        cookie: &SessionCookie,
        denied: Denied,
        assurance: Assurance,
    ) -> Result<Arc<Session>, Denied> {
        let passing = matches!(
            denied,
            Denied::ProviderTrouble { .. } | Denied::Misconfigured | Denied::SignInAgain | Denied::Store(_)
        );
        let row = self.after_wait(row, cookie).await?;
        let now = self.now();
        if passing && may_serve_unproven(&row, now, assurance, &self.settings().lifetimes) {
            return Ok(self.used(row, now));
        }
        Err(denied)
    }

    /// Ends a session whose time is over, unless the store knows of a later use than this process did.
    async fn end_if_over(
        &self,
        cookie: &SessionCookie,
        reason: claviger_core::session::EndReason,
    ) -> Result<Arc<Session>, Denied> {
        let (now, lifetimes) = (self.now(), self.settings().lifetimes);
        self.write_uses().await?;
        match self.end_one(cookie.session, reason, |row| time_is_over(row, now, &lifetimes).is_some()).await {
            Ok(_) | Err(EndError::NotFound) => self.own_row(cookie, true).await,
            Err(EndError::Store(error)) => Err(Denied::Store(error)),
        }
    }

    async fn park(&self, row: &Session) -> Result<Arc<Session>, Denied> {
        let generation = row.generation().ok_or(Denied::SignInAgain)?;
        self.amend(row.id, |row: Session| Ok((row.park(generation)?, None))).await?;
        self.fresh_row(row.id).await?.ok_or(Denied::NoSession)
    }

    fn used(&self, row: Arc<Session>, now: Timestamp) -> Arc<Session> {
        self.inner.touches.note(row.id, now);
        row
    }

    pub(crate) fn grant_of(&self, row: &Session) -> Result<Grant, Denied> {
        let pair = row.pair().ok_or(Denied::SignInAgain)?;
        let token = self.open_access(row, pair)?.token;
        Ok(Grant { token, generation: pair.generation, expiry: pair.expiry })
    }
}
