//! Our client at a provider: our registration, where the provider is, and how it speaks. Requests
//! are built from it, and answers read with it.

use claviger_core::ClientSecret;
use url::Url;

use crate::dialect::Dialect;

/// Our client at a provider.
#[derive(Clone, Debug)]
pub struct Client {
    /// Our client id.
    pub id: String,
    /// Our client secret. It is sent in bodies, never in addresses (RFC 6749 section 2.3.1).
    pub secret: ClientSecret,
    /// Our redirect URI as registered, byte for byte (RFC 6749 section 3.1.2.3).
    pub redirect_uri: String,
    /// The scopes that a sign-in asks for.
    pub scopes: Vec<String>,
    /// The addresses that every provider has.
    pub endpoints: Endpoints,
    /// Where the provider's requests and answers depart from the RFCs.
    pub dialect: Dialect,
}

impl Client {
    pub(crate) fn new(registration: Registration, endpoints: Endpoints, dialect: Dialect) -> Self {
        let Registration { client_id: id, client_secret: secret, redirect_uri, scopes } = registration;
        Self { id, secret, redirect_uri, scopes, endpoints, dialect }
    }
}

/// The addresses that every provider has. A capability brings its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Where a browser is sent to sign in.
    pub authorize: Url,
    /// Where codes and refresh tokens are exchanged for pairs.
    pub token: Url,
    /// The base of the API, with a slash at its end.
    pub api: Url,
}

/// Our registration at a provider.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Our client id.
    pub client_id: String,
    /// Our client secret.
    pub client_secret: ClientSecret,
    /// Our redirect URI as registered, byte for byte.
    pub redirect_uri: String,
    /// The scopes that a sign-in asks for.
    pub scopes: Vec<String>,
}

impl Registration {
    /// Takes it from the configuration.
    pub fn new(
        client_id: impl Into<String>,
        client_secret: ClientSecret,
        redirect_uri: impl Into<String>,
        scopes: Vec<String>,
    ) -> Self {
        let (client_id, redirect_uri) = (client_id.into(), redirect_uri.into());
        Self { client_id, client_secret, redirect_uri, scopes }
    }
}

/// The address with these segments put behind its path. An address that can have no path stays as
/// it is.
pub(crate) fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}
