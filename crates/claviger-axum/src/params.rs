//! Query parameters, read strictly: a repeated parameter is an error.

use std::borrow::Cow;

use claviger_core::Presence;
use http::Uri;

/// The parameters of a request.
pub(crate) struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// What is wrong with the parameters, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadParams {
    #[error("the parameter {0} may come only once")]
    Twice(&'static str),
    #[error("the address has an unknown parameter")]
    Unknown,
    #[error("{name} must be {allowed}, or left out")]
    Value { name: &'static str, allowed: &'static str },
    #[error("the query in the address is too long")]
    TooLong,
}

/// With the value `1`, the request is no use of the session.
pub(crate) const PASSIVE: &str = "passive";

const QUERY_BYTES: usize = 16 * 1024;

impl<'a> Params<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Result<Self, BadParams> {
        Ok(Self(pairs(uri)?.collect()))
    }

    /// Returns the value of a parameter that may come once.
    pub(crate) fn one(&self, name: &'static str) -> Result<Option<&str>, BadParams> {
        let mut values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_ref());
        let value = values.next();
        if values.next().is_some() { Err(BadParams::Twice(name)) } else { Ok(value) }
    }
}

/// Returns whether the address says that the request is no use of the session.
pub(crate) fn passive(uri: &Uri) -> Result<Option<Presence>, BadParams> {
    presence(Params::of(uri)?.one(PASSIVE)?)
}

/// Reads the value of [`PASSIVE`].
pub(crate) fn presence(value: Option<&str>) -> Result<Option<Presence>, BadParams> {
    match value {
        None => Ok(None),
        Some("1") => Ok(Some(Presence::Passive)),
        Some(_) => Err(BadParams::Value { name: PASSIVE, allowed: "1" }),
    }
}

/// Returns the values of these parameters, each of which may come once. Any other name is an error,
/// so that a misspelt one does not count as missing.
pub(crate) fn exactly<'a, const N: usize>(
    uri: &'a Uri,
    names: [&'static str; N],
) -> Result<[Option<Cow<'a, str>>; N], BadParams> {
    let mut values = [const { None }; N];
    for (name, value) in pairs(uri)? {
        let known = names.iter().zip(&mut values).find(|(known, _)| **known == name);
        let (known, place) = known.ok_or(BadParams::Unknown)?;
        if place.replace(value).is_some() {
            return Err(BadParams::Twice(known));
        }
    }
    Ok(values)
}

fn pairs(uri: &Uri) -> Result<form_urlencoded::Parse<'_>, BadParams> {
    let query = uri.query().unwrap_or_default();
    if query.len() > QUERY_BYTES {
        Err(BadParams::TooLong)
    } else {
        Ok(form_urlencoded::parse(query.as_bytes()))
    }
}
