//! A provider: its addresses, our credentials there, and its habits.

use claviger_core::{ids::ProviderName, policy::ProviderHabits, secret::ClientSecret};
use url::Url;

/// An OAuth provider and our registration there.
#[derive(Clone, Debug)]
pub struct Provider {
    /// What the configuration calls it.
    pub name: ProviderName,
    /// Its issuer identifier, to compare with `iss` in a callback (RFC 9207 section 2.4).
    pub issuer: Option<String>,
    /// Our client id.
    pub client_id: String,
    /// Our client secret. It is sent in bodies, never in addresses (RFC 6749 section 2.3.1).
    pub client_secret: ClientSecret,
    /// Our redirect URI as registered, byte for byte (RFC 6749 section 3.1.2.3).
    pub redirect_uri: String,
    /// The scopes that a sign-in asks for.
    pub scopes: Vec<String>,
    /// Its addresses.
    pub endpoints: Endpoints,
    /// Whether it understands PKCE (RFC 7636).
    pub pkce: bool,
    /// What is known of its habits with refresh tokens.
    pub habits: ProviderHabits,
    /// Whether refresh tokens are revoked too, because they live on when their access token is revoked (RFC 7009 section 2.1
    /// leaves it to the provider).
    pub revokes_refresh_tokens: bool,
}

impl Provider {
    /// Twitch, for a confidential client. It ignores PKCE (twitchdev/issues#1097), so none is sent.
    ///
    /// Twitch documents the revocation of access tokens only. Whether it takes refresh tokens is unknown, and so is whether two
    /// sign-ins of one user may be given the same one: revoking that would sign out another device.
    pub fn twitch(
        client_id: impl Into<String>,
        client_secret: ClientSecret,
        redirect_uri: impl Into<String>,
        scopes: Vec<String>,
        endpoints: Endpoints,
    ) -> Self {
        Self {
            name: ProviderName("twitch".to_owned()),
            issuer: Some("https://id.twitch.tv/oauth2".to_owned()),
            client_id: client_id.into(),
            client_secret,
            redirect_uri: redirect_uri.into(),
            scopes,
            endpoints,
            pkce: false,
            habits: ProviderHabits::TWITCH,
            revokes_refresh_tokens: false,
        }
    }
}

/// The addresses of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Where a browser is sent to sign in.
    pub authorize: Url,
    /// Where codes and refresh tokens are exchanged for pairs.
    pub token: Url,
    /// Where an access token is validated.
    pub validate: Url,
    /// Where an access token is revoked.
    pub revoke: Url,
    /// The base of the API, with a slash at its end.
    pub api: Url,
}

impl Endpoints {
    /// Twitch itself.
    pub fn twitch() -> Self {
        Self::of_twitch(&fixed("https://id.twitch.tv/"), &fixed("https://api.twitch.tv/"))
    }

    /// A mock of Twitch with the sign-in pages and the API at one address. A path in the address is kept.
    pub fn twitch_at(base: &Url) -> Self {
        Self::of_twitch(base, base)
    }

    fn of_twitch(id: &Url, api: &Url) -> Self {
        Self {
            authorize: below(id, &["oauth2", "authorize"]),
            token: below(id, &["oauth2", "token"]),
            validate: below(id, &["oauth2", "validate"]),
            revoke: below(id, &["oauth2", "revoke"]),
            api: below(api, &["helix", ""]),
        }
    }
}

/// The address with these segments put behind its path. An address that can have no path stays as it is.
pub(crate) fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[expect(clippy::expect_used, reason = "the text is a constant of this file, and a test reads it")]
fn fixed(address: &'static str) -> Url {
    Url::parse(address).expect("a constant address")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(endpoints: &Endpoints) -> [&str; 5] {
        let Endpoints { authorize, token, validate, revoke, api } = endpoints;
        [authorize, token, validate, revoke, api].map(Url::as_str)
    }

    #[test]
    fn twitch_lives_where_its_documentation_says() {
        assert_eq!(
            addresses(&Endpoints::twitch()),
            [
                "https://id.twitch.tv/oauth2/authorize",
                "https://id.twitch.tv/oauth2/token",
                "https://id.twitch.tv/oauth2/validate",
                "https://id.twitch.tv/oauth2/revoke",
                "https://api.twitch.tv/helix/",
            ]
        );
    }

    #[test]
    fn a_mock_lives_at_one_address() {
        let table = [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/"),
            ("http://[::1]:1/a/b?c#d", "http://[::1]:1/a/b/"),
        ];
        for (base, prefix) in table {
            let endpoints = Endpoints::twitch_at(&Url::parse(base).unwrap());
            let expected = ["oauth2/authorize", "oauth2/token", "oauth2/validate", "oauth2/revoke", "helix/"]
                .map(|path| format!("{prefix}{path}"));
            assert_eq!(addresses(&endpoints), expected.each_ref().map(String::as_str));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let provider = Provider::twitch(
            "id",
            ClientSecret::new("canary"),
            "https://app.example/",
            vec![],
            Endpoints::twitch(),
        );
        assert!(!format!("{provider:?}").contains("canary"));
    }
}
