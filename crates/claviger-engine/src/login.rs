//! Begins a sign-in, and finishes it with a new session.
//!
//! A sign-in that is under way lives sealed in a cookie of its own, so that tabs do not disturb each other and starting
//! one writes nothing. The store only learns which states were used up (RFC 9700 section 2.1).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{
    device::DeviceLabel,
    ids::{SessionId, Subject, Version},
    policy::{Custody, limits},
    return_to::ReturnTo,
    secret::{AuthorizationCode, CodeVerifier, SessionSecret},
    session::{EndReason, Holding, Refused, Session, State},
    time::Expiry,
    verdict::{IssuedPair, Proof, TokenAnswer, Trouble, ValidateAnswer, Verdict},
};
use claviger_provider::LoginRequest;
use claviger_seal::{CookieIdentity, LoginCookie, OpenError, SessionCookie};
use claviger_store::{Placement, StoreError};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{Engine, authenticate::Grant, errors::LoginError, meter, refresh::refresh_lock, repair::Repair};

/// A sign-in that has begun.
pub struct LoginStarted {
    /// Where to send the browser.
    pub location: String,
    /// Tells this sign-in's cookie from those of other tabs.
    pub tag: String,
    /// The cookie's value.
    pub cookie: String,
}

/// What the provider sent the browser back with.
#[derive(Clone, Default)]
pub struct Callback {
    /// The state that the sign-in began with.
    pub state: String,
    /// The code, if the user agreed.
    pub code: Option<AuthorizationCode>,
    /// The provider's error code, if not (RFC 6749 section 4.1.2.1).
    pub error: Option<String>,
    /// Who answers (RFC 9207).
    pub iss: Option<String>,
}

/// A sign-in that succeeded.
pub struct SignedIn {
    /// The session.
    pub session: SessionId,
    /// The value of its cookie. None if the browser's own session goes on with the cookie that it has.
    pub cookie: Option<String>,
    /// The hint that the browser may carry beside it.
    pub access_hint: Option<String>,
    /// Where the browser wanted to go.
    pub return_to: ReturnTo,
}

/// Tells the cookie of the sign-in with this state from those of other tabs. It says nothing of the state.
pub fn login_tag(state: &str) -> String {
    let digest = Sha256::digest(state.as_bytes());
    URL_SAFE_NO_PAD.encode(digest).chars().take(10).collect()
}

impl Engine {
    /// Begins a sign-in. `force_verify` makes the provider ask again even a user who agreed before.
    pub fn begin_login(&self, return_to: ReturnTo, force_verify: bool) -> LoginStarted {
        self.send_to_provider(return_to, None, force_verify)
    }

    pub(crate) fn send_to_provider(
        &self,
        return_to: ReturnTo,
        repairs: Option<SessionId>,
        force_verify: bool,
    ) -> LoginStarted {
        let provider = self.provider();
        let login = LoginCookie {
            provider: provider.name.clone(),
            state: self.random(),
            verifier: CodeVerifier::new(URL_SAFE_NO_PAD.encode(self.random::<32>())),
            redirect_uri: provider.redirect_uri.clone(),
            return_to,
            started_at: self.now(),
            repairs,
        };
        let state = URL_SAFE_NO_PAD.encode(login.state);
        let request = LoginRequest { state: &state, verifier: &login.verifier, force_verify };
        LoginStarted {
            location: provider.authorize_url(&request).into(),
            tag: login_tag(&state),
            cookie: login.seal(&self.keyring(), self.nonce()),
        }
    }

    /// Finishes a sign-in. `login_cookie` is the value of the cookie with this state's tag, `shown` the session that
    /// the same browser shows, which the new one replaces, `user_agent` what it says of itself.
    ///
    /// # Errors
    /// [`LoginError`]; no session begins then, and a token that was issued is owed a revocation. Nor does any end, unless
    /// the store's answer to the last step was lost: then the replaced session may have ended, and the new one does.
    pub async fn finish_login(
        &self,
        callback: Callback,
        login_cookie: Option<&str>,
        shown: Option<&SessionCookie>,
        user_agent: &str,
    ) -> Result<SignedIn, LoginError> {
        let login = self.open_login(&callback.state, login_cookie)?;
        let (engine, shown, user_agent) = (self.clone(), shown.cloned(), user_agent.to_owned());
        // A browser that goes away must not leave a pair that nobody keeps.
        let finished =
            self.detached(async move { engine.finish(callback, login, shown, &user_agent).await }).await;
        meter::sign_in(match &finished {
            Ok(SignedIn { cookie: Some(_), .. }) => meter::SignIn::SignedIn,
            Ok(_) => meter::SignIn::Repaired,
            Err(_) => meter::SignIn::Failed,
        });
        finished
    }

