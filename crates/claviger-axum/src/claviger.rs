//! [`Claviger`]: an engine and the site that it serves.

use std::{fmt, sync::Arc};

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use claviger_core::{Assurance, ReturnTo, limits, request::path::is_below};
use claviger_engine::{Assertion, Caller, Denied, Engine, Grant, LogThrottle};
use claviger_seal::{CachedToken, SessionCookie};
use http::{HeaderMap, request::Parts};

use crate::{
    Problem, cookies, guard, head::RequestHead, identity, readiness::Readiness, respond, site::Site,
};

/// An engine and the site that it serves. Cheap to clone.
#[derive(Clone)]
pub struct Claviger {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    engine: Engine,
    site: Site,
    pub(crate) readiness: Readiness,
    unknown_key_log: LogThrottle,
    cross_site_log: LogThrottle,
    pub(crate) refused_webhook_log: LogThrottle,
}

impl fmt::Debug for Claviger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claviger").field("site", self.site()).finish_non_exhaustive()
    }
}

impl Claviger {
    /// Serves a site with an engine.
    pub fn new(engine: Engine, site: Site) -> Self {
        let inner = Inner {
            engine,
            site,
            readiness: Readiness::default(),
            unknown_key_log: LogThrottle::default(),
            cross_site_log: LogThrottle::default(),
            refused_webhook_log: LogThrottle::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Returns the site.
    pub fn site(&self) -> &Site {
        &self.inner.site
    }

    /// Answers `/readyz` with 503 from now on, because the process is about to stop. A load
    /// balancer then sends new requests elsewhere.
    pub fn stop_being_ready(&self) {
        self.inner.readiness.stop();
    }

    /// Returns what was read of a request's head. If nothing was yet, it is read now.
    ///
    /// # Errors
    /// See [`RequestHead::read`].
    pub fn head(&self, parts: &mut Parts) -> Result<RequestHead, Response> {
        if let Some(head) = parts.extensions.remove() {
            return Ok(head);
        }
        RequestHead::read(self.site(), parts).map_err(IntoResponse::into_response)
    }

    /// Authenticates a request.
    ///
    /// # Errors
    /// See [`Engine::authenticate`].
    pub async fn caller(&self, head: &RequestHead, assurance: Assurance) -> Result<Caller, Denied> {
        self.engine().authenticate(self.cookie(head)?, head.ask(assurance)).await
    }

    /// Says whose session it is, by its row. The provider is not asked, and the cookie alone is not
    /// enough.
    ///
    /// # Errors
    /// See [`Engine::authenticate`].
    pub(crate) async fn owner(&self, head: &RequestHead) -> Result<Caller, Denied> {
        let cookie = SessionCookie { identity: None, ..self.cookie(head)? };
        self.engine().authenticate(cookie, head.ask(Assurance::Row)).await
    }

    /// Says who is signed in, for a request that is served either way. It neither asks the provider
    /// nor waits long, so a passing failure looks like nobody.
    pub async fn recognize(&self, head: &RequestHead, cookie: SessionCookie) -> Option<Caller> {
        let known = self.engine().authenticate(cookie, head.ask(Assurance::Row));
        tokio::time::timeout(limits::RECOGNIZED_WITHIN, known).await.ok()?.ok()
    }

    /// Opens the request's session cookie. A request with two that differ is refused: one was
    /// planted.
    ///
    /// # Errors
    /// [`Denied::NoSession`] if none opens; [`Denied::UnknownKey`].
    pub fn cookie(&self, head: &RequestHead) -> Result<SessionCookie, Denied> {
        let value = head.cookies.session().ok_or(Denied::NoSession)?;
        self.engine().open_cookie(value).inspect_err(|denied| {
            // Anybody can make up a key id in a cookie, so this is a hint for the operator and
            // proves nothing.
            if let Denied::UnknownKey(id) = denied
                && self.inner.unknown_key_log.allows(self.engine().now())
            {
                tracing::error!(
                    key = id.0,
                    "a cookie names a key that is not in the keyring; no session was ended"
                );
            }
        })
    }

    /// Returns the request's session cookie if an older key sealed it, for
    /// [`Claviger::renew_cookie`].
    pub fn outdated_cookie(&self, head: &RequestHead) -> Option<String> {
        if !self.engine().has_older_keys() {
            return None;
        }
        let value = head.cookies.session()?;
        self.engine().is_cookie_outdated(value).then(|| value.to_owned())
    }

    /// Sets the same session cookie, sealed with the newest key. It does nothing if the session is
    /// no longer good, or if a shared cache may keep the answer.
    pub fn renew_cookie(&self, answer: &mut HeaderMap, outdated: &str) {
        if let Some(value) = self.engine().reseal_cookie(outdated)
            && cookies::make_private(answer)
        {
            cookies::set(answer, &self.site().session(value));
        }
    }

    /// Returns the access token that the browser carries, if the configuration allows it.
    pub fn cached_token(&self, head: &RequestHead) -> Option<CachedToken> {
        if !self.engine().settings().carry_access_token {
            return None;
        }
        self.engine().open_cached_token(head.cookies.cached_token()?)
    }

    /// Gives the browser this access token to carry, if the configuration allows it.
    pub fn set_cached_token(&self, headers: &mut HeaderMap, cookie: &SessionCookie, grant: &Grant) {
        if let Some(value) = self.engine().cached_token_cookie(cookie.session, grant) {
            cookies::set(headers, &self.site().cached_token(value));
        }
    }

    /// Answers a request that is denied: a redirect to the sign-in or a page for navigations, JSON
    /// otherwise. The extensions of the answer hold the denial.
    pub async fn deny(&self, head: &RequestHead, denied: &Denied) -> Response {
        self.deny_form(head, denied, Problem::unsent).await
    }

    /// As [`Claviger::deny`], for a request that the app may have got before its session ended.
    pub async fn deny_midway(&self, head: &RequestHead, denied: &Denied) -> Response {
        self.deny_form(head, denied, Problem::perhaps_sent).await
    }

    async fn deny_form(&self, head: &RequestHead, denied: &Denied, form: fn(Problem) -> Problem) -> Response {
        let problem = respond::of_denied(denied);
        let mut answer = if problem.sign_in_helps && head.navigates() {
            respond::to_sign_in(&self.way_back(head.target().as_bytes()).await, denied)
        } else {
            form(problem).answer_to(head)
        };
        answer.extensions_mut().insert(denied.clone());
        answer
    }

    /// Returns the return address of a request's target, short enough for headers and cookies.
    pub(crate) async fn way_back(&self, target: &[u8]) -> ReturnTo {
        match ReturnTo::of_target(target) {
            Some(destination) => self.shortened(destination).await,
            None => ReturnTo::lost(),
        }
    }

    /// Returns the same destination, short enough for headers and cookies. Addresses below `/auth`
    /// are not kept, because going on to one would look like a choice of the user.
    pub(crate) async fn shortened(&self, destination: ReturnTo) -> ReturnTo {
        if destination.is_short() {
            return destination;
        }
        if is_below(destination.as_str().split(['?', '#']).next().unwrap_or_default(), "/auth") {
            return ReturnTo::lost();
        }
        let kept = self.engine().keep_destination(&destination).await;
        kept.and_then(|reference| ReturnTo::parse(&format!("{}?to={reference}", ReturnTo::KEPT)))
            .unwrap_or_else(ReturnTo::lost)
    }

    /// Accepts a request that is safe or that a page of this site made.
    ///
    /// # Errors
    /// The response to send instead.
    pub fn guard(&self, head: &RequestHead) -> Result<(), Response> {
        guard::check(head.method(), head).map_err(|cross_site| self.refuse_cross_site(head, cross_site))
    }

    /// Answers a request that another site may have made.
    pub(crate) fn refuse_cross_site(&self, head: &RequestHead, cross_site: guard::CrossSite) -> Response {
        if self.inner.cross_site_log.allows(self.engine().now()) {
            tracing::warn!(
                ?cross_site,
                "refused a cross-site request; further ones within a minute are not logged"
            );
        }
        respond::cross_site(head, cross_site)
    }

    /// Keeps shared caches from an answer that depends on the session, if the app says nothing
    /// about caches.
    pub fn keep_private(&self, answer: &mut HeaderMap) {
        cookies::make_private(answer);
    }

    /// Removes what clients must not set and apps must not see: identity headers, our cookies, and
    /// what a script tells Claviger.
    pub fn strip_request(&self, headers: &mut HeaderMap, head: &RequestHead) {
        identity::strip(headers);
        head.cookies.strip(headers);
    }

    /// Adds the headers that tell an app who is calling.
    pub fn add_identity(&self, headers: &mut HeaderMap, caller: Caller) {
        identity::add(headers, caller);
    }

    /// Adds the assertion that proves to an app who is calling, if assertions are signed.
    ///
    /// A reader of it can pass for the user. So it belongs into requests to the app, and never into
    /// an answer that a browser gets.
    ///
    /// # Errors
    /// See [`Claviger::assertion`].
    pub fn add_assertion(&self, headers: &mut HeaderMap, caller: &Caller) -> Result<(), Denied> {
        if let Some(assertion) = self.assertion(caller)? {
            headers.insert(identity::HEADER_ASSERTION, assertion.header());
        }
        Ok(())
    }

    /// Returns the assertion that proves to an app, or to a service behind it, who is calling. None
    /// if none are signed.
    ///
    /// # Errors
    /// See [`Engine::assertion`].
    pub fn assertion(&self, caller: &Caller) -> Result<Option<Assertion>, Denied> {
        self.engine().assertion(caller)
    }
}

impl FromRequestParts<Claviger> for RequestHead {
    type Rejection = Response;

    /// Takes what was read before, or reads it now.
    async fn from_request_parts(parts: &mut Parts, claviger: &Claviger) -> Result<Self, Response> {
        claviger.head(parts)
    }
}
