//! Claviger inside an axum app: the sign-in routes, the devices page, a tower layer and extractors.
//!
//! | module | what it holds |
//! |---|---|
//! | `site` | what the outside sees of this app: its origin, its cookies' names and attributes |
//! | `cookies` | reading, setting and removing our cookies |
//! | `identity` | the headers that tell an app behind us who is calling |
//! | `guard` | protection of unsafe methods by Fetch Metadata and Origin |
//! | `problem` | what an error looks like, as a page or as JSON |
//! | `respond` | which denial and error becomes which answer |
//! | `routes` | one file for each public address |
//! | `layer`, `extract` | what an app adds to its own routes |
//!
//! ```no_run
//! # async fn app(engine: claviger_engine::Engine) {
//! use axum::{Router, routing::get};
//! use claviger_axum::{Claviger, Site, SignedIn};
//!
//! let claviger = Claviger::new(engine, Site::new("https://app.example"));
//! let app: Router = Router::new()
//!     .route("/", get(|SignedIn(caller): SignedIn| async move { format!("Hello {}", caller.display_name()) }))
//!     .layer(claviger.layer())
//!     .merge(claviger.routes());
//! # }
//! ```

mod cookies;
mod extract;
mod guard;
mod identity;
mod layer;
mod navigation;
mod pages;
mod params;
mod problem;
mod respond;
mod routes;
mod seldom;
mod site;

use std::sync::Arc;

use axum::{Router, response::Response};
use claviger_core::request::Assurance;
use claviger_engine::{Caller, Denied, Engine, Grant};
use claviger_seal::{AccessHint, SessionCookie};
use http::{HeaderMap, Method, request::Parts};

pub use extract::{MaybeSignedIn, SignedIn};
pub use identity::{HEADER_NAME, HEADER_PROVIDER, HEADER_SESSION, HEADER_USER};
pub use layer::{Authenticate, ClavigerLayer};
pub use navigation::can_navigate;
pub use problem::{Problem, no_store};
pub use site::{SameSite, Site};

use seldom::Seldom;

/// An engine and the site that it serves. Cheap to clone.
#[derive(Clone)]
pub struct Claviger {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    site: Site,
    readiness: routes::Readiness,
    unknown_keys: Seldom,
    crossings: Seldom,
    refused_notices: Seldom,
}

impl Claviger {
    /// Puts an engine to work for a site.
    pub fn new(engine: Engine, site: Site) -> Self {
        let inner = Inner {
            engine,
            site,
            readiness: routes::Readiness::default(),
            unknown_keys: Seldom::default(),
            crossings: Seldom::default(),
            refused_notices: Seldom::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// What the outside sees of this app.
    pub fn site(&self) -> &Site {
        &self.inner.site
    }

    /// The public routes: sign-in, sign-out, the devices page, forward-auth, the webhook and health.
    pub fn routes(&self) -> Router {
        routes::router(self.clone())
    }

    /// The answer of `/auth/check` that lets a request pass, where memory knows enough to give it at once. None changes
    /// nothing, and leaves the answer to the route.
    ///
    /// For a server that asks here before it looks for a route: that costs as much as the check itself.
    pub fn check_at_once(&self, request: &mut Parts) -> Option<Response> {
        routes::check_at_once(self, request)
    }

    /// A layer that says of every request who is calling. Requests of nobody pass; [`SignedIn`] turns them away.
    pub fn layer(&self) -> ClavigerLayer {
        ClavigerLayer::new(self.clone(), Assurance::Session)
    }

    /// The same with another assurance.
    pub fn layer_with(&self, assurance: Assurance) -> ClavigerLayer {
        ClavigerLayer::new(self.clone(), assurance)
    }

    /// Says who is calling.
    ///
    /// # Errors
    /// See [`Engine::authenticate`].
    pub async fn caller(&self, headers: &HeaderMap, assurance: Assurance) -> Result<Caller, Denied> {
        self.engine().authenticate(self.cookie(headers)?, assurance).await
    }

    /// The request's session cookie, opened. A request that shows two is refused: one of them was planted.
    ///
    /// # Errors
    /// [`Denied::NoSession`] if there is none that opens; [`Denied::UnknownKey`].
    pub fn cookie(&self, headers: &HeaderMap) -> Result<SessionCookie, Denied> {
        let value = cookies::only(headers, self.site().session_cookie()).ok_or(Denied::NoSession)?;
        self.engine().open_cookie(value).inspect_err(|denied| {
            // Anybody can make up a cookie, so this is a hint for the operator and no proof.
            if let Denied::UnknownKey(id) = denied
                && self.inner.unknown_keys.may_say(self.engine().now())
            {
                tracing::error!(
                    key = id.0,
                    "a cookie names a key that is not in the keyring; nobody was signed out"
                );
            }
        })
    }

    /// The request's session cookie, if an older key sealed it: [`Claviger::renew_cookie`] wants it with the answer.
    pub fn outdated_cookie(&self, headers: &HeaderMap) -> Option<String> {
        if !self.engine().has_older_keys() {
            return None;
        }
        let value = cookies::only(headers, self.site().session_cookie())?;
        self.engine().is_cookie_outdated(value).then(|| value.to_owned())
    }

    /// Gives the browser the same session cookie, sealed with the key that seals now, if that is still right when the answer
    /// goes out, and no shared cache may keep the answer.
    pub fn renew_cookie(&self, answer: &mut HeaderMap, outdated: &str) {
        if let Some(value) = self.engine().cookie_anew(outdated)
            && cookies::make_private(answer)
        {
            cookies::set(answer, &self.site().session(value));
        }
    }

    /// The access token that the browser carries as a hint, if the configuration has it carry one.
    pub fn access_hint(&self, headers: &HeaderMap) -> Option<AccessHint> {
        if !self.engine().settings().carry_access_token {
            return None;
        }
        cookies::only(headers, self.site().hint_cookie())
            .and_then(|value| self.engine().open_access_hint(value))
    }

    /// Has the browser carry this grant as a hint, if the configuration wants it.
    pub fn set_access_hint(&self, headers: &mut HeaderMap, cookie: &SessionCookie, grant: &Grant) {
        if let Some(value) = self.engine().access_hint(cookie.session, grant) {
            cookies::set(headers, &self.site().hint(value));
        }
    }

    /// The answer to a request that is not served: a navigation gets the sign-in or a page, others get JSON.
    pub fn deny(&self, request: &Parts, denied: &Denied) -> Response {
        respond::denied(request, denied)
    }

    /// Lets a request pass unless it is unsafe and was not made by a page of this site.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn guard(&self, method: &Method, headers: &HeaderMap) -> Result<(), Response> {
        guard::judge(self.site(), method, headers).map_err(|crossed| self.refuse_crossing(headers, crossed))
    }

    /// The answer to a request that another site may have made.
    fn refuse_crossing(&self, headers: &HeaderMap, crossed: guard::Crossed) -> Response {
        if self.inner.crossings.may_say(self.engine().now()) {
            tracing::warn!(?crossed, "a cross-site request was refused; more within a minute are not logged");
        }
        respond::cross_site(headers, crossed)
    }

    /// Removes what only we may tell an app, and what an app must not see: inbound identity headers and our cookies.
    pub fn strip_request(&self, headers: &mut HeaderMap) {
        identity::strip(headers);
        cookies::strip(headers);
    }

    /// Tells an app who is calling.
    pub fn add_identity(&self, headers: &mut HeaderMap, caller: Caller) {
        identity::add(headers, caller);
    }
}
