//! The bodies of good answers. A field that we rely on is checked; a field that we do not know is passed over.

use std::{fmt, marker::PhantomData, time::Duration};

use claviger_core::{
    policy::limits::{DISPLAY_NAME_CHARS, PROVIDER_ANSWER_BYTES, TOKEN_BYTES},
    secret::{AccessToken, RefreshToken},
    verdict::{IssuedPair, Lifespan, Proof},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use crate::words::text_or_none;

/// Ids of users and clients are at most this long (OpenID Connect Core section 2 on `sub`).
const ID_BYTES: usize = 255;
/// A life span beyond this is cut to it: ten years, so that no date computed from it leaves the calendar.
const LIFESPAN_SECS: u64 = 10 * 365 * 24 * 60 * 60;

/// A successful token response (RFC 6749 section 5.1). A key that stands twice is refused.
#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    refresh_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    scope: Option<Value>,
}

/// A successful validation (Twitch docs, "Validating tokens").
#[derive(Deserialize)]
struct ValidateBody {
    client_id: String,
    user_id: Option<String>,
    #[serde(default, deserialize_with = "text_or_none")]
    login: Option<String>,
    expires_in: Option<Value>,
    scopes: Option<Value>,
}

/// Reads a token response. None if a pair cannot be relied on.
///
/// A missing `token_type` is allowed, as older answers of Twitch had none. A life span of zero tells nothing: nobody issues a
/// token that is dead already, and taking it at its word would refresh on every request.
pub(crate) fn issued(body: &[u8]) -> Option<IssuedPair> {
    let body: TokenBody = object(body)?;
    let bearer = body.token_type.is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
    let sound = is_token(&body.access_token) && body.refresh_token.as_deref().is_none_or(is_token);
    if !bearer || !sound {
        return None;
    }
    Some(IssuedPair {
        access: AccessToken::new(body.access_token),
        refresh: body.refresh_token.map(RefreshToken::new),
        lifespan: match seconds(body.expires_in.as_ref()) {
            None | Some(0) => Lifespan::Unknown,
            Some(secs) => Lifespan::Lasts(Duration::from_secs(secs)),
        },
        scopes: scopes(body.scope),
    })
}

/// Reads a validation. None if it does not say whose token it is. A user id of `null`, or none, is an app's own token.
///
/// Here a life span of zero means endless, as Twitch says of some old clients (twitchdev/issues#312).
pub(crate) fn proof(body: &[u8]) -> Option<Proof> {
    let body: ValidateBody = object(body)?;
    let sound = is_id(&body.client_id) && body.user_id.as_deref().is_none_or(is_id);
    sound.then(|| Proof {
        client_id: body.client_id,
        subject_id: body.user_id,
        display_name: body.login.as_deref().and_then(display_name),
        lifespan: match seconds(body.expires_in.as_ref()) {
            None => Lifespan::Unknown,
            Some(0) => Lifespan::Endless,
            Some(secs) => Lifespan::Lasts(Duration::from_secs(secs)),
        },
        scopes: scopes(body.scopes).unwrap_or_default(),
    })
}

/// Reads a JSON object. An array of the right length would pass for one with serde alone.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let object = body.len() <= PROVIDER_ANSWER_BYTES && body.trim_ascii_start().starts_with(b"{");
    object.then(|| serde_json::from_slice(body).ok()).flatten()
}

/// A JSON object inside another. An array of the right length would pass for one with serde alone.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct OfFields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfFields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, fields: M) -> Result<T, M::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        value.deserialize_map(OfFields(PhantomData)).map(Self)
    }
}

/// Whether text can be a token: visible ASCII, as a header can carry it, and of a length we store.
fn is_token(text: &str) -> bool {
    (1..=TOKEN_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether text can be the id of something at a provider.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=ID_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A name without control characters and of a length we store; none if nothing is left.
fn display_name(text: &str) -> Option<String> {
    readable(text, DISPLAY_NAME_CHARS)
}

/// Somebody else's text for a person to read: at most so many characters, and none that control what shows them.
pub(crate) fn readable(text: &str, most: usize) -> Option<String> {
    let kept: String = text.chars().filter(|c| !c.is_control()).take(most).collect();
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.to_owned())
}

/// Whole seconds, from a number or a number in quotes. None if it is no number, or a negative one.
/// A fraction is cut off, and what is too large for the type becomes its greatest value, as `as` does.
fn seconds(value: Option<&Value>) -> Option<u64> {
    let number = match value? {
        Value::Number(number) => number.clone(),
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let fraction = || number.as_f64().filter(|secs| *secs >= 0.0).map(|secs| secs as u64);
    number.as_u64().or_else(fraction).map(|secs| secs.min(LIFESPAN_SECS))
}

/// The scopes, from an array as Twitch writes it (twitchdev/issues#164) or from a list with spaces (RFC 6749 section 3.3).
/// None if there is neither. What cannot be a scope is left out.
fn scopes(value: Option<Value>) -> Option<Vec<String>> {
    let names: Vec<String> = match value? {
        Value::String(list) => list.split(' ').map(str::to_owned).collect(),
        Value::Array(values) => values
            .into_iter()
            .filter_map(|value| if let Value::String(name) = value { Some(name) } else { None })
            .collect(),
        _ => return None,
    };
    Some(names.into_iter().filter(|name| is_scope(name)).collect())
}

/// Whether text is a scope-token of RFC 6749 section 3.3.
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

#[cfg(test)]
mod tests;
