//! Begins a sign-in, and finishes it with a new session or with the repair of an old one.
//!
//! A sign-in in progress lives sealed in a cookie of its own. So tabs do not disturb each other,
//! and starting one writes nothing. The store only learns which states were used up (RFC 9700
//! section 2.1).
//!
//! A repair gives a session a new pair where no refresh can. The browser goes to the provider and
//! back, and the same row gets the new pair. At a provider where the user agreed before, the user
//! sees no more than a page that loads slowly. It is no new sign-in: the session keeps its id, its
//! cookie and its age. A session that ended is never repaired, nor for another user than its own.

mod failed;
mod values;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{
    ActiveState, Arrival, AuthorizationCode, CodeVerifier, Custody, DeviceLabel, EndReason, IssuedPair,
    Proof, ProviderFailure, Refused, ReturnTo, Session, SessionId, SessionSecret, State, Subject,
    TokenAnswer, ValidateAnswer, Verdict, Version, limits, request,
};
use claviger_provider::{AuthorizationError, LoginRequest};
use claviger_seal::{CookieIdentity, LoginCookie, OpenError, SessionCookie};
use claviger_store::{Placement, Store, StoreError};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    Answered, CheckedClock, ControlUser, Denied, Env, Keys, LogThrottles, LoginError, Outbox, ProviderClient,
    ReadFrom, Rows, SharedBudget, Updated, keys::refresh_lock, metrics, part::part, retry::until_stored,
};

use failed::Failed;
pub use values::{Callback, FinishedSignIn, LoginStarted, login_cookie_suffix};

part! {
    /// Signs users in.
    pub(crate) struct SignIns needs {
        env: Env,
        store: Arc<dyn Store>,
        rows: Arc<Rows>,
        keys: Arc<Keys>,
        clock: Arc<CheckedClock>,
        outbox: Arc<Outbox>,
        provider: Arc<ProviderClient>,
        control_user: Arc<ControlUser>,
    } owns {
        /// Limits the exchanges of codes, since anybody can send a made-up one.
        exchanges: SharedBudget = SharedBudget::new(env, limits::EXCHANGES),
        told_operator: AtomicBool = AtomicBool::new(false),
        failed_log: LogThrottles = LogThrottles::default(),
    }
}

/// A session that is complete except for its user.
struct Draft {
    row: Session,
    secret: SessionSecret,
    return_to: ReturnTo,
}

/// A new authorization that is to repair a session.
struct Repair {
    session: SessionId,
    /// The session that the browser shows when it comes back.
    shown: SessionCookie,
    issued: IssuedPair,
    proof: Proof,
}

impl SignIns {
    /// Begins a sign-in. `ask_again` makes the provider ask even a user who agreed before.
    pub(crate) fn begin(&self, return_to: ReturnTo, ask_again: bool) -> LoginStarted {
        self.send_to_provider(return_to, None, ask_again)
    }

    /// Begins the repair of the session that this cookie opens. None if it does not need one.
    ///
    /// # Errors
    /// See [`Denied`].
    pub(crate) async fn begin_repair(
        &self,
        cookie: &SessionCookie,
        return_to: ReturnTo,
    ) -> Result<Option<LoginStarted>, Denied> {
        let now = self.env.now();
        let row = self.rows.load_own(cookie, ReadFrom::Store).await?;
        let over = row.ended() || request::time_is_over(&row, now, &self.env.settings().lifetimes).is_some();
        if over || !row.beyond_refresh(self.clock.of_provider().await, &self.provider.provider().habits) {
            return Ok(None);
        }
        Ok(Some(self.send_to_provider(return_to, Some(cookie.session), false)))
    }

