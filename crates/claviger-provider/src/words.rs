//! The words of refusals and what they mean. The codes here are those of the RFCs; a provider's own
//! messages stand in its [`Dialect`].
//!
//! A message counts if it is the whole text, or its beginning where the table says so, in either
//! case. A message that stands in no table means nothing, so a provider that changes its words
//! signs nobody out.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    body,
    dialect::{
        Dialect,
        Meaning::{self, DeadGrant, DeadToken, NotTheToken, OurFault},
        Words,
    },
};

/// The codes of RFC 6749 section 5.2 and RFC 7009 section 2.2.1. Codes are compared exactly.
const CODES: [(&str, Meaning); 7] = [
    ("invalid_grant", DeadGrant),
    ("invalid_client", OurFault),
    ("unauthorized_client", OurFault),
    ("invalid_request", OurFault),
    ("unsupported_grant_type", OurFault),
    ("invalid_scope", OurFault),
    ("unsupported_token_type", OurFault),
];

/// Why a provider sends a browser back without a code, by who can act (RFC 6749 section 4.1.2.1,
/// OpenID Connect Core section 3.1.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationError {
    /// The user said no.
    Denied,
    /// Our registration or our request is wrong. The operator must act.
    OurFault,
    /// The provider fails at the moment.
    Passing,
    /// Something else.
    Other,
}

impl AuthorizationError {
    /// Reads the parameter `error`.
    pub fn of(code: &str) -> Self {
        match code {
            "access_denied" => Self::Denied,
            // Twitch, and others, say of a redirect URI that is not registered:
            "redirect_mismatch"
            | "redirect_uri_mismatch"
            | "invalid_redirect_uri"
            | "invalid_client"
            | "unauthorized_client"
            | "invalid_request"
            | "invalid_scope"
            | "unsupported_response_type" => Self::OurFault,
            "server_error" | "temporarily_unavailable" => Self::Passing,
            _ => Self::Other,
        }
    }
}

/// The codes of a bearer challenge (RFC 6750 section 3.1).
const CHALLENGES: [(&str, Meaning); 3] =
    [("invalid_token", DeadToken), ("insufficient_scope", NotTheToken), ("invalid_request", NotTheToken)];

/// A refusal: the `error` of RFC 6749 section 5.2, and the `message` that many write beside it.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    #[serde(default, deserialize_with = "text_or_none")]
    error: Option<String>,
    #[serde(default, deserialize_with = "text_or_none")]
    message: Option<String>,
}

impl Refusal {
    /// Reads a refusal. None if the body is no JSON object, is too large, or says a thing twice.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        body::object(body)
    }

    /// What it means in answer to a token request, a validation or a call of the API. Our own fault
    /// outweighs the rest: a refusal that names both proves nothing of the token.
    pub(crate) fn meaning(&self, dialect: &Dialect) -> Option<Meaning> {
        let said = self.message().and_then(|message| look_up(dialect.messages, message));
        [self.code(), said].into_iter().flatten().reduce(weigh)
    }

    /// The words themselves, for a person to read.
    pub(crate) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// What it means in answer to a revocation.
    pub(crate) fn meaning_for_revocation(&self, dialect: &Dialect) -> Option<Meaning> {
        let special = || look_up(dialect.revocation_messages, self.message()?);
        self.meaning(dialect).or_else(special)
    }

    fn code(&self) -> Option<Meaning> {
        let code = self.error.as_deref()?;
        CODES.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning)
    }
}

/// What a `WWW-Authenticate` header says of a bearer token. Other schemes have other codes and
/// count for nothing.
pub(crate) fn challenge_meaning(header: &str) -> Option<Meaning> {
    let code = bearer_error(header)?;
    CHALLENGES.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning)
}

fn weigh(one: Meaning, other: Meaning) -> Meaning {
    if one == other { one } else { OurFault }
}

fn look_up(table: &[(Words, Meaning)], message: &str) -> Option<Meaning> {
    let message = message.trim();
    let says = |words: &Words| match words {
        Words::Are(words) => message.eq_ignore_ascii_case(words),
        Words::Begin(words) => {
            message.get(..words.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(words))
        }
    };
    table.iter().find(|(words, _)| says(words)).map(|(_, meaning)| *meaning)
}

/// The `error` of the first bearer challenge in a header that may hold several (RFC 9110 section
/// 11.6.1).
fn bearer_error(header: &str) -> Option<&str> {
    let mut bearer = false;
    for piece in pieces(header) {
        let (first, rest) = piece.split_once(' ').unwrap_or((piece, ""));
        let parameter = if first.contains('=') || rest.trim_start().starts_with('=') {
            piece
        } else {
            bearer = first.eq_ignore_ascii_case("bearer");
            rest.trim_start()
        };
        if let Some((name, value)) = parameter.split_once('=')
            && bearer
            && name.trim_end().eq_ignore_ascii_case("error")
        {
            return Some(value.trim().trim_matches('"'));
        }
    }
    None
}

