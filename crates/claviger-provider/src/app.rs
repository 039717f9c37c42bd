//! The app's own access token, and calls of the API that are made with it.
//!
//! Such a token proves nothing of any user and costs one request, so doubt counts against it. A
//! refusal means that a new one is needed, and signs nobody out.

use bytes::Bytes;
use claviger_core::{AccessToken, FailureKind, Lifespan, ProviderFailure, Timestamp};
use http::{Method, Request, Response, StatusCode};

use crate::{
    answer::{Answer, failure, judges_the_token, refusal},
    body,
    client::{Client, below},
    dialect::Meaning,
    request::empty,
};

/// What the token endpoint answered to our own credentials.
#[derive(Clone, Debug)]
pub enum AppTokenAnswer {
    /// A token.
    Issued {
        /// The token.
        token: AccessToken,
        /// How long it lives.
        lifespan: Lifespan,
    },
    /// Our client or its secret is wrong.
    Misconfigured,
    /// No token, for now. A lost answer is no loss: nothing was spent.
    Unknown(ProviderFailure),
}

/// Why a call of the API with the app's token brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The app's token is dead.
    TokenDead,
    /// Our client is wrong.
    Misconfigured,
    /// Nothing is proven.
    Unknown(ProviderFailure),
}

impl Fault {
    /// The API answered with something that is not understood.
    pub(crate) const UNREADABLE: Self = Self::Unknown(ProviderFailure::new(FailureKind::Unreadable));
}

impl Client {
    /// Asks for a token of the app itself (RFC 6749 section 4.4.2).
    pub fn app_token_request(&self) -> Request<Bytes> {
        self.post(&self.endpoints.token, &[("grant_type", "client_credentials")])
    }

    /// What the answer to [`app_token_request`](Self::app_token_request) brings (RFC 6749 sections
    /// 4.4.3 and 5.2).
    pub fn read_app_token(&self, answer: Answer, now: Timestamp) -> AppTokenAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return AppTokenAnswer::Unknown(unanswered.into()),
        };
        let status = answer.status();
        if status == StatusCode::OK {
            return match body::issued(answer.body()) {
                Some(pair) => AppTokenAnswer::Issued { token: pair.access, lifespan: pair.lifespan },
                None => AppTokenAnswer::Unknown(ProviderFailure::new(FailureKind::Unreadable)),
            };
        }
        let said = refusal(&answer);
        match said.as_ref().and_then(|said| said.meaning(&self.dialect)) {
            _ if said.is_some() && status == StatusCode::FORBIDDEN => AppTokenAnswer::Misconfigured,
            Some(Meaning::OurFault) => AppTokenAnswer::Misconfigured,
            _ => AppTokenAnswer::Unknown(failure(&answer, now)),
        }
    }

    /// A call of the API with the app's token. A token that no header can carry is left out.
    pub(crate) fn api_request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        app: &AccessToken,
    ) -> Request<Bytes> {
        let mut url = below(&self.endpoints.api, path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = empty(method, &url);
        let _ = self.authorize_call(request.headers_mut(), app);
        request
    }

    /// What a refused call of the API with the app's token is about.
    ///
    /// A 401 without known words counts against the token if the API itself answered, and not if
    /// something on the way did. A missing scope or a wrong client comes from our configuration.
    pub(crate) fn fault(&self, answer: &Response<Bytes>, now: Timestamp) -> Fault {
        let status = answer.status();
        let said = refusal(answer);
        match said.as_ref().and_then(|said| said.meaning(&self.dialect)) {
            Some(Meaning::OurFault | Meaning::NotTheToken) => Fault::Misconfigured,
            _ if said.is_some() && status == StatusCode::FORBIDDEN => Fault::Misconfigured,
            _ if status == StatusCode::UNAUTHORIZED && judges_the_token(answer, &self.dialect) => {
                Fault::TokenDead
            }
            _ => Fault::Unknown(failure(answer, now)),
        }
    }
}

#[cfg(test)]
mod tests;