    fn send_to_provider(
        &self,
        return_to: ReturnTo,
        repairs: Option<SessionId>,
        ask_again: bool,
    ) -> LoginStarted {
        let provider = self.provider.provider();
        let login = LoginCookie {
            provider: provider.name.clone(),
            state: self.env.random(),
            verifier: CodeVerifier::new(URL_SAFE_NO_PAD.encode(self.env.random::<32>())),
            redirect_uri: provider.client.redirect_uri.clone(),
            return_to,
            started_at: self.env.now(),
            repairs,
        };
        let state = URL_SAFE_NO_PAD.encode(login.state);
        let request = LoginRequest { state: &state, verifier: &login.verifier, ask_again };
        LoginStarted {
            location: provider.client.authorize_url(&request).into(),
            cookie_suffix: login_cookie_suffix(&state),
            cookie: login.seal(&self.keys.keyring(), self.env.nonce()),
        }
    }

    /// Finishes a sign-in. `login_cookie` is the value of the cookie with this state's suffix.
    /// `shown` is the session that the same browser shows, which the new one replaces. `user_agent`
    /// is the browser's header.
    ///
    /// # Errors
    /// [`LoginError`]. Then no session begins, and a token that was issued is revoked. No session
    /// ends either, unless the store's answer to the last step was lost: then the replaced session
    /// may have ended.
    pub(crate) async fn finish(
        self: &Arc<Self>,
        callback: Callback,
        login_cookie: Option<&str>,
        shown: Option<&SessionCookie>,
        user_agent: &str,
    ) -> Result<FinishedSignIn, LoginError> {
        let finished = self.try_to_finish(callback, login_cookie, shown, user_agent).await;
        finished.map_err(|failed| {
            failed.log(&self.failed_log, self.env.now());
            failed.error
        })
    }

    async fn try_to_finish(
        self: &Arc<Self>,
        callback: Callback,
        login_cookie: Option<&str>,
        shown: Option<&SessionCookie>,
        user_agent: &str,
    ) -> Result<FinishedSignIn, Failed> {
        // A provider that refuses our registration may leave the state out.
        if callback.error.as_deref().map(AuthorizationError::of) == Some(AuthorizationError::OurFault) {
            self.tell_operator(callback.error.as_deref().unwrap_or_default());
            return Err(LoginError::Misconfigured.into());
        }
        let login = self.open_login(&callback.state, login_cookie)?;
        let (sign_ins, shown, user_agent) = (Arc::clone(self), shown.cloned(), user_agent.to_owned());
        // A browser that closes the connection must not leave a pair that nobody keeps.
        let finish = async move { sign_ins.finish_detached(callback, login, shown, &user_agent).await };
        let finished = self.env.detached(finish).await;
        let how = finished.as_ref().map_or(metrics::SignIn::Failed, |(how, _)| *how);
        metrics::sign_in(how);
        finished.map(|(_, signed_in)| signed_in)
    }

    /// Where a callback's sign-in leads, whether it is still open or not. None if this browser
    /// began no such sign-in.
    pub(crate) fn destination(&self, state: &str, login_cookie: Option<&str>) -> Option<ReturnTo> {
        let login = LoginCookie::open(&self.keys.keyring(), login_cookie?).ok()?;
        is_of_state(&login, state).then_some(login.return_to)
    }

    /// Whether the sign-in of this cookie leads to that address, with any fragment.
    pub(crate) fn leads_to(&self, login_cookie: &str, address: &str) -> bool {
        let Ok(login) = LoginCookie::open(&self.keys.keyring(), login_cookie) else { return false };
        login.return_to.as_str().split('#').next() == Some(address)
    }

