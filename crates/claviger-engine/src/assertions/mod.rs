//! Assertions: short-lived JWTs that tell an app who is calling, signed by keys whose public halves
//! are published. So an app need not trust everybody who reaches its port.
//!
//! An assertion names neither method nor path. So one serves all requests of a session with the
//! same assurance and proof, until half of its life is over.

mod shared_keys;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use claviger_core::{SessionId, Timestamp, limits};
use claviger_seal::{NotSigned, SigningKey};
use claviger_store::{Store, StoreError, corrupt};
use http::HeaderValue;
use serde::Serialize;

use crate::{
    Caller, CheckedClock, Denied, Env, Keys,
    authenticator::Vouched,
    by_session::{By, cache},
    part::part,
};
use shared_keys::SharedKeys;

/// The type of an assertion, in its header `typ`. No other token of ours or of a provider has it
/// (RFC 8725 section 3.11).
const TYPE: &str = "claviger-assertion+jwt";

/// For whom assertions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionSettings {
    /// `iss`: the address where browsers reach the app.
    pub issuer: String,
    /// `aud`: a name of the app, which it compares.
    pub audience: String,
}

/// An assertion, as a header's value. A thief of it can pass for its user at the app for as long as
/// it lives, so it does not print.
#[derive(Clone)]
pub struct Assertion(HeaderValue);

impl Assertion {
    /// The value of `X-Auth-Assertion`.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The JWT, for a service that the app asks in the user's name.
    pub fn expose(&self) -> &str {
        // It is base64url with dots.
        self.0.to_str().unwrap_or_default()
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assertion(redacted)")
    }
}

part! {
    /// Signs assertions.
    pub(crate) struct Assertions needs {
        env: Env,
        clock: Arc<CheckedClock>,
        settings: Option<Arc<AssertionSettings>>,
        keys: Arc<SharedKeys>,
    } owns {
        signed: By<Place, Arc<Signed>> =
            cache(if settings.is_some() { limits::SIGNED_ASSERTIONS } else { 1 }),
    }
}

/// Where a signed assertion is kept.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    session: SessionId,
    vouched: Vouched,
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.session.hash(state);
    }
}

/// An assertion that was signed, and what it says.
struct Signed {
    /// By our clock, as each look at its age.
    at: Timestamp,
    key: Arc<SigningKey>,
    proven_at: Option<Timestamp>,
    name: String,
    assertion: Assertion,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: String,
    iat: i64,
    exp: i64,
    auth_time: i64,
    sid: String,
    provider: &'a str,
    name: &'a str,
    assurance: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof_time: Option<i64>,
}

impl Assertions {
    /// Makes the part with its keys, which are read from the store or made.
    pub(crate) async fn open(
        env: &Env,
        store: &Arc<dyn Store>,
        keys: &Arc<Keys>,
        clock: &Arc<CheckedClock>,
        settings: Option<AssertionSettings>,
    ) -> Result<Arc<Self>, StoreError> {
        let settings = settings.map(Arc::new);
        let keys = SharedKeys::new(env, store, keys, clock, &settings);
        keys.start().await?;
        Ok(Self::new(env, clock, &settings, &keys))
    }

    /// The keys that sign.
    pub(crate) fn keys(&self) -> &SharedKeys {
        &self.keys
    }

    /// The assertion for a caller. None if the operator wants none.
    pub(crate) fn of(&self, caller: &Caller) -> Result<Option<Assertion>, Denied> {
        let Some(settings) = &self.settings else { return Ok(None) };
        let held = self.keys.held();
        let key = held.as_ref().ok_or_else(no_keys)?.signing();
        let (now, proven_at, name) = (self.env.now(), caller.proven_at(), caller.display_name());
        let place = Place { session: caller.session(), vouched: caller.vouched() };
        if let Some(signed) = self.signed.get(&place)
            && signed.at.age(now).is_some_and(|age| age < limits::ASSERTION_LIFE / 2)
            && signed.proven_at == proven_at
            && signed.name == name
            && Arc::ptr_eq(&signed.key, key)
        {
            return Ok(Some(signed.assertion.clone()));
        }
        // An app compares it with its own clock, so ours must not make it too old or too young.
        let assertion = sign(settings, caller, key, self.clock.known_of_provider())
            .map_err(|NotSigned| Denied::Store(corrupt("an assertion could not be signed")))?;
        let signed = Signed {
            at: now,
            key: Arc::clone(key),
            proven_at,
            name: name.to_owned(),
            assertion: assertion.clone(),
        };
        self.signed.insert(place, Arc::new(signed));
        Ok(Some(assertion))
    }

    /// The public halves of the keys, as a JWK set. None if the operator wants no assertions.
    pub(crate) fn key_set(&self) -> Result<Option<Bytes>, Denied> {
        if self.settings.is_none() {
            return Ok(None);
        }
        self.keys.held().as_ref().map(|held| Some(held.key_set())).ok_or_else(no_keys)
    }
}

fn no_keys() -> Denied {
    Denied::Store(corrupt("the keys that sign assertions do not open"))
}

fn sign(
    settings: &AssertionSettings,
    caller: &Caller,
    key: &SigningKey,
    now: Timestamp,
) -> Result<Assertion, NotSigned> {
    let subject = caller.subject();
    let iat = now.as_secs();
    let claims = Claims {
        iss: &settings.issuer,
        aud: &settings.audience,
        sub: format!("{}:{}", subject.provider, subject.id),
        iat,
        exp: iat.saturating_add_unsigned(limits::ASSERTION_LIFE.as_secs()),
        auth_time: caller.session().created_at().as_secs(),
        sid: caller.session().to_string(),
        provider: &subject.provider.0,
        name: caller.display_name(),
        assurance: caller.vouched().name(),
        proof_time: caller.proven_at().map(Timestamp::as_secs),
    };
    let claims = serde_json::to_vec(&claims).map_err(|_| NotSigned)?;
    let mut value = HeaderValue::try_from(key.sign(TYPE, &claims)?).map_err(|_| NotSigned)?;
    value.set_sensitive(true);
    Ok(Assertion(value))
}
