//! What a provider offers beyond signing in and refreshing. The engine asks here, and never for a
//! name.

use std::{fmt, time::Duration};

use bytes::Bytes;
use claviger_core::{AccessToken, Timestamp, ValidateAnswer};
use http::{HeaderMap, Request};
use url::Url;

use crate::{
    answer::Answer,
    client::Client,
    connections::ConnectionsAnswer,
    subscriptions::{CreateAnswer, DeleteAnswer, ListAnswer, Plan, Subscription},
    webhook::{Message, Refused, WebhookSecret},
};

/// What a provider offers. What it lacks is `None`, and its endpoint is never called.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// How an access token is validated at any time. Without it only a refresh proves anything.
    pub validation: Option<Validation>,
    /// How the tokens of one session are revoked. Without it a token that is no longer needed is
    /// forgotten. A revocation that would end the user's other sessions is none (BLAST).
    pub revocation: Option<Revocation>,
    /// How it says whether users still let the app in. Without it each session is on its own.
    pub connection_check: Option<&'static dyn ConnectionCheck>,
    /// How it sends word of its own accord. Without it there is no webhook.
    pub webhook_events: Option<&'static dyn WebhookEvents>,
}

/// How access tokens are validated, and how often.
#[derive(Clone, Debug)]
pub struct Validation {
    /// How the provider is asked.
    pub check: TokenCheck,
    /// Each token in use has to be validated once in this time (HOURLY).
    pub interval: Duration,
}

/// How a provider says whose an access token is, and whether it lives.
#[derive(Clone, Debug)]
pub struct TokenCheck {
    /// Where it is asked.
    pub endpoint: Url,
    /// How the question is put and its answer read.
    pub form: &'static dyn TokenCheckForm,
}

impl TokenCheck {
    /// Asks about a token.
    pub fn request(&self, client: &Client, token: &AccessToken) -> Request<Bytes> {
        self.form.request(&self.endpoint, client, token)
    }

    /// What the answer proves.
    pub fn read(&self, client: &Client, answer: Answer, now: Timestamp) -> ValidateAnswer {
        self.form.read(client, answer, now)
    }
}

/// The form of a question about an access token.
pub trait TokenCheckForm: fmt::Debug + Send + Sync {
    /// Asks about a token at this address.
    fn request(&self, endpoint: &Url, client: &Client, token: &AccessToken) -> Request<Bytes>;

    /// What the answer proves.
    fn read(&self, client: &Client, answer: Answer, now: Timestamp) -> ValidateAnswer;
}

/// How tokens are revoked (RFC 7009).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Where.
    pub endpoint: Url,
    /// Whose refresh tokens are revoked too, because they outlive the revocation of their access
    /// token (RFC 7009 section 2.1 leaves that to the provider).
    pub refresh_tokens: RefreshTokens,
    /// Whether the revocation of an access token carries our secret, as RFC 7009 section 2.1 says.
    pub with_secret: bool,
}

/// Which refresh tokens are revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshTokens {
    /// None.
    None,
    /// Those of sign-ins of which no token is kept. Of two sign-ins with the same refresh token, a
    /// revocation could end the other one (BLAST); here none needs it.
    Unkept,
    /// All that the server can open.
    All,
}

/// How a provider says which users still let the app in, several users at a time.
///
/// The answer signs people out, so it is believed word by word. What is not understood proves
/// nothing.
pub trait ConnectionCheck: fmt::Debug + Send + Sync {
    /// At most this many users are asked about at a time.
    fn users_at_once(&self) -> usize;

    /// Asks about users with the app's token. Users beyond [`users_at_once`](Self::users_at_once)
    /// are left out.
    fn request(&self, client: &Client, app: &AccessToken, user_ids: &[String]) -> Request<Bytes>;

    /// What the answer proves of the same users.
    fn read(&self, client: &Client, answer: Answer, user_ids: &[String], now: Timestamp)
    -> ConnectionsAnswer;
}

/// How a provider posts to us of its own accord.
pub trait WebhookEvents: fmt::Debug + Send + Sync {
    /// Reads a message, from its headers and from its body as it was received, byte for byte.
    ///
    /// The caller remembers the ids of recent messages and ignores one that came before.
    ///
    /// # Errors
    /// If it is not certain that the provider sent this, now and to us.
    fn read(
        &self,
        client: &Client,
        secret: &WebhookSecret,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Message, Refused>;

    /// Whether the provider can post to this address.
    ///
    /// # Errors
    /// What it takes, for the operator, as the end of a sentence.
    fn reaches(&self, callback: &Url) -> Result<(), &'static str>;

    /// How the app subscribes to the messages. None if the operator does it at the provider.
    fn subscriptions(&self) -> Option<&'static dyn Subscriptions>;
}

/// How the app subscribes to a provider's messages. All calls take the app's token.
pub trait Subscriptions: fmt::Debug + Send + Sync {
    /// Asks for a page of our subscriptions: the first, or the one after `after`.
    fn list(&self, client: &Client, app: &AccessToken, after: Option<&str>) -> Request<Bytes>;

    /// What the answer to [`list`](Self::list) says.
    fn read_list(&self, client: &Client, answer: Answer, now: Timestamp) -> ListAnswer;

    /// Asks for a subscription whose messages go to `callback`, signed with `secret`.
    fn create(
        &self,
        client: &Client,
        app: &AccessToken,
        callback: &Url,
        secret: &WebhookSecret,
    ) -> Request<Bytes>;

    /// What the answer to [`create`](Self::create) says.
    fn read_created(&self, client: &Client, answer: Answer, now: Timestamp) -> CreateAnswer;

    /// Asks that a subscription end.
    fn delete(&self, client: &Client, app: &AccessToken, id: &str) -> Request<Bytes>;

    /// What the answer to [`delete`](Self::delete) says. The caller lists the subscriptions again
    /// later, so a 404 of something on the way does no harm.
    fn read_deleted(&self, client: &Client, answer: Answer, now: Timestamp) -> DeleteAnswer;

    /// Decides what is to be done about all subscriptions that were found, not only one page of
    /// them, so that events come to `callback`. `current` is the id of the one that was made with
    /// the settings as they are, and no other one counts.
    fn plan(&self, client: &Client, found: &[Subscription], callback: &Url, current: Option<&str>) -> Plan;
}
