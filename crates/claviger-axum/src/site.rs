//! The site as browsers see it: its origin and its cookies.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
};

use claviger_core::{
    limits,
    request::{host, network::Network, routes::Policy},
};
use cookie::{Cookie, time::Duration};
use http::HeaderValue;

claviger_core::named! {
    /// On which requests browsers send the session cookie (RFC 6265bis section 5.6.7).
    #[derive(Default)]
    pub enum SameSite {
        /// Also on links from other sites. Without this, a user who follows such a link looks
        /// signed out.
        #[default]
        Lax = "lax",
        /// Only on requests from pages of this site.
        Strict = "strict",
    }
}

claviger_core::named! {
    /// What a browser keeps of a site (W3C Clear Site Data).
    pub enum SiteData {
        /// Pages and files.
        Cache = "cache",
        /// All cookies, those of the app too.
        Cookies = "cookies",
        /// What scripts of the app stored.
        Storage = "storage",
    }
}

/// The site as browsers see it.
#[derive(Clone, Debug)]
pub struct Site {
    /// Scheme, host and port, such as `https://app.example`, without a slash at the end.
    pub origin: String,
    /// Plain HTTP, for development only: cookies without `Secure` and the `__Host-` prefix.
    pub insecure: bool,
    /// On which requests browsers send the session cookie.
    pub same_site: SameSite,
    /// Addresses and networks of proxies that may say from whom a request came.
    pub trusted_proxies: Vec<Network>,
    /// Whether a peer that uses a Unix socket may say so too.
    pub trusts_unix_peers: bool,
    /// Other hosts under which browsers may reach this server.
    pub other_hosts: Vec<String>,
    /// What the paths of the app need at least, where a front proxy asks about them.
    pub routes: Policy,
    /// What a browser erases when it signs out.
    pub clear_site_data: Vec<SiteData>,
    /// How long browsers keep the session cookie. The server decides when the session ends.
    pub cookie_lifetime: std::time::Duration,
}

/// What one of our cookies is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    /// The session cookie.
    Session,
    /// The cookie that carries an access token.
    CachedToken,
    /// A sign-in under way.
    Login,
    /// Says to which address at the public host the browser was just led.
    LedHere,
    /// Of the other mode, or misspelt. It counts for nothing, and no app sees it.
    Stray,
}

const SESSION: &str = "__Host-claviger";
const CACHED_TOKEN: &str = "__Host-claviger-hint";
const LOGIN: &str = "__Host-claviger-login-";
/// It is set at any host, over any scheme, and grants nothing, so it needs no prefix.
const LED_HERE: &str = "claviger-led-here";
const INSECURE_SESSION: &str = "claviger-insecure";
const INSECURE_CACHED_TOKEN: &str = "claviger-insecure-hint";
const INSECURE_LOGIN: &str = "claviger-insecure-login-";

/// Browsers keep no cookie for longer (RFC 6265bis section 5.5).
const LONGEST_COOKIE: std::time::Duration = std::time::Duration::from_secs(400 * 24 * 60 * 60);

impl Site {
    /// Creates a site with safe settings. Of an address such as `https://app.example/` only the
    /// origin is kept, as browsers write it.
    pub fn new(origin: impl AsRef<str>) -> Self {
        Self {
            origin: as_origin(origin.as_ref()),
            insecure: false,
            same_site: SameSite::Lax,
            trusted_proxies: Vec::new(),
            trusts_unix_peers: false,
            other_hosts: Vec::new(),
            routes: Policy::default(),
            clear_site_data: vec![SiteData::Cache],
            cookie_lifetime: claviger_core::policy::Lifetimes::default().absolute,
        }
    }

    /// Returns whether this is the address of a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// Returns the host of the origin, without its port.
    pub fn host(&self) -> &str {
        let authority = self.authority();
        host::name(authority.as_bytes()).unwrap_or(authority)
    }

    /// The host of the origin with its port, if that is not the usual one.
    pub(crate) fn authority(&self) -> &str {
        let rest = self.origin.strip_prefix("https://").or_else(|| self.origin.strip_prefix("http://"));
        rest.unwrap_or(&self.origin)
    }

    /// Returns the value of `Clear-Site-Data` at a sign-out, if there is one.
    pub(crate) fn cleared(&self) -> Option<HeaderValue> {
        let kinds: Vec<String> =
            self.clear_site_data.iter().map(|kind| format!("\"{}\"", kind.name())).collect();
        HeaderValue::try_from(kinds.join(", ")).ok().filter(|value| !value.is_empty())
    }

