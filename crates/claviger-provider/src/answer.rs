//! A provider's answers and what they prove. The verdicts are those of [`claviger_core::verdict`].

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use claviger_core::{ApiRefusal, FailureKind, ProviderFailure, RevokeAnswer, Timestamp, TokenAnswer};
use http::{
    HeaderMap, Response, StatusCode,
    header::{AGE, DATE, RETRY_AFTER},
};

use crate::{
    body,
    client::Client,
    dialect::{Dialect, Meaning},
    words::{self, Refusal},
};

/// A whole answer, or why there is none.
pub type Answer = Result<Response<Bytes>, Unanswered>;

/// Why a request has no answer, as the transport knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unanswered {
    /// It certainly never left: no name, no connection, no TLS.
    #[error("the request was not sent")]
    NotSent,
    /// It left, or may have, and no whole answer came.
    #[error("the request was sent, and no whole answer came")]
    NoAnswer,
}

impl From<Unanswered> for ProviderFailure {
    fn from(unanswered: Unanswered) -> Self {
        Self::new(match unanswered {
            Unanswered::NotSent => FailureKind::NotSent,
            Unanswered::NoAnswer => FailureKind::NoAnswer,
        })
    }
}

/// A provider's wish when to be asked again is cut to this range.
const RETRY_AFTER_SECS: std::ops::RangeInclusive<u64> = 1..=60 * 60;

impl Client {
    /// What the token endpoint's answer to a code or a refresh token proves.
    ///
    /// A token is dead only if status 400 or 401 comes with a word that says so (RFC 6749 section
    /// 5.2). What was sent counts as spent if the answer is lost or is a success that cannot be
    /// read.
    pub fn read_token(&self, answer: Answer, now: Timestamp) -> TokenAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Unanswered::NotSent) => return TokenAnswer::Unknown(Unanswered::NotSent.into()),
            Err(Unanswered::NoAnswer) => return TokenAnswer::Lost(Unanswered::NoAnswer.into()),
        };
        let status = answer.status();
        // Some providers answer that they created a token.
        if matches!(status, StatusCode::OK | StatusCode::CREATED) {
            return body::issued(answer.body()).map_or(
                TokenAnswer::Lost(ProviderFailure::new(FailureKind::Unreadable)),
                TokenAnswer::Issued,
            );
        }
        if status.is_success() {
            return TokenAnswer::Lost(failure(&answer, now));
        }
        let said = refusal(&answer);
        match said.as_ref().and_then(|said| said.meaning(&self.dialect)) {
            _ if said.is_some() && status == StatusCode::FORBIDDEN => TokenAnswer::Misconfigured,
            Some(Meaning::DeadGrant) => TokenAnswer::Rejected,
            Some(Meaning::OurFault) => TokenAnswer::Misconfigured,
            _ => TokenAnswer::Unknown(failure(&answer, now)),
        }
    }

    /// What the answer to a revocation proves.
    ///
    /// Success is success for an unknown token too (RFC 7009 section 2.2). The words of a 404 count
    /// only against our client: something on the way may have answered it.
    pub fn read_revoke(&self, answer: Answer, now: Timestamp) -> RevokeAnswer {
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
        match said.as_ref().and_then(|said| said.meaning_for_revocation(&self.dialect)) {
            _ if said.is_some() && status == StatusCode::FORBIDDEN => RevokeAnswer::Misconfigured,
            Some(Meaning::DeadToken) if status != StatusCode::NOT_FOUND => RevokeAnswer::Done,
            Some(Meaning::OurFault) => RevokeAnswer::Misconfigured,
            _ => RevokeAnswer::Unknown(failure(&answer, now)),
        }
    }

    /// What a refusal of the API is about. Only a dead token is worth a refresh (RFC 6750 section
    /// 3.1). A missing scope may answer 401 too, and a refresh would not bring it.
    pub fn read_api_refusal(
        &self,
        status: StatusCode,
        www_authenticate: Option<&str>,
        body: &[u8],
    ) -> ApiRefusal {
        if status != StatusCode::UNAUTHORIZED {
            return ApiRefusal::NotTheToken;
        }
        let said = Refusal::read(body).and_then(|refusal| refusal.meaning(&self.dialect));
        match said.or_else(|| words::challenge_meaning(www_authenticate?)) {
            Some(Meaning::DeadToken) => ApiRefusal::DeadToken,
            Some(Meaning::NotTheToken | Meaning::OurFault) => ApiRefusal::NotTheToken,
            Some(Meaning::NoToken | Meaning::DeadGrant) | None => ApiRefusal::Unclear,
        }
    }
}

/// The words of a refusal, if its status is one that judges what was sent. All others are about the
/// provider's own state.
pub(crate) fn refusal(answer: &Response<Bytes>) -> Option<Refusal> {
    let judges = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    judges.contains(&answer.status()).then(|| Refusal::read(answer.body())).flatten()
}

/// Whether a 401 is about the token that was sent. Two kinds of it prove nothing: one that misses
/// the token, since something on the way took the header off, and a page that is not the provider's
/// JSON.
pub(crate) fn judges_the_token(answer: &Response<Bytes>, dialect: &Dialect) -> bool {
    let body = answer.body();
    let misses_it = |refusal: Refusal| refusal.meaning(dialect) == Some(Meaning::NoToken);
    body.is_empty() || Refusal::read(body).is_some_and(|refusal| !misses_it(refusal))
}

/// When the provider wrote this answer, as it says (RFC 9110 section 6.6.1). None if it does not
/// say, or if a cache answered.
pub fn date(answer: &Response<Bytes>) -> Option<Timestamp> {
    let headers = answer.headers();
    if headers.contains_key(AGE) {
        return None;
    }
    parse_date(headers.get(DATE)?.to_str().ok()?)
}

fn parse_date(text: &str) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::EPOCH.after(date))
}

pub(crate) fn failure(answer: &Response<Bytes>, now: Timestamp) -> ProviderFailure {
    ProviderFailure {
        kind: FailureKind::Status(answer.status().as_u16()),
        retry_after: retry_after(answer.headers(), now),
    }
}

/// The provider's wish when to be asked again, in seconds or as a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let secs = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().unwrap_or(u64::MAX)
    } else {
        parse_date(text)?.since(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
    };
    Some(Duration::from_secs(secs.clamp(*RETRY_AFTER_SECS.start(), *RETRY_AFTER_SECS.end())))
}

#[cfg(test)]
mod tests;
