//! The contents of our cookies, and their limits.

use std::fmt;

use aws_lc_rs::hmac;
use claviger_core::{
    AccessToken, CodeVerifier, ProviderName, ReturnTo, SessionId, SessionSecret, Subject, Timestamp, Version,
    limits::COOKIE_BYTES, limits::SESSION_COOKIE_BYTES,
};

use crate::{
    encoding::{Reader, Writer},
    envelope::{Nonce, OVERHEAD_BYTES, OpenError},
    keyring::{CookiePurpose, Keyring},
};

/// Maximum length of a cookie's name, `__Host-` included.
pub const NAME_BYTES: usize = 40;

/// Maximum plaintext of the session cookie, in bytes, so that name and value stay within their
/// limit.
const SESSION_PLAIN_BYTES: usize = plain_bytes(SESSION_COOKIE_BYTES - NAME_BYTES - 1);
/// The session's id, its secret, and the end of its validity.
const SESSION_FIXED_BYTES: usize = 16 + 32 + 8;
const SESSION_ID: &[u8] = b"claviger session id of a sign-in, format 1";
const SESSION_SECRET: &[u8] = b"claviger session secret of a sign-in, format 1";
/// Maximum plaintext of the other cookies, in bytes. Browsers set this limit.
const PLAIN_BYTES: usize = plain_bytes(COOKIE_BYTES - NAME_BYTES);

/// Returns how many bytes fit into a sealed value: base64 writes four characters for three bytes.
const fn plain_bytes(value_chars: usize) -> usize {
    value_chars * 3 / 4 - OVERHEAD_BYTES
}

/// The session cookie: the session's id and the secret that proves its possession. Set at sign-in,
/// removed at sign-out.
#[derive(Clone, Debug)]
pub struct SessionCookie {
    /// The session.
    pub session: SessionId,
    /// Proves that the browser may use the session.
    pub secret: SessionSecret,
    /// Until when the cookie alone vouches for its session. Neither later settings nor a forgotten
    /// tombstone extend it.
    pub good_until: Timestamp,
    /// The user, if it fits.
    pub identity: Option<CookieIdentity>,
}

/// The user of a session, so that assurance `cookie` needs no read of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieIdentity {
    /// The user.
    pub subject: Subject,
    /// The user's name, cut if it is long.
    pub display_name: String,
}

impl SessionCookie {
    /// Seals the cookie. With a name of up to [`NAME_BYTES`] it stays below
    /// [`SESSION_COOKIE_BYTES`]: a long display name is cut, and an identity whose subject does not
    /// fit is left out.
    pub fn seal(&self, ring: &Keyring, nonce: Nonce) -> String {
        let mut writer = Writer::with_capacity(SESSION_PLAIN_BYTES);
        writer.fixed(self.session.as_bytes()).fixed(self.secret.expose());
        writer.fixed(&self.good_until.as_millis().to_be_bytes());
        if let Some((identity, name)) = self.identity.as_ref().and_then(CookieIdentity::fitting) {
            writer.text(&identity.subject.provider.0).text(&identity.subject.id).text(name);
        }
        ring.seal_cookie(CookiePurpose::Session, writer.bytes(), nonce)
    }

    /// Opens a cookie.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(ring: &Keyring, value: &str) -> Result<Self, OpenError> {
        let plain = ring.open_cookie(CookiePurpose::Session, value)?;
        let mut reader = Reader::new(&plain);
        let session = SessionId::from_bytes(reader.fixed()?);
        let secret = SessionSecret::new(reader.fixed()?);
        let good_until = Timestamp::from_millis(i64::from_be_bytes(reader.fixed()?));
        let identity = if reader.is_empty() { None } else { Some(CookieIdentity::read(&mut reader)?) };
        reader.end()?;
        Ok(Self { session, secret, good_until, identity })
    }
}

impl CookieIdentity {
    /// Returns the identity and the part of the display name that fits, or `None` if the subject is
    /// too long.
    fn fitting(&self) -> Option<(&Self, &str)> {
        // Each of the three lengths is below 128, so it takes one byte.
        const { assert!(SESSION_PLAIN_BYTES - SESSION_FIXED_BYTES < 128) };
        let taken = SESSION_FIXED_BYTES + 3 + self.subject.provider.0.len() + self.subject.id.len();
        let room = SESSION_PLAIN_BYTES.checked_sub(taken)?;
        let name = self.display_name.as_str();
        let end = (0..=room.min(name.len())).rev().find(|end| name.is_char_boundary(*end))?;
        Some((self, name.get(..end)?))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, OpenError> {
        let provider = ProviderName(reader.text()?.to_owned());
        let id = reader.text()?.to_owned();
        Ok(Self { subject: Subject { provider, id }, display_name: reader.text()?.to_owned() })
    }
}

/// A copy of the access token in a cookie of its own (`carry_access_token`). It saves a read of the
/// store and proves nothing.
#[derive(Clone, Debug)]
pub struct CachedToken {
    /// The session whose token it is.
    pub session: SessionId,
    /// The generation of the pair.
    pub generation: Version,
    /// The token.
    pub token: AccessToken,
    /// When the token expires.
    pub expires_at: Timestamp,
}

impl CachedToken {
    /// Seals the cookie. Returns `None` if it would be larger than browsers accept.
    pub fn seal(&self, ring: &Keyring, nonce: Nonce) -> Option<String> {
        let mut writer = Writer::with_room_for([16, 8, 8, self.token.expose().len()].into_iter());
        writer
            .fixed(self.session.as_bytes())
            .fixed(&self.generation.0.to_be_bytes())
            .fixed(&self.expires_at.as_millis().to_be_bytes())
            .text(self.token.expose());
        let fits = writer.bytes().len() <= PLAIN_BYTES;
        fits.then(|| ring.seal_cookie(CookiePurpose::CachedToken, writer.bytes(), nonce))
    }

