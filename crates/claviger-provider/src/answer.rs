//! Answers of a provider and what they prove. The verdicts are those of [`claviger_core::verdict`].

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use claviger_core::{
    time::Timestamp,
    verdict::{ApiRefusal, RevokeAnswer, TokenAnswer, Trouble, TroubleKind, ValidateAnswer},
};
use http::{HeaderMap, Response, StatusCode, header::RETRY_AFTER};

use crate::{
    body,
    provider::Provider,
    words::{self, Meaning, Refusal},
};

/// The transport's word on a request that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unanswered {
    /// It certainly never left: no name, no connection, no TLS.
    #[error("the request was not sent")]
    NotSent,
    /// It left, or may have, and no whole answer came.
    #[error("the request was sent, and no whole answer came")]
    NoAnswer,
}

impl From<Unanswered> for Trouble {
    fn from(unanswered: Unanswered) -> Self {
        Self::new(match unanswered {
            Unanswered::NotSent => TroubleKind::NotSent,
            Unanswered::NoAnswer => TroubleKind::NoAnswer,
        })
    }
}

/// A provider is asked again after a second at the earliest and an hour at the latest, whatever it wishes.
const RETRY_AFTER_SECS: std::ops::RangeInclusive<u64> = 1..=60 * 60;

impl Provider {
    /// What the token endpoint's answer to a code or a refresh token proves.
    ///
    /// A token is dead only if status 400 or 401 comes with a word that says so (RFC 6749 section 5.2; Twitch answers 400
    /// where its page "Refreshing access tokens" says 401). What was sent is taken for spent if the answer is lost or is a
    /// success that cannot be read.
    pub fn read_token(&self, answer: Result<Response<Bytes>, Unanswered>, now: Timestamp) -> TokenAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Unanswered::NotSent) => return TokenAnswer::Unknown(Unanswered::NotSent.into()),
            Err(Unanswered::NoAnswer) => return TokenAnswer::Lost(Unanswered::NoAnswer.into()),
        };
        let status = answer.status();
        if status == StatusCode::OK {
            return body::issued(answer.body())
                .map_or(TokenAnswer::Lost(Trouble::new(TroubleKind::Unreadable)), TokenAnswer::Issued);
        }
        if status.is_success() {
            return TokenAnswer::Lost(trouble(&answer, now));
        }
        let said = refusal(&answer);
        match said.as_ref().and_then(Refusal::meaning) {
            _ if said.is_some() && status == StatusCode::FORBIDDEN => TokenAnswer::Misconfigured,
            Some(Meaning::DeadGrant) => TokenAnswer::Rejected,
            Some(Meaning::OurFault) => TokenAnswer::Misconfigured,
            _ => TokenAnswer::Unknown(trouble(&answer, now)),
        }
    }

    /// What the validation of an access token proves (Twitch docs, "Validating tokens").
    ///
    /// A 401 does not tell expired from revoked. Two kinds of it prove nothing: one that misses the token, since something
    /// on the way took the header off, and a page that is not the provider's JSON.
    pub fn read_validate(
        &self,
        answer: Result<Response<Bytes>, Unanswered>,
        now: Timestamp,
    ) -> ValidateAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return ValidateAnswer::Unknown(unanswered.into()),
        };
        match answer.status() {
            StatusCode::OK => body::proof(answer.body()).map_or(
                ValidateAnswer::Unknown(Trouble::new(TroubleKind::Unreadable)),
                ValidateAnswer::Valid,
            ),
            StatusCode::UNAUTHORIZED if judges_the_token(&answer) => ValidateAnswer::Rejected,
            _ => ValidateAnswer::Unknown(trouble(&answer, now)),
        }
    }

    /// What the answer to a revocation proves.
    ///
    /// Success is success for an unknown token too (RFC 7009 section 2.2). Twitch says 400 "Invalid token" instead, also
    /// after the user disconnected, and 404 "client does not exist" (Twitch docs, "Revoking access tokens").
    pub fn read_revoke(&self, answer: Result<Response<Bytes>, Unanswered>, now: Timestamp) -> RevokeAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return RevokeAnswer::Unknown(unanswered.into()),
        };
        let status = answer.status();
        if status.is_success() {
            return RevokeAnswer::Done;
        }
        let said = match status {
            StatusCode::NOT_FOUND => Refusal::read(answer.body()),
            _ => refusal(&answer),
        };
        match said.as_ref().and_then(Refusal::meaning_for_revocation) {
            _ if said.is_some() && status == StatusCode::FORBIDDEN => RevokeAnswer::Misconfigured,
            Some(Meaning::DeadToken) if status != StatusCode::NOT_FOUND => RevokeAnswer::Done,
            Some(Meaning::OurFault) => RevokeAnswer::Misconfigured,
            _ => RevokeAnswer::Unknown(trouble(&answer, now)),
        }
    }

    /// What a refusal of the API is about. Only a dead token is worth a refresh (RFC 6750 section 3.1): a missing scope
    /// answers 401 at Twitch too, and a refresh would not bring it.
    pub fn read_api_refusal(
        &self,
        status: StatusCode,
        www_authenticate: Option<&str>,
        body: &[u8],
    ) -> ApiRefusal {
        if status != StatusCode::UNAUTHORIZED {
            return ApiRefusal::NotTheToken;
        }
        let said = Refusal::read(body).and_then(|refusal| refusal.meaning());
        match said.or_else(|| words::challenge_meaning(www_authenticate?)) {
            Some(Meaning::DeadToken) => ApiRefusal::DeadToken,
            Some(Meaning::NotTheToken | Meaning::OurFault) => ApiRefusal::NotTheToken,
            Some(Meaning::NoToken | Meaning::DeadGrant) | None => ApiRefusal::Unclear,
        }
    }
}

/// The words of a refusal, if its status is one that judges what was sent. All others are about the provider's own state.
pub(crate) fn refusal(answer: &Response<Bytes>) -> Option<Refusal> {
    let judges = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    judges.contains(&answer.status()).then(|| Refusal::read(answer.body())).flatten()
}

/// Whether a 401 of the validation is about the token that was sent.
pub(crate) fn judges_the_token(answer: &Response<Bytes>) -> bool {
    let body = answer.body();
    body.is_empty() || Refusal::read(body).is_some_and(|refusal| refusal.meaning() != Some(Meaning::NoToken))
}

pub(crate) fn trouble(answer: &Response<Bytes>, now: Timestamp) -> Trouble {
    Trouble {
        kind: TroubleKind::Status(answer.status().as_u16()),
        retry_after: retry_after(answer.headers(), now),
    }
}

/// The provider's wish when to be asked again, in seconds or as a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let secs = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().unwrap_or(u64::MAX)
    } else {
        let date = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Timestamp::EPOCH.after(date).since(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
    };
    Some(Duration::from_secs(secs.clamp(*RETRY_AFTER_SECS.start(), *RETRY_AFTER_SECS.end())))
}

#[cfg(test)]
mod tests;
