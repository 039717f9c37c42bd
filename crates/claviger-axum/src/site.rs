//! What the outside sees of this app: its origin, and its cookies.

use std::net::IpAddr;

use claviger_core::policy::limits;
use cookie::{Cookie, time::Duration};

/// How far our session cookie travels (RFC 6265bis section 5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SameSite {
    /// Also with a click on a link from another site: else every such click would arrive signed out.
    #[default]
    Lax,
    /// Only from pages of this site.
    Strict,
}

/// What the outside sees of this app.
#[derive(Clone, Debug)]
pub struct Site {
    /// Scheme, host and port as browsers see them, such as `https://app.example`, without a slash at the end.
    pub origin: String,
    /// Plain http, for development only: cookies without `Secure` and without the `__Host-` prefix.
    pub insecure: bool,
    /// How far the session cookie travels.
    pub same_site: SameSite,
    /// Whose `X-Forwarded-…` headers count.
    pub trusted_proxies: Vec<IpAddr>,
    /// How long a browser keeps the session cookie. The server decides when a session ends.
    pub cookie_lifetime: std::time::Duration,
}

const SESSION: &str = "__Host-claviger";
const HINT: &str = "__Host-claviger-hint";
const LOGIN: &str = "__Host-claviger-login-";
const INSECURE_SESSION: &str = "claviger-insecure";
const INSECURE_HINT: &str = "claviger-insecure-hint";
const INSECURE_LOGIN: &str = "claviger-insecure-login-";

/// Browsers keep no cookie for longer (RFC 6265bis section 5.5).
const LONGEST_COOKIE: std::time::Duration = std::time::Duration::from_secs(400 * 24 * 60 * 60);

impl Site {
    /// A site with safe settings.
    pub fn new(origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            insecure: false,
            same_site: SameSite::Lax,
            trusted_proxies: Vec::new(),
            cookie_lifetime: claviger_core::policy::Lifetimes::default().absolute,
        }
    }

    /// The name of the session cookie.
    pub fn session_cookie(&self) -> &'static str {
        if self.insecure { INSECURE_SESSION } else { SESSION }
    }

    /// The name of the cookie that carries an access token as a hint.
    pub fn hint_cookie(&self) -> &'static str {
        if self.insecure { INSECURE_HINT } else { HINT }
    }

    /// The name of a sign-in's cookie without its tag.
    pub fn login_cookie_prefix(&self) -> &'static str {
        if self.insecure { INSECURE_LOGIN } else { LOGIN }
    }

    /// Whether a cookie of this name is ours, in either mode: none of them is an app's business.
    pub fn is_ours(name: &str) -> bool {
        [SESSION, HINT, INSECURE_SESSION, INSECURE_HINT].contains(&name)
            || name.starts_with(LOGIN)
            || name.starts_with(INSECURE_LOGIN)
    }

    pub(crate) fn session(&self, value: String) -> Cookie<'static> {
        self.cookie(self.session_cookie().to_owned(), value, self.cookie_lifetime)
    }

    pub(crate) fn hint(&self, value: String) -> Cookie<'static> {
        self.cookie(self.hint_cookie().to_owned(), value, self.cookie_lifetime)
    }

    /// A sign-in comes back from another site, so its cookie is never `Strict`.
    pub(crate) fn login(&self, tag: &str, value: String) -> Cookie<'static> {
        let name = format!("{}{tag}", self.login_cookie_prefix());
        let mut cookie = self.cookie(name, value, limits::LOGIN_LIFETIME);
        cookie.set_same_site(cookie::SameSite::Lax);
        cookie
    }

    /// The cookie that makes a browser forget the one of this name.
    pub(crate) fn removal(&self, name: &str) -> Cookie<'static> {
        self.cookie(name.to_owned(), String::new(), std::time::Duration::ZERO)
    }

    fn cookie(&self, name: String, value: String, lifetime: std::time::Duration) -> Cookie<'static> {
        let seconds = i64::try_from(lifetime.min(LONGEST_COOKIE).as_secs()).unwrap_or(i64::MAX);
        let mut cookie = Cookie::new(name, value);
        cookie.set_path("/");
        cookie.set_http_only(true);
        cookie.set_secure(!self.insecure);
        cookie.set_max_age(Duration::seconds(seconds));
        cookie.set_same_site(match self.same_site {
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::Strict => cookie::SameSite::Strict,
        });
        cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_cookie_is_as_strict_as_browsers_can_make_it() {
        let site = Site::new("https://app.example");
        assert_eq!(
            site.session("v".into()).to_string(),
            "__Host-claviger=v; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2592000"
        );
        assert_eq!(
            site.removal(site.session_cookie()).to_string(),
            "__Host-claviger=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0"
        );
    }

    #[test]
    fn a_sign_in_comes_back_even_where_the_session_cookie_stays() {
        let site = Site { same_site: SameSite::Strict, ..Site::new("https://app.example") };
        assert_eq!(
            site.login("t", "v".into()).to_string(),
            "__Host-claviger-login-t=v; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=600"
        );
        assert!(site.session("v".into()).to_string().contains("SameSite=Strict"));
    }

    #[test]
    fn development_cookies_have_names_that_say_so() {
        let site = Site { insecure: true, ..Site::new("http://localhost:8080") };
        assert_eq!(
            site.session("v".into()).to_string(),
            "claviger-insecure=v; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000"
        );
    }

    #[test]
    fn no_cookie_outlives_what_browsers_keep() {
        let site = Site { cookie_lifetime: std::time::Duration::MAX, ..Site::new("https://app.example") };
        assert!(site.session("v".into()).to_string().ends_with("Max-Age=34560000"));
    }
}