    /// Returns the name of the session cookie.
    pub fn session_cookie(&self) -> &'static str {
        if self.insecure { INSECURE_SESSION } else { SESSION }
    }

    /// Returns the name of the cookie that carries an access token.
    pub fn cached_token_cookie(&self) -> &'static str {
        if self.insecure { INSECURE_CACHED_TOKEN } else { CACHED_TOKEN }
    }

    /// Returns the name of a sign-in cookie up to its suffix.
    pub fn login_cookie_prefix(&self) -> &'static str {
        if self.insecure { INSECURE_LOGIN } else { LOGIN }
    }

    /// Returns whether a cookie of this name is ours, in either mode. Apps see none of them.
    pub fn is_ours(name: &str) -> bool {
        is_ours(name.as_bytes())
    }

    /// Returns what a cookie of this name is to us, if it is ours in either mode.
    pub(crate) fn ours(&self, name: &[u8], has_value: bool) -> Option<Ours> {
        // A server may trim the name, so a name with space at its end is ours too.
        if !is_ours(name.trim_ascii_end()) {
            return None;
        }
        let is = |known: &str| has_value && name == known.as_bytes();
        Some(if is(self.session_cookie()) {
            Ours::Session
        } else if is(self.cached_token_cookie()) {
            Ours::CachedToken
        } else if has_value && name.starts_with(self.login_cookie_prefix().as_bytes()) {
            Ours::Login
        } else if is(LED_HERE) {
            Ours::LedHere
        } else {
            Ours::Stray
        })
    }

    pub(crate) fn session(&self, value: String) -> Cookie<'static> {
        self.cookie(self.session_cookie().to_owned(), value, self.cookie_lifetime)
    }

    pub(crate) fn cached_token(&self, value: String) -> Cookie<'static> {
        self.cookie(self.cached_token_cookie().to_owned(), value, self.cookie_lifetime)
    }

    /// A sign-in comes back from another site, so its cookie is never `Strict`.
    pub(crate) fn login(&self, suffix: &str, value: String) -> Cookie<'static> {
        let name = format!("{}{suffix}", self.login_cookie_prefix());
        let mut cookie = self.cookie(name, value, limits::LOGIN_LIFETIME);
        cookie.set_same_site(cookie::SameSite::Lax);
        cookie
    }

    /// Builds the cookie of a sign-in that is finished, in case its callback is delivered again. It
    /// knows the destination too, for a user who goes back.
    pub(crate) fn finished_login(&self, name: &str, value: &str) -> Cookie<'static> {
        let mut cookie = self.cookie(name.to_owned(), value.to_owned(), limits::LOGIN_LIFETIME);
        cookie.set_same_site(cookie::SameSite::Lax);
        cookie
    }

    /// Builds the cookie that says that the browser was just led to this path and query at the
    /// public host.
    pub fn led_here_cookie(&self, target: &str) -> Cookie<'static> {
        let mut cookie = self.cookie(LED_HERE.to_owned(), mark(target), limits::LED_HERE);
        cookie.set_same_site(cookie::SameSite::Lax);
        cookie
    }

    /// Builds the cookie that removes the one of this name.
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

/// A short mark of a path and query. It hides what a query may hold.
pub(crate) fn mark(target: &str) -> String {
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn is_ours(name: &[u8]) -> bool {
    let known = [SESSION, CACHED_TOKEN, INSECURE_SESSION, INSECURE_CACHED_TOKEN, LED_HERE];
    // The app's own cookies fail here at once.
    (name.starts_with(b"__Host-claviger") || name.starts_with(b"claviger-"))
        && (known.iter().any(|known| name == known.as_bytes())
            || [LOGIN, INSECURE_LOGIN].iter().any(|prefix| name.starts_with(prefix.as_bytes())))
}

/// The scheme and authority of an address, in lower case and without the usual port (RFC 6454
/// section 6.2).
fn as_origin(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("https", address));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let scheme = scheme.to_ascii_lowercase();
    let usual = if scheme == "http" { ":80" } else { ":443" };
    format!("{scheme}://{}", authority.strip_suffix(usual).unwrap_or(&authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_cookie_has_all_safe_attributes() {
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
    fn the_sign_in_cookie_is_never_strict() {
        let site = Site { same_site: SameSite::Strict, ..Site::new("https://app.example") };
        assert_eq!(
            site.login("t", "v".into()).to_string(),
            "__Host-claviger-login-t=v; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=600"
        );
        assert!(site.session("v".into()).to_string().contains("SameSite=Strict"));
    }

    #[test]
    fn insecure_cookies_have_other_names() {
        let site = Site { insecure: true, ..Site::new("http://localhost:8080") };
        assert_eq!(
            site.session("v".into()).to_string(),
            "claviger-insecure=v; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000"
        );
    }

    #[test]
    fn cookie_lifetime_is_capped_at_400_days() {
        let site = Site { cookie_lifetime: std::time::Duration::MAX, ..Site::new("https://app.example") };
        assert!(site.session("v".into()).to_string().ends_with("Max-Age=34560000"));
    }

    #[test]
    fn only_the_origin_of_an_address_is_kept() {
        let table = [
            ("https://app.example/", "https://app.example"),
            ("HTTPS://App.Example:443/path?x#y", "https://app.example"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://localhost:80/", "http://localhost"),
            ("https://[::1]:8443/", "https://[::1]:8443"),
        ];
        for (address, origin) in table {
            assert_eq!(Site::new(address).origin, origin, "{address}");
        }
    }
}
