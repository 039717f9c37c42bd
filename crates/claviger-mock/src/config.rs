//! What a mock starts with: clients, users and settings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::eventsub::EventsubSettings;
use crate::limits;
use crate::secret::Secret;

/// The id of the client that [`Config::demo`] and [`Config::strict`] register.
pub const DEMO_CLIENT_ID: &str = "claviger0mock0demo0client0id00";
/// The secret of the client that [`Config::demo`] and [`Config::strict`] register.
pub const DEMO_CLIENT_SECRET: &str = "claviger0mock0demo0secret00000";
/// The redirect URI registered for the demo client.
pub const DEMO_REDIRECT_URI: &str = "http://localhost:3000/auth/callback";

/// The clients, users and settings of a new mock and of one after a reset.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The registered applications.
    pub clients: Vec<Client>,
    /// The people who can sign in.
    pub users: Vec<User>,
    /// What can be changed while the mock runs.
    pub settings: Settings,
    /// The address under which apps and browsers reach the mock, without a path; by default that of
    /// the `Host` header.
    pub public_url: Option<String>,
}

impl Config {
    /// No clients, no users, Twitch-like settings.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The demo client and three users; redirect URIs compare exactly, as at Twitch.
    pub fn strict() -> Self {
        Self::empty()
            .client(
                Client::new(DEMO_CLIENT_ID, DEMO_CLIENT_SECRET)
                    .redirect_uri(DEMO_REDIRECT_URI)
                    .name("Demo app"),
            )
            .user(User::new("100000001", "ada_builds").display_name("Ada_Builds"))
            .user(User::new("100000002", "grace_plays").display_name("Grace_Plays"))
            .user(User::new("100000003", "nils_streams").display_name("Nils_Streams").without_email())
    }

    /// As [`Config::strict`], but every `http` redirect URI on a loopback host is accepted.
    pub fn demo() -> Self {
        Self::strict().settings(|settings| settings.allow_any_loopback_redirect = true)
    }

    /// Adds a client.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.clients.push(client);
        self
    }

    /// Adds a user.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// Changes the settings.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Sets the address under which the mock is reached, for example `http://mock-twitch:8410`.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into().trim_end_matches('/').to_owned());
        self
    }
}

/// A registered application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The public identifier.
    pub client_id: String,
    /// The secret; `None` makes a Public client, which needs none (Twitch docs: registering your
    /// app).
    #[serde(default)]
    pub client_secret: Option<Secret>,
    /// The name shown on the consent page.
    #[serde(default)]
    pub name: String,
    /// The registered redirect URIs.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
}

impl Client {
    /// A confidential client without redirect URIs, named like its id.
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<String>) -> Self {
        let client_id = client_id.into();
        Self {
            name: client_id.clone(),
            client_id,
            client_secret: Some(Secret::new(client_secret)),
            redirect_uris: Vec::new(),
        }
    }

    /// Registers one more redirect URI.
    #[must_use]
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirect_uris.push(uri.into());
        self
    }

    /// Sets the name shown on the consent page.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes it a Public client: no secret.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.client_secret = None;
        self
    }

    /// Checks a client from outside.
    ///
    /// # Errors
    /// A sentence for the person who registers the client.
    pub fn check(&self) -> Result<(), String> {
        check_name("client_id", &self.client_id)?;
        if self.name.len() > limits::NAME_BYTES {
            return Err("name is too long".to_owned());
        }
        match self.redirect_uris.iter().find(|uri| !is_redirect_uri(uri)) {
            Some(uri) => {
                Err(format!("redirect URI {uri:?} is not an absolute address without a fragment, in ASCII"))
            }
            None => Ok(()),
        }
    }
}

/// A person with a Twitch account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The account's number, a string as in all of Twitch's answers.
    pub id: String,
    /// The login name, lower case.
    pub login: String,
    /// The display name.
    #[serde(default)]
    pub display_name: String,
    /// The verified e-mail address, if there is one.
    #[serde(default)]
    pub email: Option<String>,
    /// Whether the account is suspended; see [`MockTwitch::patch_user`](crate::MockTwitch).
    #[serde(default)]
    pub suspended: bool,
}

impl User {
    /// A user named like the login, with the address `login@example.test`.
    pub fn new(id: impl Into<String>, login: impl Into<String>) -> Self {
        let login = login.into();
        Self {
            id: id.into(),
            display_name: login.clone(),
            email: Some(format!("{login}@example.test")),
            login,
            suspended: false,
        }
    }

    /// Sets the display name.
    #[must_use]
    pub fn display_name(mut self, name: impl Into<String>) -> Self {
        self.display_name = name.into();
        self
    }

    /// Sets the verified e-mail address.
    #[must_use]
    pub fn email(mut self, email: impl Into<String>) -> Self {
        self.email = Some(email.into());
        self
    }

    /// Removes the e-mail address, as for an account without a verified one.
    #[must_use]
    pub fn without_email(mut self) -> Self {
        self.email = None;
        self
    }

    /// The address of the profile picture; nothing is served there.
    pub(crate) fn picture(&self) -> String {
        format!("https://static-cdn.example.test/{}.png", self.id)
    }

    /// Checks a user from outside.
    ///
    /// # Errors
    /// A sentence for the person who adds the user.
    pub fn check(&self) -> Result<(), String> {
        check_name("id", &self.id)?;
        check_name("login", &self.login)?;
        let longest = self.display_name.len().max(self.email.as_ref().map_or(0, String::len));
        if longest > limits::NAME_BYTES { Err("a name or address is too long".to_owned()) } else { Ok(()) }
    }
}

