//! A provider: our client there, what it can do, and what it does with refresh tokens.

use bytes::Bytes;
use claviger_core::{AccessToken, Custody, ProviderHabits, ProviderName, RefreshToken};
use http::Request;

use crate::{
    capabilities::{Capabilities, RefreshTokens, TokenCheck},
    client::Client,
    request::post,
};

/// An OAuth provider and our client there.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its stable name: in configuration, rows and addresses.
    pub name: ProviderName,
    /// What people call it.
    pub display_name: &'static str,
    /// Its issuer identifier, to compare with `iss` in a callback (RFC 9207 section 2.4).
    pub issuer: Option<String>,
    /// Our client: what requests are built from and answers are read with.
    pub client: Client,
    /// How it says whose a new access token is. Every provider has a way: no session begins
    /// without.
    pub identity: TokenCheck,
    /// What it offers beyond signing in and refreshing.
    pub capabilities: Capabilities,
    /// What it does with refresh tokens.
    pub habits: ProviderHabits,
}

impl Provider {
    /// Whether refresh tokens are revoked beside access tokens, if they are kept in this custody.
    pub fn revokes_refresh_tokens(&self, custody: Custody) -> bool {
        let whose = self.capabilities.revocation.as_ref().map(|revocation| revocation.refresh_tokens);
        match whose {
            Some(RefreshTokens::All) => true,
            Some(RefreshTokens::Unkept) => custody == Custody::None,
            Some(RefreshTokens::None) | None => false,
        }
    }

    /// Revokes an access token (RFC 7009 section 2.1). None if the provider revokes none.
    pub fn revoke(&self, token: &AccessToken) -> Option<Request<Bytes>> {
        let revocation = self.capabilities.revocation.as_ref()?;
        let field = ("token", token.expose());
        Some(if revocation.with_secret {
            self.client.post(&revocation.endpoint, &[field])
        } else {
            post(&revocation.endpoint, &[("client_id", &self.client.id), field])
        })
    }

    /// Revokes a refresh token (RFC 7009 section 2.1). The hint saves the provider a search. None
    /// if the provider revokes none.
    pub fn revoke_refresh(&self, token: &RefreshToken) -> Option<Request<Bytes>> {
        let revocation = self.capabilities.revocation.as_ref();
        let revocation = revocation.filter(|found| found.refresh_tokens != RefreshTokens::None)?;
        let fields = [("token", token.expose()), ("token_type_hint", "refresh_token")];
        Some(self.client.post(&revocation.endpoint, &fields))
    }
}
