//! What goes into a sign-in and comes out of it.

use std::{fmt, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{AuthorizationCode, ReturnTo, SessionId};
use sha2::{Digest, Sha256};

/// A sign-in that has begun.
pub struct LoginStarted {
    /// Where to send the browser.
    pub location: String,
    /// Distinguishes this sign-in's cookie from those of other tabs.
    pub cookie_suffix: String,
    /// The cookie's value.
    pub cookie: String,
}

/// What the provider sent the browser back with, and from where the browser came.
#[derive(Clone, Default)]
pub struct Callback {
    /// The state that the sign-in began with.
    pub state: String,
    /// The code, if the user agreed.
    pub code: Option<AuthorizationCode>,
    /// The provider's error code, if not (RFC 6749 section 4.1.2.1).
    pub error: Option<String>,
    /// The issuer that answers (RFC 9207).
    pub iss: Option<String>,
    /// The browser's own address, if it is known.
    pub address: Option<IpAddr>,
}

/// A sign-in that succeeded.
pub struct FinishedSignIn {
    /// The session.
    pub session: SessionId,
    /// The value of its cookie. None if the browser's own session was repaired and keeps its
    /// cookie.
    pub cookie: Option<String>,
    /// The value of the cached-token cookie, if the settings want one.
    pub cached_token_cookie: Option<String>,
    /// Where the browser wanted to go.
    pub return_to: ReturnTo,
}

/// Distinguishes the cookie of the sign-in with this state from those of other tabs. It does not
/// reveal the state.
pub fn login_cookie_suffix(state: &str) -> String {
    let digest = Sha256::digest(state.as_bytes());
    URL_SAFE_NO_PAD.encode(digest).chars().take(10).collect()
}

/// Cookie values and states are secrets, so none of these shows them.
impl fmt::Debug for LoginStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginStarted").field("cookie_suffix", &self.cookie_suffix).finish_non_exhaustive()
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state: _, code, error, iss, address: _ } = self;
        let mut shown = f.debug_struct("Callback");
        shown.field("code", code).field("error", error).field("iss", iss).finish_non_exhaustive()
    }
}

impl fmt::Debug for FinishedSignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, return_to, .. } = self;
        let mut shown = f.debug_struct("FinishedSignIn");
        shown.field("session", session).field("return_to", return_to).finish_non_exhaustive()
    }
}
