//! The words of providers and what they mean. This is the only place that knows them.
//!
//! A word counts if it is all of the message, or its beginning where the table says so; case does not count. A message
//! that stands nowhere in the table means nothing, so a provider that changes its words signs nobody out.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use claviger_core::policy::limits::PROVIDER_ANSWER_BYTES;

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

enum Words {
    Are(&'static str),
    Begin(&'static str),
}

use Meaning::{DeadGrant, DeadToken, NoToken, NotTheToken, OurFault};
use Words::{Are, Begin};

/// Twitch's messages, from its documentation and from recorded answers.
const MESSAGES: [(Words, Meaning); 14] = [
    // POST /token
    (Are("invalid refresh token"), DeadGrant),
    (Are("invalid authorization code"), DeadGrant),
    (Are("missing refresh token"), OurFault),
    (Are("parameter redirect_uri does not match registered uri"), OurFault),
    (Begin("invalid scope requested"), OurFault),
    // Any of them: "invalid client", "invalid client secret", "Invalid client_id: x"
    (Begin("invalid client"), OurFault),
    (Are("missing client secret"), OurFault),
    (Are("missing client id"), OurFault),
    (Are("client does not exist"), OurFault),
    // GET /validate, POST /revoke, and the API
    (Are("invalid access token"), DeadToken),
    (Are("invalid oauth token"), DeadToken),
    (Are("missing authorization token"), NoToken),
    (Are("client id and oauth token do not match"), NotTheToken),
    (Begin("missing scope"), NotTheToken),
];

/// Messages of POST /revoke alone: elsewhere they could mean any token.
const REVOCATION_MESSAGES: [(Words, Meaning); 2] =
    [(Are("invalid token"), DeadToken), (Are("missing oauth token"), OurFault)];

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

/// The codes of a bearer challenge (RFC 6750 section 3.1).
const CHALLENGES: [(&str, Meaning); 3] =
    [("invalid_token", DeadToken), ("insufficient_scope", NotTheToken), ("invalid_request", NotTheToken)];

/// A refusal as RFC 6749 section 5.2 and as Twitch write it.
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
        if body.len() > PROVIDER_ANSWER_BYTES || !body.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        serde_json::from_slice(body).ok()
    }

    /// What it means to one who asked for a pair, asked about a token, or called the API. Our own fault outweighs the
    /// rest: a refusal that names both proves nothing of the token.
    pub(crate) fn meaning(&self) -> Option<Meaning> {
        let said = self.message().and_then(|message| look_up(&MESSAGES, message));
        [self.code(), said].into_iter().flatten().reduce(weigh)
    }

    /// The words themselves, for a person to read.
    pub(crate) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// What it means to one who asked for a revocation.
    pub(crate) fn meaning_for_revocation(&self) -> Option<Meaning> {
        self.meaning().or_else(|| self.message().and_then(|message| look_up(&REVOCATION_MESSAGES, message)))
    }

    fn code(&self) -> Option<Meaning> {
        let code = self.error.as_deref()?;
        CODES.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning)
    }
}

/// What a `WWW-Authenticate` header says of a bearer token. Other schemes have other codes and count for nothing.
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
        Are(words) => message.eq_ignore_ascii_case(words),
        Begin(words) => {
            message.get(..words.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(words))
        }
    };
    table.iter().find(|(words, _)| says(words)).map(|(_, meaning)| *meaning)
}

/// The `error` of the first bearer challenge in a header that may hold several (RFC 9110 section 11.6.1).
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
    use proptest::prelude::*;

    use super::*;

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
            assert_eq!(Refusal::read(body.as_bytes()).unwrap().meaning(), expected, "{body}");
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
            let _ = Refusal { error: Some(message.clone()), message: Some(message) }.meaning_for_revocation();
        }
    }
}
