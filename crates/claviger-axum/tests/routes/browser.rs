//! A browser with cookies and Fetch Metadata. It panics where a browser would silently drop a
//! cookie.

use axum::body::Body;
use claviger_core::{SessionId, Timestamp};
use http::{HeaderValue, Method, Request, header, request::Builder};

use crate::{
    answer::Answer,
    site::{App, ORIGIN},
};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[derive(Clone, Debug)]
pub(crate) struct Browser {
    jar: Vec<Stored>,
    pub(crate) user_agent: String,
}

#[derive(Clone, Debug)]
struct Stored {
    name: String,
    value: String,
    strict: bool,
    expires_at: Timestamp,
}

/// What makes the browser send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The user, who typed the address.
    User,
    /// A page of this site.
    ThisSite,
    /// A page of a sibling site, such as `other.app.example`.
    Sibling,
    /// A page of another site.
    Elsewhere,
}

impl From {
    fn fetch_site(self) -> &'static str {
        match self {
            Self::User => "none",
            Self::ThisSite => "same-origin",
            Self::Sibling => "same-site",
            Self::Elsewhere => "cross-site",
        }
    }

    fn origin(self) -> &'static str {
        match self {
            Self::User => "null",
            Self::ThisSite => ORIGIN,
            Self::Sibling => "https://other.app.example",
            Self::Elsewhere => "https://evil.example",
        }
    }
}

impl Browser {
    pub(crate) fn new() -> Self {
        let user_agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".to_owned();
        Self { jar: Vec::new(), user_agent }
    }

    pub(crate) fn called(user_agent: &str) -> Self {
        Self { user_agent: user_agent.to_owned(), ..Self::new() }
    }

    /// Opens an address in the window.
    pub(crate) async fn opens(&mut self, app: &App, path: &str) -> Answer {
        self.follows(app, path, From::User).await
    }

    /// Opens an address in the window, from a page.
    pub(crate) async fn follows(&mut self, app: &App, path: &str, from: From) -> Answer {
        let request = self.request(app, Method::GET, path, from);
        let request = request
            .header("accept", HTML)
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-user", "?1");
        self.send(app, request).await
    }

    /// Follows a failed callback to the page that says why. Its address has neither code nor state.
    pub(crate) async fn reads_failure(&mut self, app: &App, callback: &Answer) -> Answer {
        let page = callback.location();
        assert!(page.starts_with("/auth/failed?error="), "{callback:?}");
        assert!(!page.contains("code=") && !page.contains("state="), "{page}");
        self.follows(app, page, From::Elsewhere).await
    }

    /// Sends a GET from a script of this site.
    pub(crate) async fn fetches(&mut self, app: &App, path: &str) -> Answer {
        let request = self.request(app, Method::GET, path, From::ThisSite);
        self.send(app, as_fetch(request)).await
    }

    /// Sends a POST from a script of this site.
    pub(crate) async fn posts(&mut self, app: &App, path: &str) -> Answer {
        let request = self.request(app, Method::POST, path, From::ThisSite).header("origin", ORIGIN);
        self.send(app, as_fetch(request)).await
    }

    /// Submits a form of a page.
    pub(crate) async fn submits(&mut self, app: &App, path: &str, from: From) -> Answer {
        let request = self.request(app, Method::POST, path, from);
        let request = request
            .header("accept", HTML)
            .header("origin", from.origin())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document");
        self.send(app, request).await
    }

    /// Sends a prepared request.
    pub(crate) async fn send(&mut self, app: &App, request: Builder) -> Answer {
        let answer = app.send(request.body(Body::empty()).unwrap()).await;
        self.take(app, &answer);
        answer
    }

    /// Builds a request with this browser's cookies and without Fetch Metadata.
    pub(crate) fn bare(&self, app: &App, method: Method, path: &str) -> Builder {
        self.with_cookies(app, Request::builder().method(method).uri(path), |_| true)
    }

    fn request(&self, app: &App, method: Method, path: &str, from: From) -> Builder {
        let top_level_get = method == Method::GET;
        let allowed = |cookie: &Stored| match from {
            From::Elsewhere => top_level_get && !cookie.strict,
            _ => true,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::USER_AGENT, HeaderValue::from_bytes(self.user_agent.as_bytes()).unwrap())
            .header("sec-fetch-site", from.fetch_site());
        self.with_cookies(app, request, allowed)
    }

    /// Adds the cookies, oldest first (RFC 6265bis section 5.8.3).
    fn with_cookies(&self, app: &App, request: Builder, allowed: impl Fn(&Stored) -> bool) -> Builder {
        let sent = self.jar.iter().filter(|cookie| cookie.expires_at > app.now() && allowed(cookie));
        let pairs: Vec<String> = sent.map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        if pairs.is_empty() { request } else { request.header(header::COOKIE, pairs.join("; ")) }
    }