    async fn finish_detached(
        self: &Arc<Self>,
        callback: Callback,
        login: LoginCookie,
        shown: Option<SessionCookie>,
        user_agent: &str,
    ) -> Result<(metrics::SignIn, FinishedSignIn), Failed> {
        self.check_issuer(callback.iss.as_deref())?;
        let code = match (callback.error, callback.code) {
            (Some(error), _) => return Err(self.refused(&error).into()),
            (None, Some(code)) => code,
            (None, None) => return Err(LoginError::RefusedByProvider("no_code".to_owned()).into()),
        };
        let arrival =
            Arrival { address: callback.address, browser: shown.as_ref().map(|shown| shown.session) };
        let place = self.exchanges.take(arrival).map_err(|retry_after| LoginError::Busy { retry_after })?;
        let state_hash = Sha256::digest(login.state).into();
        let forget_at = login.started_at.after(limits::LOGIN_LIFETIME * 2);
        if !self.store.spend_login(state_hash, forget_at).await? {
            let signed_in = self.repeated(&login, shown.as_ref()).await?;
            place.free();
            return Ok((metrics::SignIn::Repeated, signed_in));
        }
        let issued = self.exchange(&code, &login).await?;
        // A code that buys a token uses nothing up.
        place.free();
        let proof = match self.identify(&issued).await {
            Ok(proof) => proof,
            Err(error) => {
                self.give_up(&self.draft(&login, user_agent).row, &issued);
                return Err(error);
            }
        };
        // The clock may have jumped while the answers were under way.
        self.clock.confirmed().await;
        let mut draft = self.draft(&login, user_agent);
        draft.row.subject.id = proof.subject_id.clone().unwrap_or_default();
        draft.row.display_name = proof.name().unwrap_or_else(|| draft.row.subject.id.clone());
        let Some(session) = login.repairs else {
            let signed_in = self.open_session(draft, &issued, proof, shown.as_ref()).await?;
            return Ok((metrics::SignIn::SignedIn, signed_in));
        };
        let Some(shown) = shown else {
            self.give_up(&draft.row, &issued);
            return Err(LoginError::Stale.into());
        };
        let signed_in = self.repair(Repair { session, shown, issued, proof }, draft).await?;
        Ok((metrics::SignIn::Repaired, signed_in))
    }

    /// The result of a callback that was delivered before, here or to another instance. It waits
    /// while that delivery is under way.
    ///
    /// # Errors
    /// [`LoginError::AlreadyUsed`] if that failed, or its session ended, or was long ago.
    async fn repeated(
        &self,
        login: &LoginCookie,
        shown: Option<&SessionCookie>,
    ) -> Result<FinishedSignIn, LoginError> {
        let deadline = self.env.now().after(limits::ADOPTION_WAIT);
        loop {
            if let Some(signed_in) = self.result(login, shown).await? {
                return Ok(signed_in);
            }
            if self.env.now() >= deadline {
                return Err(LoginError::AlreadyUsed);
            }
            tokio::time::sleep(limits::CALLBACK_POLL).await;
        }
    }

    /// The result of a sign-in, if it has one. A browser that shows a good session keeps its cookie
    /// (docs/decisions/0004).
    async fn result(
        &self,
        login: &LoginCookie,
        shown: Option<&SessionCookie>,
    ) -> Result<Option<FinishedSignIn>, LoginError> {
        let (now, return_to) = (self.clock.of_provider().await, login.return_to.clone());
        let (id, secret) = login.session();
        let Some(row) = self.rows.load_stored(login.repairs.unwrap_or(id)).await? else { return Ok(None) };
        if row.ended() {
            return Err(LoginError::AlreadyUsed);
        }
        if login.repairs.is_some() {
            let own = shown.is_some_and(|shown| row.secret_hash.matches(&shown.secret));
            let habits = &self.provider.provider().habits;
            let repaired = own && !row.beyond_refresh(now, habits);
            return Ok(repaired.then(|| self.signed_in(&row, None, return_to)));
        }
        let fresh = row.created_at.age(now).is_some_and(|age| age <= limits::CALLBACK_REPEATS);
        if !fresh || !row.secret_hash.matches(&secret) {
            return Err(LoginError::AlreadyUsed);
        }
        let keeps = self.replaced(shown).await?.is_some();
        let cookie = (!keeps).then(|| self.session_cookie(&row, secret));
        Ok(Some(self.signed_in(&row, cookie, return_to)))
    }

    /// Tells the operator once that the provider refuses our registration. Anybody can make up such
    /// an answer, so it is a hint.
    fn tell_operator(&self, error: &str) {
        if self.told_operator.swap(true, Ordering::Relaxed) {
            return;
        }
        let client = &self.provider.provider().client;
        tracing::error!(
            error = error_code(error),
            redirect_uri = client.redirect_uri,
            client_id = client.id,
            "the provider refused a sign-in as wrongly asked for: compare redirect URI, client id and scopes with \
             what is registered there"
        );
    }

