//! The bodies of good answers. A field that we rely on is checked. A field that we do not know is
//! ignored.

use std::{fmt, marker::PhantomData, time::Duration};

use claviger_core::{
    AccessToken, IssuedPair, Lifespan, RefreshToken, display::shows_itself, limits::DISPLAY_NAME_CHARS,
    limits::PROVIDER_ANSWER_BYTES, limits::TOKEN_BYTES,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

/// Ids of users and clients are at most this long (OpenID Connect Core section 2 on `sub`).
pub(crate) const ID_BYTES: usize = 255;
/// A life span is cut to ten years, so that no date computed from it leaves the calendar.
pub(crate) const LIFESPAN_SECS: u64 = 10 * 365 * 24 * 60 * 60;

/// A successful token response (RFC 6749 section 5.1). A key that stands twice is refused.
#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    refresh_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    scope: Option<Value>,
}

/// Reads a token response. None if a pair cannot be relied on.
///
/// A missing `token_type` is allowed, since some providers leave it out. A life span of zero tells
/// nothing: no provider issues a dead token, and believing it would refresh on every request.
pub(crate) fn issued(body: &[u8]) -> Option<IssuedPair> {
    let body: TokenBody = object(body)?;
    let bearer = body.token_type.is_none_or(|kind| kind.is_empty() || kind.eq_ignore_ascii_case("bearer"));
    // Some providers write an empty text for a token that they do not issue.
    let refresh = body.refresh_token.filter(|token| !token.is_empty());
    let sound = is_token(&body.access_token) && refresh.as_deref().is_none_or(is_token);
    if !bearer || !sound {
        return None;
    }
    Some(IssuedPair {
        access: AccessToken::new(body.access_token),
        refresh: refresh.map(RefreshToken::new),
        lifespan: match seconds(body.expires_in.as_ref()) {
            None | Some(0) => Lifespan::Unknown,
            Some(secs) => Lifespan::Lasts(Duration::from_secs(secs)),
        },
        scopes: scopes(body.scope),
    })
}

/// Reads a JSON object. An array of the right length would pass for one with serde alone. What
/// stands in fields that we do not know is not looked at, so no pair is lost for it.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    // A byte order mark may be ignored (RFC 8259 section 8.1).
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
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

/// A name of characters that show as themselves and of a length we store. None if nothing is left.
pub(crate) fn display_name(text: &str) -> Option<String> {
    readable(text, DISPLAY_NAME_CHARS)
}

/// Foreign text for a person to read: at most `most` characters, all of which show as themselves.
pub(crate) fn readable(text: &str, most: usize) -> Option<String> {
    let kept: String = text.chars().filter(|c| shows_itself(*c)).take(most).collect();
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.to_owned())
}

/// Whole seconds, from a number or a number in quotes. None if it is no number, or a negative one.
/// A fraction is cut off, and what is too large becomes the greatest life span.
pub(crate) fn seconds(value: Option<&Value>) -> Option<u64> {
    let number = match value? {
        Value::Number(number) => number.clone(),
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let fraction = || number.as_f64().filter(|secs| *secs >= 0.0).map(|secs| secs as u64);
    number.as_u64().or_else(fraction).map(|secs| secs.min(LIFESPAN_SECS))
}

/// The scopes, from a list with spaces (RFC 6749 section 3.3) or from an array, which several
/// providers write instead. None if there is neither. What cannot be a scope is left out.
pub(crate) fn scopes(value: Option<Value>) -> Option<Vec<String>> {
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
pub(crate) mod tests;
