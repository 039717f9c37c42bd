//! The app's own access token, and calls of the API that are made with it.
//!
//! Such a token proves nothing of any user and costs one request, so doubt counts against it: whatever refuses it sends its
//! holder for a new one, and signs nobody out.

use bytes::Bytes;
use claviger_core::{
    secret::AccessToken,
    time::Timestamp,
    verdict::{Lifespan, Trouble, TroubleKind},
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::{
    answer::{Unanswered, judges_the_token, refusal, trouble},
    body,
    provider::{Provider, below},
    request::{authorize, empty, post},
    words::{Meaning, Refusal},
};

/// The header that names our client to Twitch's API (Twitch docs, "Twitch API concepts").
const CLIENT_ID: HeaderName = HeaderName::from_static("client-id");

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
    Unknown(Trouble),
}

/// Why a call of the API with the app's token brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The app's token is dead.
    TokenDead,
    /// Our client is wrong.
    Misconfigured,
    /// Nothing is proven.
    Unknown(Trouble),
}

impl Fault {
    /// The API answered with something that is not understood.
    pub(crate) const UNREADABLE: Self = Self::Unknown(Trouble::new(TroubleKind::Unreadable));
}

impl Provider {
    /// Asks for a token of the app itself (RFC 6749 section 4.4.2; Twitch docs, "Getting OAuth access tokens", "Client
    /// credentials grant flow").
    pub fn app_token_request(&self) -> Request<Bytes> {
        let fields = [
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.client_secret.expose()),
            ("grant_type", "client_credentials"),
        ];
        post(&self.endpoints.token, &fields)
    }

    /// What the answer to [`app_token_request`](Self::app_token_request) brings (RFC 6749 sections 4.4.3 and 5.2).
    pub fn read_app_token(
        &self,
        answer: Result<Response<Bytes>, Unanswered>,
        now: Timestamp,
    ) -> AppTokenAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return AppTokenAnswer::Unknown(unanswered.into()),
        };
        let status = answer.status();
        if status == StatusCode::OK {
            return match body::issued(answer.body()) {
                Some(pair) => AppTokenAnswer::Issued { token: pair.access, lifespan: pair.lifespan },
                None => AppTokenAnswer::Unknown(Trouble::new(TroubleKind::Unreadable)),
            };
        }
        let said = refusal(&answer);
        match said.as_ref().and_then(Refusal::meaning) {
            _ if said.is_some() && status == StatusCode::FORBIDDEN => AppTokenAnswer::Misconfigured,
            Some(Meaning::OurFault) => AppTokenAnswer::Misconfigured,
            _ => AppTokenAnswer::Unknown(trouble(&answer, now)),
        }
    }

    /// A call of the API with the app's token (Twitch docs, "Twitch API concepts").
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
        // A client id that no header can carry is nobody's: the API says so.
        if let Ok(client_id) = HeaderValue::try_from(self.client_id.as_str()) {
            request.headers_mut().insert(CLIENT_ID, client_id);
        }
        authorize(&mut request, "Bearer", app);
        request
    }
}

/// What a refused call of the API with the app's token is about.
///
/// A 401 without known words counts against the token, as long as the API itself said it; a page of something in between
/// does not. No scope and no other client can be wrong about an app's token but by our own configuration.
pub(crate) fn fault(answer: &Response<Bytes>, now: Timestamp) -> Fault {
    let status = answer.status();
    let said = refusal(answer);
    match said.as_ref().and_then(Refusal::meaning) {
        Some(Meaning::OurFault | Meaning::NotTheToken) => Fault::Misconfigured,
        _ if said.is_some() && status == StatusCode::FORBIDDEN => Fault::Misconfigured,
        _ if status == StatusCode::UNAUTHORIZED && judges_the_token(answer) => Fault::TokenDead,
        _ => Fault::Unknown(trouble(answer, now)),
    }
}

#[cfg(test)]
mod tests;
