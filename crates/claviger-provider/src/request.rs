//! Requests to a provider. Secrets stand in bodies and in headers marked as sensitive, never in an address.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use claviger_core::secret::{AccessToken, AuthorizationCode, CodeVerifier, RefreshToken};
use form_urlencoded::Serializer;
use http::{
    HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use sha2::{Digest, Sha256};
use url::Url;

use crate::provider::Provider;

/// What one sign-in brings to its authorization request.
#[derive(Clone, Copy)]
pub struct LoginRequest<'a> {
    /// Binds the callback to the browser (RFC 6749 section 10.12).
    pub state: &'a str,
    /// Binds the code to this sign-in, where the provider understands PKCE.
    pub verifier: &'a CodeVerifier,
    /// Whether the provider should ask again although the user agreed before; lets the user switch accounts.
    pub force_verify: bool,
}

impl Provider {
    /// The address that a browser is sent to (RFC 6749 section 4.1.1).
    ///
    /// PKCE is S256 or nothing: the plain method protects from nobody who sees this address (RFC 9700 section 2.1.1).
    /// `force_verify` is Twitch's (Twitch docs, "Getting OAuth access tokens"), and so is `scope` without any scope.
    pub fn authorize_url(&self, login: &LoginRequest<'_>) -> Url {
        let mut url = self.endpoints.authorize.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("response_type", "code")
            .append_pair("scope", &self.scopes.join(" "))
            .append_pair("state", login.state);
        if login.force_verify {
            query.append_pair("force_verify", "true");
        }
        if self.pkce {
            query
                .append_pair("code_challenge", &challenge(login.verifier))
                .append_pair("code_challenge_method", "S256");
        }
        drop(query);
        url
    }

    /// Exchanges a code for a pair (RFC 6749 section 4.1.3). `redirect_uri` is that of the sign-in's own request.
    pub fn exchange_code(
        &self,
        code: &AuthorizationCode,
        verifier: &CodeVerifier,
        redirect_uri: &str,
    ) -> Request<Bytes> {
        let mut fields = vec![
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.client_secret.expose()),
            ("code", code.expose()),
            ("grant_type", "authorization_code"),
            ("redirect_uri", redirect_uri),
        ];
        if self.pkce {
            fields.push(("code_verifier", verifier.expose()));
        }
        post(&self.endpoints.token, &fields)
    }

    /// Buys the next pair (RFC 6749 section 6; Twitch docs, "Refreshing access tokens").
    pub fn refresh(&self, token: &RefreshToken) -> Request<Bytes> {
        let fields = [
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.client_secret.expose()),
            ("grant_type", "refresh_token"),
            ("refresh_token", token.expose()),
        ];
        post(&self.endpoints.token, &fields)
    }

    /// Asks whether an access token is good (Twitch docs, "Validating tokens": the scheme is `OAuth`).
    pub fn validate(&self, token: &AccessToken) -> Request<Bytes> {
        let mut request = empty(Method::GET, &self.endpoints.validate);
        authorize(&mut request, "OAuth", token);
        request
    }

    /// Revokes a refresh token (RFC 7009 section 2.1). The hint saves the provider a search.
    pub fn revoke_refresh(&self, token: &RefreshToken) -> Request<Bytes> {
        let fields = [
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.client_secret.expose()),
            ("token", token.expose()),
            ("token_type_hint", "refresh_token"),
        ];
        post(&self.endpoints.revoke, &fields)
    }

    /// Revokes an access token (RFC 7009 section 2.1; Twitch docs, "Revoking access tokens": no secret is needed).
    pub fn revoke(&self, token: &AccessToken) -> Request<Bytes> {
        let fields = [("client_id", self.client_id.as_str()), ("token", token.expose())];
        post(&self.endpoints.revoke, &fields)
    }
}

/// The S256 challenge of a verifier (RFC 7636 section 4.2).
fn challenge(verifier: &CodeVerifier) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose().as_bytes()))
}

pub(crate) fn post(to: &Url, fields: &[(&str, &str)]) -> Request<Bytes> {
    let body = Serializer::new(String::new()).extend_pairs(fields).finish();
    let mut request = empty(Method::POST, to).map(|_| Bytes::from(body));
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(CONTENT_TYPE, form);
    request
}

pub(crate) fn empty(method: Method, to: &Url) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri(to);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    request
}

/// Puts a token into its header, where nothing prints it.
pub(crate) fn authorize(request: &mut Request<Bytes>, scheme: &str, token: &AccessToken) {
    // A token that no header can carry was not issued by a provider: the answer parser refuses such tokens.
    if let Ok(mut value) = HeaderValue::try_from(format!("{scheme} {}", token.expose())) {
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
}

/// An address of over 64 KiB, which `http` cannot hold, becomes one that nothing can be sent to: no answer, no verdict.
fn uri(url: &Url) -> Uri {
    Uri::try_from(url.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
