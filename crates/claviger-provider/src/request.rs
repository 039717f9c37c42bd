//! Requests to a provider. Secrets stand in bodies and in headers marked as sensitive, never in an
//! address.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use claviger_core::{AccessToken, AuthorizationCode, CodeVerifier, RefreshToken};
use form_urlencoded::Serializer;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, InvalidHeaderValue},
};
use sha2::{Digest, Sha256};
use url::Url;

use crate::client::Client;

/// The scheme of RFC 6750.
const BEARER: &str = "Bearer";

/// What one sign-in brings to its authorization request.
#[derive(Clone, Copy)]
pub struct LoginRequest<'a> {
    /// Binds the callback to the browser (RFC 6749 section 10.12).
    pub state: &'a str,
    /// Binds the code to this sign-in, where the provider understands PKCE.
    pub verifier: &'a CodeVerifier,
    /// Whether the provider should ask again although the user agreed before. It lets the user
    /// switch accounts.
    pub ask_again: bool,
}

impl Client {
    /// The address that a browser is sent to (RFC 6749 section 4.1.1).
    ///
    /// PKCE is S256 or nothing: the plain method does not protect from a reader of this address
    /// (RFC 9700 section 2.1.1). `scope` is sent even where there is none, since some providers
    /// insist on it.
    ///
    /// It ends with an empty fragment. A browser takes the fragment of the page before over a
    /// redirect to an address without one, so the provider's page would see it (RFC 9110 section
    /// 10.2.2).
    pub fn authorize_url(&self, login: &LoginRequest<'_>) -> Url {
        let mut url = self.endpoints.authorize.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("client_id", &self.id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("response_type", "code")
            .append_pair("scope", &self.scopes.join(" "))
            .append_pair("state", login.state);
        if login.ask_again {
            let (name, value) = self.dialect.ask_again;
            query.append_pair(name, value);
        }
        if self.dialect.pkce {
            query
                .append_pair("code_challenge", &challenge(login.verifier))
                .append_pair("code_challenge_method", "S256");
        }
        drop(query);
        url.set_fragment(Some(""));
        url
    }

    /// Asks for the headers of an answer, whatever its status, to read the provider's time in them.
    /// It carries no secret.
    pub fn time_request(&self) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::HEAD;
        *request.uri_mut() = uri(&self.endpoints.authorize);
        request
    }

    /// Exchanges a code for a pair (RFC 6749 section 4.1.3). `redirect_uri` is that of the
    /// sign-in's own request.
    pub fn exchange_code(
        &self,
        code: &AuthorizationCode,
        verifier: &CodeVerifier,
        redirect_uri: &str,
    ) -> Request<Bytes> {
        let mut fields = vec![
            ("code", code.expose()),
            ("grant_type", "authorization_code"),
            ("redirect_uri", redirect_uri),
        ];
        if self.dialect.pkce {
            fields.push(("code_verifier", verifier.expose()));
        }
        self.post(&self.endpoints.token, &fields)
    }

    /// Exchanges a refresh token for the next pair (RFC 6749 section 6).
    pub fn refresh(&self, token: &RefreshToken) -> Request<Bytes> {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token.expose())];
        self.post(&self.endpoints.token, &fields)
    }

    /// A form with our credentials before these fields (RFC 6749 section 2.3.1).
    pub(crate) fn post(&self, to: &Url, fields: &[(&str, &str)]) -> Request<Bytes> {
        let credentials = [("client_id", self.id.as_str()), ("client_secret", self.secret.expose())];
        post(to, &[&credentials, fields].concat())
    }

    /// Names the caller's token and our client in the headers of a call of the API.
    ///
    /// # Errors
    /// If no header can carry the token. Such a token was not issued by a provider.
    pub fn authorize_call(
        &self,
        headers: &mut HeaderMap,
        token: &AccessToken,
    ) -> Result<(), InvalidHeaderValue> {
        // A client id that no header can carry is nobody's: the API says so.
        if let Some(name) = self.dialect.client_id_header
            && let Ok(client_id) = HeaderValue::try_from(self.id.as_str())
        {
            headers.insert(HeaderName::from_static(name), client_id);
        }
        authorize(headers, BEARER, token)
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
pub(crate) fn authorize(
    headers: &mut HeaderMap,
    scheme: &str,
    token: &AccessToken,
) -> Result<(), InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("{scheme} {}", token.expose()))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(())
}

/// An address of over 64 KiB, which `http` cannot hold, becomes one that nothing can be sent to: no
/// answer, no verdict.
fn uri(url: &Url) -> Uri {
    Uri::try_from(url.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