/// What a refresh does to the refresh token; undocumented for confidential clients, so all four are
/// offered. The default is what Claviger assumes of Twitch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// The answer repeats the refresh token that was presented.
    None,
    /// The answer carries a new one; the old one still works.
    #[default]
    Rotates,
    /// The answer carries a new one; the old one is dead (Twitch docs: Public clients).
    OneTime,
    /// The answer carries a new one; presenting the old one kills the whole connection of user and
    /// client (twitchdev/issues#903).
    OneTimeKillsConnection,
}

/// The rule of 50 live access tokens for each client and user (twitchdev/issues#986).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveTokenLimit {
    /// No limit.
    Off,
    /// One more kills the oldest.
    KillsOldest(u32),
    /// One more is refused with status 400 and changes nothing.
    Refuses(u32),
}

impl LiveTokenLimit {
    /// Checks a limit from outside.
    ///
    /// # Errors
    /// A sentence for the person who sets the limit.
    pub fn check(self) -> Result<(), String> {
        match self {
            Self::KillsOldest(0) | Self::Refuses(0) => {
                Err("the limit of live tokens must be at least 1".to_owned())
            }
            Self::Off | Self::KillsOldest(_) | Self::Refuses(_) => Ok(()),
        }
    }
}

impl fmt::Display for LiveTokenLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::KillsOldest(most) => write!(f, "kills-oldest:{most}"),
            Self::Refuses(most) => write!(f, "refuses:{most}"),
        }
    }
}

impl FromStr for LiveTokenLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |most: &str| most.parse().map_err(|_| format!("{most:?} is not a number of tokens"));
        let limit = match text.split_once(':') {
            None if text == "off" => Self::Off,
            Some(("kills-oldest", most)) => Self::KillsOldest(number(most)?),
            Some(("refuses", most)) => Self::Refuses(number(most)?),
            _ => return Err("must be off, kills-oldest:N or refuses:N, such as kills-oldest:50".to_owned()),
        };
        limit.check()?;
        Ok(limit)
    }
}

/// What can be changed while the mock runs; `GET` and `PATCH /mock/settings` carry it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Lifetime of a user access token in seconds; Twitch's samples lie between 13 600 and 15 600.
    pub token_lifetime_secs: u32,
    /// Lifetime of an app access token in seconds, about 60 days.
    pub app_token_lifetime_secs: u32,
    /// Lifetime of an authorization code in seconds.
    pub code_lifetime_secs: u32,
    /// What a refresh does to the refresh token.
    pub rotation: Rotation,
    /// Whether a refresh kills the access tokens that came from the same sign-in.
    pub refresh_kills_old_access_token: bool,
    /// The limit of live access tokens of one client and user.
    pub live_token_limit: LiveTokenLimit,
    /// Accepts every `http` redirect URI on localhost, 127.0.0.1 or `[::1]`; Twitch compares
    /// exactly.
    pub allow_any_loopback_redirect: bool,
    /// Checks `code_verifier` against an S256 `code_challenge`; Twitch ignores both.
    pub pkce: bool,
    /// Adds `iss` to the callback (RFC 9207); Twitch does not.
    pub callback_iss: bool,
    /// Refresh tokens end in characters that have to be URL-encoded, as the samples of Twitch's
    /// documentation do.
    pub awkward_refresh_tokens: bool,
    /// Points a minute in each Helix bucket.
    pub helix_points_per_minute: u32,
    /// Milliseconds for which validation, userinfo and Helix do not know a new access token:
    /// read-after-write lag.
    pub token_lag_ms: u64,
    /// Lets users choose on the consent page which of the scopes they grant; at Twitch they grant
    /// all or none.
    pub partial_grants: bool,
    /// Shows the callback as a link instead of redirecting, so that a person can open it twice,
    /// late, or in another browser.
    pub callback_by_hand: bool,
    /// Skips the consent page and authorizes as this user id.
    pub authorize_at_once_as: Option<String>,
    /// How EventSub messages are delivered; a patch names the fields of these to change, too.
    pub eventsub: EventsubSettings,
}

impl Settings {
    /// Checks settings from outside.
    ///
    /// # Errors
    /// A sentence for the person who sets them.
    pub fn check(&self) -> Result<(), String> {
        self.live_token_limit.check()?;
        self.eventsub.check()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            token_lifetime_secs: 14_000,
            app_token_lifetime_secs: 5_011_271,
            code_lifetime_secs: 600,
            rotation: Rotation::default(),
            refresh_kills_old_access_token: false,
            live_token_limit: LiveTokenLimit::KillsOldest(50),
            allow_any_loopback_redirect: false,
            pkce: false,
            callback_iss: false,
            awkward_refresh_tokens: true,
            helix_points_per_minute: 800,
            token_lag_ms: 0,
            partial_grants: false,
            callback_by_hand: false,
            authorize_at_once_as: None,
            eventsub: EventsubSettings::default(),
        }
    }
}

/// Whether a string can be registered as a redirect URI or a callback.
pub(crate) fn is_redirect_uri(uri: &str) -> bool {
    uri.len() <= limits::NAME_BYTES
        && uri.bytes().all(|byte| byte.is_ascii_graphic())
        && url::Url::parse(uri).is_ok_and(|url| url.fragment().is_none() && url.has_host())
}

/// Whether an address is plain `http` on a loopback host, any port and path.
pub(crate) fn is_loopback_address(uri: &str) -> bool {
    is_redirect_uri(uri)
        && url::Url::parse(uri).is_ok_and(|url| {
            url.scheme() == "http"
                && url.username().is_empty()
                && url.password().is_none()
                && matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
        })
}

fn check_name(what: &str, value: &str) -> Result<(), String> {
    let fine = !value.is_empty()
        && value.len() <= limits::NAME_BYTES
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if fine { Ok(()) } else { Err(format!("{what} must consist of letters, digits, '-', '_' and '.'")) }
}
