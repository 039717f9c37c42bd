//! Where a provider's requests and answers depart from the RFCs, as plain data.

/// How a provider departs from the RFCs. One that follows them understands PKCE, has no
/// messages and no header, and asks a user again with `prompt` (OpenID Connect).
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Whether it understands PKCE (RFC 7636).
    pub pkce: bool,
    /// Its messages and what they mean, beside the codes of the RFCs.
    pub(crate) messages: &'static [(Words, Meaning)],
    /// Messages that mean this in answer to a revocation only.
    pub(crate) revocation_messages: &'static [(Words, Meaning)],
    /// The parameter of an authorization request that makes it ask a user who agreed before.
    pub(crate) ask_again: (&'static str, &'static str),
    /// The header that names our client in calls of its API.
    pub(crate) client_id_header: Option<&'static str>,
}

/// A message, or how it begins.
#[derive(Debug)]
pub(crate) enum Words {
    Are(&'static str),
    Begin(&'static str),
}

/// What the words of a refusal mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The code or the refresh token is dead.
    DeadGrant,
    /// The access token is dead.
    DeadToken,
    /// No token came with the request, so none was judged.
    NoToken,
    /// Our client, its secret, or how we asked is wrong.
    OurFault,
    /// The API wants something else of the token, such as a scope.
    NotTheToken,
}