    /// Why the provider sent the browser back without a code.
    fn refused(&self, error: &str) -> LoginError {
        match AuthorizationError::of(error) {
            AuthorizationError::Denied => LoginError::DeniedByUser,
            AuthorizationError::OurFault => LoginError::Misconfigured,
            AuthorizationError::Passing => {
                LoginError::ProviderUnavailable { retry_after: limits::RETRY_AFTER }
            }
            AuthorizationError::Other => LoginError::RefusedByProvider(error_code(error)),
        }
    }

    fn open_login(&self, state: &str, cookie: Option<&str>) -> Result<LoginCookie, LoginError> {
        let login = match LoginCookie::open(&self.keys.keyring(), cookie.ok_or(LoginError::Stale)?) {
            Ok(login) => login,
            Err(OpenError::UnknownKey(id)) => return Err(LoginError::UnknownKey(id)),
            Err(OpenError::Invalid) => return Err(LoginError::Stale),
        };
        let same = is_of_state(&login, state);
        let in_time = login.started_at.age(self.env.now()).is_some_and(|age| age < limits::LOGIN_LIFETIME);
        let same_provider = login.provider == self.provider.provider().name;
        if same && in_time && same_provider { Ok(login) } else { Err(LoginError::Stale) }
    }

    /// A callback that names an issuer must name the one that was asked (RFC 9207 section 2.4).
    fn check_issuer(&self, iss: Option<&str>) -> Result<(), LoginError> {
        match (iss, &self.provider.provider().issuer) {
            (Some(iss), Some(expected)) if iss != expected => Err(LoginError::WrongIssuer),
            _ => Ok(()),
        }
    }

    /// Sends the code, once.
    async fn exchange(&self, code: &AuthorizationCode, login: &LoginCookie) -> Result<IssuedPair, Failed> {
        let Answered { answer, said } =
            self.provider.exchange_code(code, &login.verifier, &login.redirect_uri).await;
        let error = match answer {
            TokenAnswer::Issued(issued) => return Ok(issued),
            TokenAnswer::Rejected => LoginError::CodeRejected,
            TokenAnswer::Misconfigured => LoginError::Misconfigured,
            TokenAnswer::Unknown(failure) | TokenAnswer::Lost(failure) => unavailable(failure),
        };
        Err(Failed::at_provider(error, said))
    }

    /// Whose token this is. A session never begins on a token that the provider did not confirm.
    async fn identify(&self, issued: &IssuedPair) -> Result<Proof, Failed> {
        let provider = self.provider.provider();
        let mut pause = limits::IDENTIFY_PAUSE;
        let mut tries = 0;
        let Answered { answer, said } = loop {
            let answered = self.provider.identify(&issued.access).await;
            tries += 1;
            match answered.answer {
                ValidateAnswer::Unknown(_) if tries < limits::IDENTIFY_TRIES => {}
                // A part of the provider may not know the token yet.
                ValidateAnswer::Rejected if tries < limits::IDENTIFY_TRIES_UNKNOWN => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                _ => break answered,
            }
        };
        let error = match (answer.verdict(&provider.client.id, None), answer) {
            (Verdict::Valid, ValidateAnswer::Valid(proof)) => {
                if let Some(user) = &proof.subject_id {
                    self.control_user.note_connected(user);
                }
                let granted = provider.client.scopes.iter().all(|scope| proof.scopes.contains(scope));
                if granted {
                    return Ok(proof);
                }
                LoginError::ScopesMissing
            }
            (_, ValidateAnswer::Unknown(failure)) => unavailable(failure),
            // It does not know a token that it just issued.
            (_, ValidateAnswer::Rejected) => {
                LoginError::ProviderUnavailable { retry_after: limits::RETRY_AFTER }
            }
            _ => LoginError::NotOurToken,
        };
        Err(Failed::at_provider(error, said))
    }