/// A header in the pieces between its commas, those inside quotes left alone.
fn pieces(header: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    header
        .split(move |c| {
            let (was_quoted, was_escaped) = (quoted, escaped);
            escaped = was_quoted && c == '\\' && !was_escaped;
            quoted = was_quoted ^ (c == '"' && !was_escaped);
            c == ',' && !was_quoted
        })
        .map(str::trim)
}

/// Text, or nothing where there is something else: other providers put objects there.
pub(crate) fn text_or_none<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(value)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use claviger_core::limits::PROVIDER_ANSWER_BYTES;
    use proptest::prelude::*;

    use super::*;
    use crate::twitch;

    #[test]
    fn only_a_bearer_challenge_has_a_meaning() {
        let table = [
            ("Bearer error=\"invalid_token\"", Some(DeadToken)),
            ("bearer realm=\"a\", Error=invalid_token", Some(DeadToken)),
            ("Basic realm=\"a, b\", Bearer realm=\"x\", error=\"insufficient_scope\"", Some(NotTheToken)),
            ("Bearer realm=\"x\", error = \"invalid_token\"", Some(DeadToken)),
            ("Bearer realm=\"\\\", error=invalid_request, \", error=\"invalid_token\"", Some(DeadToken)),
            ("Bearer error_description=\"error=invalid_token\"", None),
            ("Bearer realm=\"error=, error=invalid_token\"", None),
            ("Bearer error=\"other\"", None),
            ("Bearer", None),
            ("OAuth realm=\"TwitchTV\", error=\"invalid_token\"", None),
            ("Bearer realm=\"x\", DPoP error=\"invalid_token\"", None),
            ("", None),
            (",,= ,\"", None),
        ];
        for (header, expected) in table {
            assert_eq!(challenge_meaning(header), expected, "{header}");
        }
    }

    #[test]
    fn an_authorization_error_says_who_can_act() {
        use AuthorizationError::{Denied, Other, OurFault, Passing};
        let table = [
            ("access_denied", Denied),
            ("redirect_mismatch", OurFault),
            ("invalid_scope", OurFault),
            ("unauthorized_client", OurFault),
            ("server_error", Passing),
            ("temporarily_unavailable", Passing),
            ("login_required", Other),
            ("ACCESS_DENIED", Other),
            ("", Other),
        ];
        for (code, expected) in table {
            assert_eq!(AuthorizationError::of(code), expected, "{code}");
        }
    }

    #[test]
    fn contradictory_words_are_our_fault() {
        let table = [
            (r#"{"error":"invalid_client","message":"Invalid refresh token"}"#, Some(OurFault)),
            (r#"{"error":"invalid_grant","message":"invalid client secret"}"#, Some(OurFault)),
            (r#"{"error":"invalid_grant","message":"Invalid refresh token"}"#, Some(DeadGrant)),
            (r#"{"error":"invalid_grant","message":"anything"}"#, Some(DeadGrant)),
            (r#"{"error":{"message":"invalid_grant"}}"#, None),
            (r#"{"error":["invalid_grant"]}"#, None),
            (r#"{"error":"INVALID_GRANT"}"#, None),
            (r#"{"message":"not an Invalid refresh token"}"#, None),
            (r#"{"message":"Invalid refresh token or so"}"#, None),
        ];
        for (body, expected) in table {
            let refusal = Refusal::read(body.as_bytes()).unwrap();
            assert_eq!(refusal.meaning(&twitch::DIALECT), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_refusal_is_not_read() {
        let large = format!("{{\"message\":\"{}\"}}", "x".repeat(PROVIDER_ANSWER_BYTES));
        for body in [
            "",
            " ",
            "null",
            "[]",
            r#"["invalid_grant"]"#,
            "\"invalid_grant\"",
            "<html>",
            "{",
            "{}{}",
            &large,
        ] {
            assert!(Refusal::read(body.as_bytes()).is_none(), "{body}");
        }
        let twice = r#"{"error":"invalid_grant","error":"invalid_client"}"#;
        assert!(Refusal::read(twice.as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(header in "\\PC{0,60}|[a-zA-Z=\", \\\\]{0,60}") {
            let _ = challenge_meaning(&header);
        }

        #[test]
        fn no_message_makes_the_table_panic(message in "\\PC{0,60}|(missing scop|invalid clien)\\PC{0,3}") {
            let refusal = Refusal { error: Some(message.clone()), message: Some(message) };
            let _ = refusal.meaning_for_revocation(&twitch::DIALECT);
        }
    }
}