    async fn finish(
        &self,
        callback: Callback,
        login: LoginCookie,
        shown: Option<SessionCookie>,
        user_agent: &str,
    ) -> Result<SignedIn, LoginError> {
        self.check_issuer(callback.iss.as_deref())?;
        let code = match (callback.error, callback.code) {
            (Some(error), _) if error == "access_denied" => return Err(LoginError::DeniedByUser),
            (Some(error), _) => return Err(LoginError::RefusedByProvider(error_code(&error))),
            (None, Some(code)) => code,
            (None, None) => return Err(LoginError::RefusedByProvider("no_code".to_owned())),
        };
        let _place = self.inner.sign_ins.try_acquire().map_err(|_| LoginError::Busy)?;
        let state_hash = Sha256::digest(login.state).into();
        let forget_at = login.started_at.after(limits::LOGIN_LIFETIME * 2);
        if !self.inner.parts.store.spend_login(state_hash, forget_at).await? {
            return Err(LoginError::AlreadyUsed);
        }
        let issued = self.exchange(&code, &login).await?;
        let mut draft = self.draft(&login, user_agent);
        let proof = match self.identify(&issued).await {
            Ok(proof) => proof,
            Err(error) => {
                self.abandon(&draft.row, &issued);
                return Err(error);
            }
        };
        draft.row.subject.id = proof.subject_id.clone().unwrap_or_default();
        draft.row.display_name = display_name(&proof);
        let Some(session) = login.repairs else {
            return self.open_session(draft, &issued, proof, shown.as_ref()).await;
        };
        let Some(shown) = shown else {
            self.abandon(&draft.row, &issued);
            return Err(LoginError::Stale);
        };
        self.repair(Repair { session, shown, issued, proof }, draft).await
    }

    fn open_login(&self, state: &str, cookie: Option<&str>) -> Result<LoginCookie, LoginError> {
        let login = match LoginCookie::open(&self.keyring(), cookie.ok_or(LoginError::Stale)?) {
            Ok(login) => login,
            Err(OpenError::UnknownKey(id)) => return Err(LoginError::UnknownKey(id)),
            Err(OpenError::Invalid) => return Err(LoginError::Stale),
        };
        let expected = URL_SAFE_NO_PAD.encode(login.state);
        let same: bool = expected.as_bytes().ct_eq(state.as_bytes()).into();
        let in_time = self.now().since(login.started_at) < limits::LOGIN_LIFETIME;
        let same_provider = login.provider == self.provider().name;
        if same && in_time && same_provider { Ok(login) } else { Err(LoginError::Stale) }
    }

    /// A callback that names an issuer must name the one that was asked (RFC 9207 section 2.4).
    fn check_issuer(&self, iss: Option<&str>) -> Result<(), LoginError> {
        match (iss, &self.provider().issuer) {
            (Some(iss), Some(expected)) if iss != expected => Err(LoginError::WrongIssuer),
            _ => Ok(()),
        }
    }

    /// Sends the code, once.
    async fn exchange(
        &self,
        code: &AuthorizationCode,
        login: &LoginCookie,
    ) -> Result<IssuedPair, LoginError> {
        let request = self.provider().exchange_code(code, &login.verifier, &login.redirect_uri);
        let answer = self.inner.parts.http.send(request).await;
        match self.provider().read_token(answer, self.now()) {
            TokenAnswer::Issued(issued) => Ok(issued),
            TokenAnswer::Rejected => Err(LoginError::CodeRejected),
            TokenAnswer::Misconfigured => {
                tracing::error!("the provider refuses this app's client id, secret or redirect address");
                Err(LoginError::Misconfigured)
            }
            TokenAnswer::Unknown(trouble) | TokenAnswer::Lost(trouble) => Err(in_trouble(trouble)),
        }
    }

    /// Whose token this is. A session never begins on a token that the provider did not confirm.
    async fn identify(&self, issued: &IssuedPair) -> Result<Proof, LoginError> {
        let provider = self.provider();
        let mut answer = ValidateAnswer::Rejected;
        for _ in 0..limits::IDENTIFY_TRIES {
            let sent = self.inner.parts.http.send(provider.validate(&issued.access)).await;
            answer = provider.read_validate(sent, self.now());
            if !matches!(answer, ValidateAnswer::Unknown(_)) {
                break;
            }
        }
        match (answer.verdict(&provider.client_id, None), answer) {
            (Verdict::Valid, ValidateAnswer::Valid(proof)) => {
                if let Some(user) = &proof.subject_id {
                    self.note_connected(user);
                }
                let granted = provider.scopes.iter().all(|scope| proof.scopes.contains(scope));
                if granted { Ok(proof) } else { Err(LoginError::ScopesMissing) }
            }
            (_, ValidateAnswer::Unknown(trouble)) => Err(in_trouble(trouble)),
            _ => {
                tracing::error!("the provider issued a token that is not for this app");
                Err(LoginError::NotOurToken)
            }
        }
    }

    /// A row that is complete but for who signed in.
    fn draft(&self, login: &LoginCookie, user_agent: &str) -> Draft {
        let now = self.now();
        let secret = SessionSecret::new(self.random());
        let row = Session {
            id: SessionId::new(now, self.random()),
            version: Version::FIRST,
            subject: Subject { provider: login.provider.clone(), id: String::new() },
            display_name: String::new(),
            secret_hash: secret.hash(),
            custody: self.settings().custody,
            device: DeviceLabel::from_user_agent(user_agent),
            created_at: now,
            last_seen_at: now,
            state: State::Live(Holding { pair: None, proven_at: now, claim: None }),
        };
        Draft { row, secret, return_to: login.return_to.clone() }
    }