    /// Signs in, and returns the callback's answer.
    pub(crate) async fn signs_in(&mut self, app: &App, user: &str) -> Answer {
        let callback = self.reaches_provider(app, user, "/auth/login").await;
        let mut answer = self.follows(app, &callback, From::Elsewhere).await;
        if let Some(next) = answer.goes_on_to() {
            answer = self.follows(app, &next, From::ThisSite).await;
        }
        assert!(answer.touches_session() || app.claviger.site().insecure, "no sign-in: {answer:?}");
        answer
    }

    /// Begins a sign-in in which the user agrees, and returns the path that the provider redirects
    /// to.
    pub(crate) async fn reaches_provider(&mut self, app: &App, user: &str, login: &str) -> String {
        let started = self.follows(app, login, From::ThisSite).await;
        path_of(&app.twitch.agree(user, started.location()))
    }

    /// Stores and removes cookies as the answer says.
    fn take(&mut self, app: &App, answer: &Answer) {
        for line in answer.set_cookies() {
            let cookie = read(line, app);
            let known = self.jar.iter().position(|stored| stored.name == cookie.name);
            match (known, cookie.expires_at > app.now()) {
                (Some(at), true) => self.jar[at] = cookie,
                (None, true) => self.jar.push(cookie),
                (Some(at), false) => drop(self.jar.remove(at)),
                (None, false) => {}
            }
        }
    }

    /// Returns the value of a stored cookie.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        self.jar.iter().find(|stored| stored.name == name).map(|stored| stored.value.as_str())
    }

    /// Returns the names of the stored cookies, oldest first.
    pub(crate) fn cookie_names(&self) -> Vec<&str> {
        self.jar.iter().map(|stored| stored.name.as_str()).collect()
    }

    /// Returns the names of the stored cookies without those of sign-ins, which live for minutes.
    pub(crate) fn lasting_cookie_names(&self) -> Vec<&str> {
        self.cookie_names().into_iter().filter(|name| !name.contains("-login-")).collect()
    }

    /// Stores a cookie, or replaces its value.
    pub(crate) fn plant(&mut self, name: &str, value: &str) {
        self.jar.retain(|stored| stored.name != name);
        let (name, value) = (name.to_owned(), value.to_owned());
        self.jar.push(Stored { name, value, strict: false, expires_at: Timestamp::from_millis(i64::MAX) });
    }

    /// Keeps cookies beyond their expiry from now on.
    pub(crate) fn ignores_expiry(&mut self) {
        for stored in &mut self.jar {
            stored.expires_at = Timestamp::from_millis(i64::MAX);
        }
    }

    /// Returns the session id in the cookie.
    pub(crate) fn session(&self, app: &App) -> SessionId {
        let value = self.cookie(app.claviger.site().session_cookie()).expect("signed in");
        app.claviger.engine().open_cookie(value).unwrap().session
    }

    /// Returns whether the app knows this browser as signed in.
    pub(crate) async fn is_signed_in(&self, app: &App) -> bool {
        self.clone().fetches(app, "/auth/session").await.status == http::StatusCode::OK
    }
}

fn as_fetch(request: Builder) -> Builder {
    request.header("accept", "*/*").header("sec-fetch-mode", "cors").header("sec-fetch-dest", "empty")
}

/// Returns the path and query of an address of this site.
pub(crate) fn path_of(address: &str) -> String {
    address.parse::<http::Uri>().unwrap().path_and_query().unwrap().to_string()
}

/// Parses a Set-Cookie line, and panics where a browser refuses it (RFC 6265bis sections 5.6 and
/// 5.7).
fn read(line: &str, app: &App) -> Stored {
    let mut parts = line.split("; ");
    let (name, value) = parts.next().unwrap().split_once('=').unwrap();
    let attributes: Vec<(&str, &str)> =
        parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    let attribute = |name: &str| attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    assert!(name.len() + value.len() <= 4096, "a browser drops a cookie of this size: {line}");
    assert!(attributes.iter().all(|(_, value)| value.len() <= 1024), "{line}");
    let secure = attribute("Secure").is_some();
    let https = app.claviger.site().origin.starts_with("https://");
    if name.starts_with("__Host-") {
        let fits = secure && https && attribute("Path") == Some("/") && attribute("Domain").is_none();
        assert!(fits, "a browser refuses {line}");
    }
    assert!(!secure || https, "a browser refuses {line}");
    assert!(attribute("HttpOnly").is_some(), "no script may read {line}");
    let lifetime = attribute("Max-Age").expect("every cookie says how long it lives").parse().unwrap();
    Stored {
        name: name.to_owned(),
        value: value.to_owned(),
        strict: attribute("SameSite").expect("SameSite is always explicit") == "Strict",
        expires_at: app.now().after(std::time::Duration::from_secs(lifetime)),
    }
}