    /// A row that is complete except for its user.
    fn draft(&self, login: &LoginCookie, user_agent: &str) -> Draft {
        // By the provider's time, so that it compares with what the provider says of its users.
        let now = self.clock.known_of_provider();
        let (id, secret) = login.session();
        let row = Session {
            id,
            version: Version::FIRST,
            subject: Subject { provider: login.provider.clone(), id: String::new() },
            display_name: String::new(),
            secret_hash: secret.hash(),
            custody: self.env.settings().custody,
            device: DeviceLabel::from_user_agent(user_agent),
            created_at: now,
            last_seen_at: now,
            state: State::Live(ActiveState { pair: None, proven_at: now, claim: None }),
        };
        Draft { row, secret, return_to: login.return_to.clone() }
    }

    async fn open_session(
        &self,
        draft: Draft,
        issued: &IssuedPair,
        proof: Proof,
        replaces: Option<&SessionCookie>,
    ) -> Result<FinishedSignIn, LoginError> {
        let Draft { mut row, secret, return_to } = draft;
        if row.custody != Custody::None {
            let refresh = issued.refresh.as_ref().zip(refresh_lock(row.custody, Some(&secret)));
            let pair =
                self.keys.seal_pair(&row, Version::FIRST, issued, row.created_at, proof.scopes, refresh);
            row.state = State::Live(ActiveState { pair: Some(pair), proven_at: row.created_at, claim: None });
        }
        if let Err(error) = self.insert(&row, issued, replaces).await
            && !self.is_inserted(&row).await
        {
            self.abandon(&row, issued);
            return Err(error.into());
        }
        let cookie = self.session_cookie(&row, secret);
        Ok(self.signed_in(&row, Some(cookie), return_to))
    }

    fn session_cookie(&self, row: &Session, secret: SessionSecret) -> String {
        let identity =
            CookieIdentity { subject: row.subject.clone(), display_name: row.display_name.clone() };
        let good_until = row.created_at.after(self.env.settings().lifetimes.absolute);
        let cookie = SessionCookie { session: row.id, secret, good_until, identity: Some(identity) };
        cookie.seal(&self.keys.keyring(), self.env.nonce())
    }

    fn signed_in(&self, row: &Session, cookie: Option<String>, return_to: ReturnTo) -> FinishedSignIn {
        let grant = self.keys.grant(row).ok();
        let cached_token_cookie = grant.and_then(|grant| self.keys.cached_token_cookie(row.id, &grant));
        FinishedSignIn { session: row.id, cookie, cached_token_cookie, return_to }
    }

    /// Writes the new row down, and what follows from it.
    async fn insert(
        &self,
        row: &Session,
        issued: &IssuedPair,
        replaces: Option<&SessionCookie>,
    ) -> Result<(), StoreError> {
        if row.custody == Custody::None {
            self.outbox.add_issued(row, issued).await?;
        }
        let limit = self.env.settings().devices_per_user;
        let placement = Placement { limit, replaces: self.replaced(replaces).await? };
        let replaced = self.rows.insert(row.clone(), placement).await?;
        tracing::info!(session = %row.id, replaced, "signed in");
        Ok(())
    }

    /// Whether the row is stored although its write seemed to fail. Then the sign-in succeeded.
    async fn is_inserted(&self, row: &Session) -> bool {
        let written = self.rows.load_stored(row.id).await.ok().flatten();
        written.is_some_and(|written| !written.ended() && written.secret_hash == row.secret_hash)
    }

    /// The session that this browser holds the secret of; a cookie that merely names one replaces
    /// nothing.
    async fn replaced(&self, shown: Option<&SessionCookie>) -> Result<Option<SessionId>, StoreError> {
        let Some(shown) = shown else { return Ok(None) };
        let row = self.rows.load_stored(shown.session).await?;
        let own = row.filter(|row| row.secret_hash.matches(&shown.secret) && !row.ended());
        Ok(own.map(|row| row.id))
    }

    /// Adds the revocation of a pair that no session has to the outbox. The user does not wait for
    /// that.
    fn give_up(&self, row: &Session, issued: &IssuedPair) {
        let (outbox, row, issued) = (Arc::clone(&self.outbox), row.clone(), issued.clone());
        self.env.spawn(async move { outbox.add_issued_until_stored(&row, &issued).await });
    }