    /// Opens a cookie.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(ring: &Keyring, value: &str) -> Result<Self, OpenError> {
        let plain = ring.open_cookie(CookiePurpose::CachedToken, value)?;
        let mut reader = Reader::new(&plain);
        let cached = Self {
            session: SessionId::from_bytes(reader.fixed()?),
            generation: Version(u64::from_be_bytes(reader.fixed()?)),
            expires_at: Timestamp::from_millis(i64::from_be_bytes(reader.fixed()?)),
            token: AccessToken::new(reader.text()?),
        };
        reader.end()?;
        Ok(cached)
    }
}

/// The cookie of a sign-in in progress. It binds the provider's callback to the browser that began
/// it.
#[derive(Clone)]
pub struct LoginCookie {
    /// The provider.
    pub provider: ProviderName,
    /// The state that the callback must bring back (RFC 6749 section 10.12).
    pub state: [u8; 32],
    /// The verifier for the exchange of the code (RFC 7636 section 4.1).
    pub verifier: CodeVerifier,
    /// The redirect URI of the authorization request, repeated in the exchange (RFC 6749 section
    /// 4.1.3).
    pub redirect_uri: String,
    /// Where the browser goes afterwards.
    pub return_to: ReturnTo,
    /// When the sign-in began.
    pub started_at: Timestamp,
    /// The session to repair. `None` creates a new one.
    pub repairs: Option<SessionId>,
}

impl LoginCookie {
    /// Seals the cookie. If a long `return_to` would make it larger than browsers accept, a page
    /// that says so takes its place, so that the sign-in still works.
    pub fn seal(&self, ring: &Keyring, nonce: Nonce) -> String {
        let whole = self.write(&self.return_to);
        let fits = whole.bytes().len() <= PLAIN_BYTES;
        let writer = if fits { whole } else { self.write(&ReturnTo::lost()) };
        ring.seal_cookie(CookiePurpose::Login, writer.bytes(), nonce)
    }

    /// Opens a cookie.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(ring: &Keyring, value: &str) -> Result<Self, OpenError> {
        let plain = ring.open_cookie(CookiePurpose::Login, value)?;
        let mut reader = Reader::new(&plain);
        let mut login = Self {
            state: reader.fixed()?,
            started_at: Timestamp::from_millis(i64::from_be_bytes(reader.fixed()?)),
            provider: ProviderName(reader.text()?.to_owned()),
            verifier: CodeVerifier::new(reader.text()?),
            redirect_uri: reader.text()?.to_owned(),
            return_to: ReturnTo::parse(reader.text()?).ok_or(OpenError::Invalid)?,
            repairs: None,
        };
        if !reader.is_empty() {
            login.repairs = Some(SessionId::from_bytes(reader.fixed()?));
        }
        reader.end()?;
        Ok(login)
    }

    /// Returns the session that this sign-in begins, and its secret. Both follow from the verifier,
    /// which only this cookie holds, so a callback that comes twice leads to one session.
    pub fn session(&self) -> (SessionId, SessionSecret) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.verifier.expose().as_bytes());
        let derive = |label: &[u8]| {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(hmac::sign(&key, &[label, &self.state].concat()).as_ref());
            bytes
        };
        let mut random = [0; 10];
        random.iter_mut().zip(derive(SESSION_ID)).for_each(|(byte, derived)| *byte = derived);
        (SessionId::new(self.started_at, random), SessionSecret::new(derive(SESSION_SECRET)))
    }

    fn write(&self, return_to: &ReturnTo) -> Writer {
        let texts = [&self.provider.0, self.verifier.expose(), &self.redirect_uri, return_to.as_str()];
        let fixed = [self.state.len(), size_of::<i64>(), size_of::<SessionId>()];
        let lengths = texts.iter().map(|text| text.len()).chain(fixed);
        let mut writer = Writer::with_room_for(lengths);
        writer.fixed(&self.state).fixed(&self.started_at.as_millis().to_be_bytes());
        for text in texts {
            writer.text(text);
        }
        if let Some(session) = &self.repairs {
            writer.fixed(session.as_bytes());
        }
        writer
    }
}

impl fmt::Debug for LoginCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginCookie")
            .field("provider", &self.provider)
            .field("redirect_uri", &self.redirect_uri)
            .field("started_at", &self.started_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
