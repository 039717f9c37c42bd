//! What our cookies hold, and how much of it fits.

use std::fmt;

use claviger_core::{
    ids::{ProviderName, SessionId, Subject, Version},
    policy::limits::{COOKIE_BYTES, SESSION_COOKIE_BYTES},
    return_to::ReturnTo,
    secret::{AccessToken, CodeVerifier, SessionSecret},
    time::Timestamp,
};

use crate::{
    encoding::{Reader, Writer},
    envelope::{Nonce, OVERHEAD_BYTES, OpenError},
    keyring::{CookiePurpose, Keyring},
};

/// Cookie names are taken to be at most this long, `__Host-` included.
pub const NAME_BYTES: usize = 40;

/// The most octets that the session cookie may hold inside, so that name and value stay below their limit.
const SESSION_PLAIN_BYTES: usize = plain_bytes(SESSION_COOKIE_BYTES - NAME_BYTES - 1);
/// The session's id, its secret, and until when it is good.
const SESSION_FIXED_BYTES: usize = 16 + 32 + 8;
/// The same for the other cookies, whose limit is the browsers'.
const PLAIN_BYTES: usize = plain_bytes(COOKIE_BYTES - NAME_BYTES);

/// What fits inside a sealed value of so many characters: base64 has four for three octets.
const fn plain_bytes(value_chars: usize) -> usize {
    value_chars * 3 / 4 - OVERHEAD_BYTES
}

/// The session cookie: it names the session and holds the secret that opens it. Set at sign-in, cleared at sign-out.
#[derive(Clone, Debug)]
pub struct SessionCookie {
    /// The session.
    pub session: SessionId,
    /// What proves that the browser may use it.
    pub secret: SessionSecret,
    /// Until when the cookie alone may vouch for its session. Later settings and forgotten tombstones cannot extend it.
    pub good_until: Timestamp,
    /// Who signed in, if it fits.
    pub identity: Option<CookieIdentity>,
}

/// Who signed in, so that a request with assurance `cookie` is answered without reading the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieIdentity {
    /// The user.
    pub subject: Subject,
    /// What the user is called; the beginning of it, if it is long.
    pub display_name: String,
}

impl SessionCookie {
    /// Seals the cookie's value. With a name of up to [`NAME_BYTES`] it stays below [`SESSION_COOKIE_BYTES`]: a long
    /// display name is cut, and an identity whose subject does not fit is left out.
    pub fn seal(&self, ring: &Keyring, nonce: Nonce) -> String {
        let mut writer = Writer::with_capacity(SESSION_PLAIN_BYTES);
        writer.fixed(self.session.as_bytes()).fixed(self.secret.expose());
        writer.fixed(&self.good_until.as_millis().to_be_bytes());
        if let Some((identity, name)) = self.identity.as_ref().and_then(CookieIdentity::fitting) {
            writer.text(&identity.subject.provider.0).text(&identity.subject.id).text(name);
        }
        ring.seal_cookie(CookiePurpose::Session, writer.bytes(), nonce)
    }

    /// Opens a cookie's value.
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
    /// The identity and as much of the display name as fits; none if the subject alone is too long.
    fn fitting(&self) -> Option<(&Self, &str)> {
        // Each of the three lengths takes one octet: what they count is below 128.
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

/// The cookie of `carry_access_token`: a copy of the access token that saves a read of the store. A hint, never authority.
#[derive(Clone, Debug)]
pub struct AccessHint {
    /// The session whose token it is.
    pub session: SessionId,
    /// The generation of the pair.
    pub generation: Version,
    /// The token.
    pub token: AccessToken,
    /// When the token expires.
    pub expires_at: Timestamp,
}

impl AccessHint {
    /// Seals the cookie's value; none if it would be larger than a browser keeps.
    pub fn seal(&self, ring: &Keyring, nonce: Nonce) -> Option<String> {
        let mut writer = Writer::with_room_for([16, 8, 8, self.token.expose().len()].into_iter());
        writer
            .fixed(self.session.as_bytes())
            .fixed(&self.generation.0.to_be_bytes())
            .fixed(&self.expires_at.as_millis().to_be_bytes())
            .text(self.token.expose());
        let fits = writer.bytes().len() <= PLAIN_BYTES;
        fits.then(|| ring.seal_cookie(CookiePurpose::AccessHint, writer.bytes(), nonce))
    }

    /// Opens a cookie's value.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(ring: &Keyring, value: &str) -> Result<Self, OpenError> {
        let plain = ring.open_cookie(CookiePurpose::AccessHint, value)?;
        let mut reader = Reader::new(&plain);
        let hint = Self {
            session: SessionId::from_bytes(reader.fixed()?),
            generation: Version(u64::from_be_bytes(reader.fixed()?)),
            expires_at: Timestamp::from_millis(i64::from_be_bytes(reader.fixed()?)),
            token: AccessToken::new(reader.text()?),
        };
        reader.end()?;
        Ok(hint)
    }
}

/// The cookie of a sign-in that is under way: it binds the provider's callback to the browser that asked for it.
#[derive(Clone)]
pub struct LoginCookie {
    /// The provider that was asked.
    pub provider: ProviderName,
    /// What the callback must bring back (RFC 6749 section 10.12).
    pub state: [u8; 32],
    /// What the exchange of the code must bring (RFC 7636 section 4.1).
    pub verifier: CodeVerifier,
    /// The redirect URI of the request, for its exchange (RFC 6749 section 4.1.3).
    pub redirect_uri: String,
    /// Where the browser wants to go afterwards.
    pub return_to: ReturnTo,
    /// When the sign-in began.
    pub started_at: Timestamp,
    /// The session that it shall repair, instead of beginning a new one.
    pub repairs: Option<SessionId>,
}

impl LoginCookie {
    /// Seals the cookie's value. A `return_to` that would make it larger than a browser keeps gives way to the front page:
    /// the sign-in matters more.
    pub fn seal(&self, ring: &Keyring, nonce: Nonce) -> String {
        let whole = self.write(&self.return_to);
        let fits = whole.bytes().len() <= PLAIN_BYTES;
        let writer = if fits { whole } else { self.write(&ReturnTo::root()) };
        ring.seal_cookie(CookiePurpose::Login, writer.bytes(), nonce)
    }

    /// Opens a cookie's value.
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
