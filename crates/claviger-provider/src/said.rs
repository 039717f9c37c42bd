//! What a provider said when it did not do as asked, for a person who reads the log.

use http::Uri;
use serde_json::{Map, Value};

use crate::{answer::Answer, body};

/// At most this many characters of a provider's words are shown.
const SHOWN_CHARS: usize = 300;
/// What stands in place of a secret that the provider repeats.
const HIDDEN: &str = "(hidden)";

/// Which endpoint was asked, and how it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The endpoint, without a query.
    pub endpoint: String,
    /// The status. None if no answer came.
    pub status: Option<u16>,
    /// The provider's words, or why there is no answer. None for a success, which may hold tokens,
    /// and for a page or a body without words.
    pub words: Option<String>,
}

impl Said {
    /// Reads an answer to a request to `uri`. The words may repeat what was sent, so the secrets
    /// that the request carried are hidden.
    pub fn of(uri: &Uri, answer: &Answer, secrets: &[&str]) -> Self {
        let endpoint = format!("{}{}", uri.host().unwrap_or_default(), uri.path());
        match answer {
            Err(unanswered) => Self { endpoint, status: None, words: Some(unanswered.to_string()) },
            Ok(answer) => {
                let refused = !answer.status().is_success();
                let words = refused.then(|| words(answer.body(), secrets)).flatten();
                Self { endpoint, status: Some(answer.status().as_u16()), words }
            }
        }
    }
}

/// The code and the text of a refusal (RFC 6749 section 5.2; many write `message` instead).
fn words(body: &[u8], secrets: &[&str]) -> Option<String> {
    let fields: Map<String, Value> = body::object(body)?;
    let texts = ["error", "error_description", "message"].map(|name| fields.get(name)?.as_str());
    let mut text = texts.into_iter().flatten().collect::<Vec<_>>().join(": ");
    // Characters that do not show could part a secret, so they go first.
    text = body::readable(&text, usize::MAX)?;
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, HIDDEN);
    }
    body::readable(&text, SHOWN_CHARS)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;

    use super::*;
    use crate::answer::Unanswered;

    fn said(status: u16, body: &str) -> Said {
        let uri = "https://id.test/oauth2/token?client_secret=s3cret".parse().unwrap();
        let answer = Response::builder().status(status).body(Bytes::copy_from_slice(body.as_bytes()));
        Said::of(&uri, &Ok(answer.unwrap()), &["s3cret", "t0ken", ""])
    }

    #[test]
    fn a_refusal_is_shown_without_secrets() {
        let table = [
            (400, r#"{"status":400,"message":"Invalid refresh token"}"#, Some("Invalid refresh token")),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"too late"}"#,
                Some("invalid_grant: too late"),
            ),
            (
                401,
                r#"{"error":"x","message":"no t0ken, \u200bs3cr\u200bet\n!"}"#,
                Some("x: no (hidden), (hidden)!"),
            ),
            (400, r#"{"error":{"message":"nested"}}"#, None),
            (502, "<html>", None),
            (503, "", None),
            (200, r#"{"message":"a success tells nothing here"}"#, None),
        ];
        for (status, body, expected) in table {
            let said = said(status, body);
            assert_eq!(said.words.as_deref(), expected, "{body}");
            assert_eq!((said.endpoint.as_str(), said.status), ("id.test/oauth2/token", Some(status)));
        }
    }

    #[test]
    fn a_secret_is_hidden_before_the_words_are_cut() {
        let said = said(400, &format!(r#"{{"message":"{}s3cret"}}"#, "x".repeat(SHOWN_CHARS - 3)));
        assert_eq!(said.words.unwrap(), "x".repeat(SHOWN_CHARS - 3) + "(hi");
    }

    #[test]
    fn a_lost_answer_has_no_status() {
        let said = Said::of(&Uri::from_static("https://id.test/a"), &Err(Unanswered::NoAnswer), &[]);
        assert_eq!((said.status, said.words), (None, Some(Unanswered::NoAnswer.to_string())));
    }
}
