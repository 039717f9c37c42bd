//! Twitch: everything that is its own.
//!
//! | module | Twitch docs |
//! |---|---|
//! | `validate` | "Validating tokens" |
//! | `connections` | "Get Authorization By User" |
//! | `webhook`, `subscriptions` | EventSub: "Getting Events Using Webhook Callbacks", "User Authorization Revoke" |
//! | `words` | messages of all pages, and recorded answers |
//!
//! "Getting OAuth access tokens", "Refreshing access tokens" and "Revoking access tokens" follow
//! the RFCs but for what stands here. Where Twitch answers otherwise than it documents, both are
//! understood.

mod connections;
mod subscriptions;
mod validate;
mod webhook;
mod words;

use std::time::Duration;

use claviger_core::{ProviderHabits, ProviderName, Rotation};
use url::Url;

use crate::{
    capabilities::{Capabilities, RefreshTokens, Revocation, TokenCheck, Validation},
    client::{Client, Endpoints, Registration, below},
    dialect::Dialect,
    preset::Preset,
    provider::Provider,
};

pub use webhook::MESSAGE_AGE;

/// Twitch, for a confidential client.
pub const PRESET: Preset = Preset {
    name: "twitch",
    display_name: "Twitch",
    habits: HABITS,
    // "Validating tokens": at start, and hourly.
    check_interval: Some(Duration::from_secs(60 * 60)),
    webhook_events: Some(&webhook::EventSub),
    build,
};

/// What Twitch does with the refresh tokens of a confidential client. None of it is promised, so
/// every value can be configured.
///
/// The source is "Refreshing access tokens" (dev.twitch.tv/docs/authentication/refresh-tokens),
/// unless another one is named.
///
/// | habit | value | why |
/// |---|---|---|
/// | `rotation` | rotates | the answer's refresh token may differ, so it is always taken; the sample shows the same one |
/// | `replay_window` | a day | refresh tokens of confidential clients do not expire; nothing says that a refresh spends them |
/// | `reuse_kills_connection` | false | reported for public clients only (twitchdev/issues#903) |
/// | `old_access_token_survives` | true | up to 50 access tokens of one refresh token are valid at a time; reports of 401s at a rotation contradict it, and a 401 is answered with the newer token either way |
pub const HABITS: ProviderHabits = ProviderHabits {
    rotation: Rotation::Rotates,
    replay_window: Duration::from_secs(24 * 60 * 60),
    reuse_kills_connection: false,
    old_access_token_survives: true,
};

pub(crate) const DIALECT: Dialect = Dialect {
    // It ignores PKCE (twitchdev/issues#1097), so none is sent.
    pkce: false,
    messages: words::MESSAGES,
    revocation_messages: words::REVOCATION_MESSAGES,
    // "Getting OAuth access tokens".
    ask_again: ("force_verify", "true"),
    // "Twitch API concepts".
    client_id_header: Some("client-id"),
};

fn build(preset: &Preset, registration: Registration, mock: Option<&Url>) -> Provider {
    let host = |real: &'static str| mock.cloned().unwrap_or_else(|| fixed(real));
    let (id, api) = (host("https://id.twitch.tv/"), host("https://api.twitch.tv/"));
    let oauth = |page: &str| below(&id, &["oauth2", page]);
    let identity = TokenCheck { endpoint: oauth("validate"), form: &validate::Validate };
    let endpoints =
        Endpoints { authorize: oauth("authorize"), token: oauth("token"), api: below(&api, &["helix", ""]) };
    Provider {
        name: ProviderName(preset.name.to_owned()),
        display_name: preset.display_name,
        issuer: Some(below(&id, &["oauth2"]).into()),
        client: Client::new(registration, endpoints, DIALECT),
        identity: identity.clone(),
        capabilities: Capabilities {
            validation: preset.check_interval.map(|interval| Validation { check: identity, interval }),
            revocation: Some(Revocation {
                endpoint: oauth("revoke"),
                // Only the revocation of access tokens is documented. Two sign-ins of one user may
                // have the same refresh token: revoking that could sign out another device that
                // keeps it.
                refresh_tokens: RefreshTokens::Unkept,
                // "Revoking access tokens" names none.
                with_secret: false,
            }),
            connection_check: Some(&connections::Authorizations),
            webhook_events: preset.webhook_events,
        },
        habits: preset.habits,
    }
}

#[expect(clippy::expect_used, reason = "the text is a constant of this file, and a test reads it")]
fn fixed(address: &'static str) -> Url {
    Url::parse(address).expect("a constant address")
}

#[cfg(test)]
pub(crate) mod tests {
    use claviger_core::ClientSecret;

    use super::*;

    /// Twitch, for the tests of this crate.
    pub(crate) fn twitch(client_id: &str, client_secret: &str) -> Provider {
        let secret = ClientSecret::new(client_secret);
        PRESET.provider(Registration::new(client_id, secret, "https://app.example/", vec![]))
    }

    #[test]
    fn twitch_lives_where_its_documentation_says() {
        let Provider { client, identity, capabilities, issuer, .. } = twitch("id", "s");
        let Endpoints { authorize, token, api } = client.endpoints;
        assert_eq!(authorize.as_str(), "https://id.twitch.tv/oauth2/authorize");
        assert_eq!(token.as_str(), "https://id.twitch.tv/oauth2/token");
        assert_eq!(api.as_str(), "https://api.twitch.tv/helix/");
        assert_eq!(identity.endpoint.as_str(), "https://id.twitch.tv/oauth2/validate");
        assert_eq!(capabilities.validation.unwrap().check.endpoint, identity.endpoint);
        let revocation = capabilities.revocation.unwrap();
        assert_eq!(revocation.endpoint.as_str(), "https://id.twitch.tv/oauth2/revoke");
        assert_eq!(issuer.as_deref(), Some("https://id.twitch.tv/oauth2"));
    }
}