    async fn open_session(
        &self,
        draft: Draft,
        issued: &IssuedPair,
        proof: Proof,
        replaces: Option<&SessionCookie>,
    ) -> Result<SignedIn, LoginError> {
        let Draft { mut row, secret, return_to } = draft;
        if row.custody != Custody::None {
            let refresh = issued.refresh.as_ref().zip(refresh_lock(row.custody, Some(&secret)));
            let pair = self.seal_pair(&row, Version::FIRST, issued, row.created_at, proof.scopes, refresh);
            row.state = State::Live(Holding { pair: Some(pair), proven_at: row.created_at, claim: None });
        }
        if let Err(error) = self.place(&row, issued, replaces).await
            && !self.placed_after_all(&row).await
        {
            self.abandon(&row, issued);
            return Err(error.into());
        }
        let expiry = row.pair().map_or(Expiry::Unknown, |pair| pair.expiry);
        let grant = Grant { token: issued.access.clone(), generation: Version::FIRST, expiry };
        let access_hint = row.pair().and_then(|_| self.access_hint(row.id, &grant));
        let identity = CookieIdentity { subject: row.subject, display_name: row.display_name };
        let good_until = row.created_at.after(self.settings().lifetimes.absolute);
        let cookie = SessionCookie { session: row.id, secret, good_until, identity: Some(identity) };
        Ok(SignedIn {
            session: row.id,
            cookie: Some(cookie.seal(&self.keyring(), self.nonce())),
            access_hint,
            return_to,
        })
    }

    /// Writes the new row down, and what follows from it.
    async fn place(
        &self,
        row: &Session,
        issued: &IssuedPair,
        replaces: Option<&SessionCookie>,
    ) -> Result<(), StoreError> {
        if row.custody == Custody::None {
            self.inner.parts.store.owe(&self.owed_for(row, issued)).await?;
            self.inner.owed.notify_one();
        }
        let limit = self.settings().devices_per_user;
        let placement = Placement { limit, replaces: self.replaced(replaces).await? };
        let ended = self.inner.parts.store.insert(row.clone(), placement).await;
        let ended = ended.inspect_err(|error| self.note_unknown(error))?;
        self.note_endings(&ended);
        tracing::info!(session = %row.id, replaced = ended.len(), "signed in");
        Ok(())
    }

    /// Whether the row stands although its writing seemed to fail. Then the sign-in succeeded, and what it replaced ended.
    async fn placed_after_all(&self, row: &Session) -> bool {
        let written = self.fresh_row(row.id).await.ok().flatten();
        written.is_some_and(|written| !written.ended() && written.secret_hash == row.secret_hash)
    }

    /// The session that this browser holds the secret of; a cookie that merely names one replaces nothing.
    async fn replaced(&self, shown: Option<&SessionCookie>) -> Result<Option<SessionId>, StoreError> {
        let Some(shown) = shown else { return Ok(None) };
        let row = self.fresh_row(shown.session).await?;
        let own = row.filter(|row| row.secret_hash.matches(&shown.secret) && !row.ended());
        Ok(own.map(|row| row.id))
    }

    /// The browser will never hold the cookie of this row, whether it was written or not: ends it, and owes the
    /// revocation of its pair as soon as the store can be written. The user does not wait for that.
    pub(crate) fn abandon(&self, row: &Session, issued: &IssuedPair) {
        let (engine, row, issued) = (self.clone(), row.clone(), issued.clone());
        self.inner.tasks.spawn(async move {
            let at = engine.now();
            engine
                .amend_surely(row.id, |written: Session| {
                    if written.secret_hash == row.secret_hash {
                        written.end(EndReason::ReplacedBySignIn, at)
                    } else {
                        Err(Refused::Superseded)
                    }
                })
                .await;
            engine.owe_issued(&row, &issued).await;
        });
    }
}

/// Cookie values and states open something, so none of these shows them.
impl fmt::Debug for LoginStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginStarted").field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state: _, code, error, iss } = self;
        let mut shown = f.debug_struct("Callback");
        shown.field("code", code).field("error", error).field("iss", iss).finish_non_exhaustive()
    }
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, return_to, .. } = self;
        let mut shown = f.debug_struct("SignedIn");
        shown.field("session", session).field("return_to", return_to).finish_non_exhaustive()
    }
}

pub(crate) struct Draft {
    pub(crate) row: Session,
    secret: SessionSecret,
    pub(crate) return_to: ReturnTo,
}

fn in_trouble(trouble: Trouble) -> LoginError {
    LoginError::ProviderTrouble { retry_after: trouble.pause() }
}

/// An error code as RFC 6749 section 4.1.2.1 has them. What a browser brings instead is nothing to repeat anywhere.
fn error_code(text: &str) -> String {
    let fits = text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if fits { text.to_owned() } else { "unknown".to_owned() }
}

fn display_name(proof: &Proof) -> String {
    let name = proof.display_name.as_deref().or(proof.subject_id.as_deref()).unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(limits::DISPLAY_NAME_CHARS).collect()
}
