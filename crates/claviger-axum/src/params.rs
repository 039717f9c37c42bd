//! Query parameters, read strictly: a parameter that comes twice is an error, not a choice.

use std::borrow::Cow;

use http::Uri;

/// The parameters of one request.
pub(crate) struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// What is wrong with the parameters, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadParams {
    #[error("the parameter {0} may come only once")]
    Twice(&'static str),
    #[error("the address has a parameter of a name that is not known here")]
    Unknown,
    #[error("the address has too long a query")]
    TooLong,
}

const QUERY_BYTES: usize = 16 * 1024;

impl<'a> Params<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Result<Self, BadParams> {
        let query = uri.query().unwrap_or_default();
        if query.len() > QUERY_BYTES {
            return Err(BadParams::TooLong);
        }
        Ok(Self(form_urlencoded::parse(query.as_bytes()).collect()))
    }

    /// Refuses parameters of other names: a misspelt one must not count as left out.
    pub(crate) fn only(self, names: &[&str]) -> Result<Self, BadParams> {
        let known = self.0.iter().all(|(name, _)| names.contains(&name.as_ref()));
        if known { Ok(self) } else { Err(BadParams::Unknown) }
    }

    /// The value of a parameter that may come once.
    pub(crate) fn one(&self, name: &'static str) -> Result<Option<&str>, BadParams> {
        let mut values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_ref());
        let value = values.next();
        if values.next().is_some() { Err(BadParams::Twice(name)) } else { Ok(value) }
    }
}