    /// Ends a row whose cookie no browser will ever hold, and gives its pair up. Its write got no
    /// answer, so it may have been made, or still be.
    fn abandon(&self, row: &Session, issued: &IssuedPair) {
        let (env, rows, outbox) = (self.env.clone(), Arc::clone(&self.rows), Arc::clone(&self.outbox));
        let (store, row, issued) = (Arc::clone(&self.store), row.clone(), issued.clone());
        self.env.spawn(async move {
            until_stored(|| store.check()).await;
            let at = env.now();
            let end = |written: Session| {
                if written.secret_hash == row.secret_hash {
                    written.end(EndReason::ReplacedBySignIn, at)
                } else {
                    Err(Refused::Superseded)
                }
            };
            rows.update_until_stored(row.id, end).await;
            outbox.add_issued_until_stored(&row, &issued).await;
        });
    }

    /// Puts the new pair into the session's row, retrying while the store fails. The browser waits
    /// for a limited time only.
    async fn repair(self: &Arc<Self>, repair: Repair, draft: Draft) -> Result<FinishedSignIn, LoginError> {
        let sign_ins = Arc::clone(self);
        let task = self.env.spawn(async move { sign_ins.repair_until_stored(repair, draft).await });
        let late = || StoreError::Unavailable("the repaired session is not written down yet".to_owned());
        match tokio::time::timeout(limits::ADOPTION_WAIT, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(LoginError::Store(late())),
        }
    }

    async fn repair_until_stored(&self, repair: Repair, draft: Draft) -> Result<FinishedSignIn, LoginError> {
        let Repair { session, shown, issued, proof } = repair;
        let now = self.clock.of_provider().await;
        let subject = &draft.row.subject;
        let repaired = |row: Session| {
            if shown.session != session || !row.secret_hash.matches(&shown.secret) {
                return Err(Refused::Superseded);
            }
            let sealed_for = row.clone();
            let lock = refresh_lock(row.custody, Some(&shown.secret));
            let refresh = issued.refresh.as_ref().zip(lock);
            row.repair(subject, now, &self.provider.provider().habits, |generation| {
                self.keys.seal_pair(&sealed_for, generation, &issued, now, proof.scopes.clone(), refresh)
            })
        };
        let row = match self.rows.update_until_stored(session, repaired).await {
            Updated::Done(row) => row,
            // A write whose outcome was unknown had succeeded after all.
            Updated::Refused(_, row) if self.keys.holds(&row, &issued) => row,
            refused => {
                let outcome = not_repaired(refused, &shown, &draft);
                self.give_up(&draft.row, &issued);
                return outcome.map(|row| self.signed_in(&row, None, draft.return_to));
            }
        };
        tracing::info!(session = %row.id, "a session was repaired");
        // The session goes on with the cookie that it has.
        Ok(self.signed_in(&row, None, draft.return_to))
    }
}

fn is_of_state(login: &LoginCookie, state: &str) -> bool {
    let expected = URL_SAFE_NO_PAD.encode(login.state);
    expected.as_bytes().ct_eq(state.as_bytes()).into()
}

/// What to answer a browser whose session was not repaired. It is the row if another tab was first.
fn not_repaired(refused: Updated, shown: &SessionCookie, draft: &Draft) -> Result<Arc<Session>, LoginError> {
    match refused {
        Updated::Refused(_, row) if !row.secret_hash.matches(&shown.secret) => Err(LoginError::Stale),
        Updated::Refused(Refused::Ended, _) => Err(LoginError::SessionEnded),
        Updated::Refused(_, row) if row.subject != draft.row.subject => Err(LoginError::AnotherUser),
        Updated::Refused(_, row) | Updated::Done(row) => Ok(row),
        Updated::Missing => Err(LoginError::SessionEnded),
    }
}

fn unavailable(failure: ProviderFailure) -> LoginError {
    LoginError::ProviderUnavailable { retry_after: failure.pause() }
}

/// An error code as in RFC 6749 section 4.1.2.1. Anything else that a browser brings is not
/// repeated.
fn error_code(text: &str) -> String {
    let fits = text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if fits { text.to_owned() } else { "unknown".to_owned() }
}
