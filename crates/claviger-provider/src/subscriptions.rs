//! The subscription to the news that a user disconnected us (Twitch docs, "EventSub subscription types",
//! `user.authorization.revoke`): asked for, listed, deleted, and what there should be.
//!
//! One subscription covers all users of our client, so there is to be exactly one for each address that receives it.

use bytes::Bytes;
use claviger_core::{
    secret::AccessToken,
    time::Timestamp,
    verdict::{Trouble, TroubleKind},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::{
    answer::{Unanswered, refusal, trouble},
    app::{Fault, fault},
    body::{self, Object, is_id, readable},
    provider::Provider,
    webhook::WebhookSecret,
    words::text_or_none,
};

/// The news that a user disconnected our client (Twitch docs, "User Authorization Revoke").
pub(crate) const REVOKE: &str = "user.authorization.revoke";
/// The version of it that is understood here.
pub(crate) const VERSION: &str = "1";
/// Where subscriptions live, below the base of the API (Twitch docs, "EventSub").
const PATH: [&str; 2] = ["eventsub", "subscriptions"];
/// A place in a list is named in at most so many bytes; Twitch's have about a hundred.
const CURSOR_BYTES: usize = 1024;
/// The operator is shown so many characters of why a subscription was refused.
const REFUSAL_CHARS: usize = 300;

/// A subscription as the provider describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: String,
    /// How it is (Twitch docs, "Get EventSub Subscriptions", `status`).
    pub status: String,
    /// What it is about.
    pub kind: String,
    /// Which version of that.
    pub version: Option<String>,
    /// Where its messages go, if they go to an address.
    pub callback: Option<String>,
    /// Whose users it is about, if it says so.
    pub client_id: Option<String>,
}

impl Subscription {
    /// Whether its messages come, or will once the provider has asked its address.
    pub fn good(&self) -> bool {
        matches!(self.status.as_str(), "enabled" | "webhook_callback_verification_pending")
    }

    fn is_for(&self, callback: &Url, client_id: &str) -> bool {
        self.kind == REVOKE
            && self.version.as_deref() == Some(VERSION)
            && self.callback.as_deref() == Some(callback.as_str())
            && self.client_id.as_deref() == Some(client_id)
    }
}

/// What the provider answered to the wish for a list of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListAnswer {
    /// A page of the list.
    Page {
        /// The subscriptions on it. One that has no readable id, type or status is left out.
        subscriptions: Vec<Subscription>,
        /// What to ask for the next page with, if there is one.
        next: Option<String>,
    },
    /// The app's token is dead: get a new one and ask again.
    TokenDead,
    /// Our client is wrong.
    Misconfigured,
    /// Nothing is known.
    Unknown(Trouble),
}

/// What the provider answered to the wish for a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateAnswer {
    /// It is there, under this id, and waits for the challenge to be answered.
    Created(String),
    /// There is one already with this type, condition and address.
    Exists,
    /// The app's token is dead: get a new one and ask again.
    TokenDead,
    /// Our client, or what we asked for, is wrong; the operator must act. The provider's reason, for reading only.
    Refused(String),
    /// It may be there or not: look at the list. A limit on how many of a kind there may be answers 429 too.
    Unknown(Trouble),
}

/// What the provider answered to the wish that a subscription end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteAnswer {
    /// It is no longer there, now or already before.
    Done,
    /// The app's token is dead: get a new one and ask again.
    TokenDead,
    /// It may be there or not: look at the list.
    Unknown(Trouble),
}

impl From<Fault> for ListAnswer {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TokenDead => Self::TokenDead,
            Fault::Misconfigured => Self::Misconfigured,
            Fault::Unknown(trouble) => Self::Unknown(trouble),
        }
    }
}

/// A page of subscriptions, also the answer to a new one.
#[derive(Deserialize)]
struct Listing {
    data: Vec<Object<Described>>,
    pagination: Option<Object<Pagination>>,
}

#[derive(Deserialize)]
struct Pagination {
    cursor: Option<String>,
}

/// A subscription as it stands in lists and in messages, as far as it is understood.
#[derive(Deserialize)]
pub(crate) struct Described {
    #[serde(default, deserialize_with = "text_or_none")]
    id: Option<String>,
    #[serde(default, deserialize_with = "text_or_none")]
    status: Option<String>,
    #[serde(rename = "type", default, deserialize_with = "text_or_none")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "text_or_none")]
    version: Option<String>,
    condition: Option<Object<Condition>>,
    transport: Option<Object<Transport>>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(default, deserialize_with = "text_or_none")]
    client_id: Option<String>,
}

#[derive(Deserialize)]
struct Transport {
    #[serde(default, deserialize_with = "text_or_none")]
    callback: Option<String>,
}

impl Described {
    /// None if it does not say which it is, what it is about, and how it is.
    pub(crate) fn read(self) -> Option<Subscription> {
        let word = |text: Option<String>| text.filter(|text| is_id(text));
        Some(Subscription {
            id: word(self.id)?,
            status: word(self.status)?,
            kind: word(self.kind)?,
            version: self.version,
            callback: self.transport.and_then(|transport| transport.0.callback),
            client_id: self.condition.and_then(|condition| condition.0.client_id),
        })
    }
}

impl Provider {
    /// Asks for a page of our subscriptions to users who disconnect us, the first or the one after `after` (Twitch docs,
    /// "Get EventSub Subscriptions").
    pub fn list_subscriptions(&self, app: &AccessToken, after: Option<&str>) -> Request<Bytes> {
        let mut query = vec![("type", REVOKE)];
        query.extend(after.map(|after| ("after", after)));
        self.api_request(Method::GET, &PATH, &query, app)
    }

    /// What the answer to [`list_subscriptions`](Self::list_subscriptions) says.
    pub fn read_subscriptions(
        &self,
        answer: Result<Response<Bytes>, Unanswered>,
        now: Timestamp,
    ) -> ListAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return ListAnswer::Unknown(unanswered.into()),
        };
        if answer.status() != StatusCode::OK {
            return fault(&answer, now).into();
        }
        page(answer.body()).unwrap_or_else(|| Fault::UNREADABLE.into())
    }

    /// Asks for the subscription to users who disconnect our client, with messages to `callback` that are signed with
    /// `secret` (Twitch docs, "Create EventSub Subscription").
    pub fn create_subscription(
        &self,
        app: &AccessToken,
        callback: &Url,
        secret: &WebhookSecret,
    ) -> Request<Bytes> {
        let wish = json!({
            "type": REVOKE,
            "version": VERSION,
            "condition": { "client_id": self.client_id },
            "transport": { "method": "webhook", "callback": callback.as_str(), "secret": secret.expose() },
        });
        let request = self.api_request(Method::POST, &PATH, &[], app);
        let mut request = request.map(|_| Bytes::from(wish.to_string()));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }

    /// What the answer to [`create_subscription`](Self::create_subscription) says.
    pub fn read_created(&self, answer: Result<Response<Bytes>, Unanswered>, now: Timestamp) -> CreateAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return CreateAnswer::Unknown(unanswered.into()),
        };
        if answer.status().is_success() {
            let unreadable = Trouble::new(TroubleKind::Unreadable);
            return created(answer.body()).map_or(CreateAnswer::Unknown(unreadable), CreateAnswer::Created);
        }
        if answer.status() == StatusCode::CONFLICT {
            return CreateAnswer::Exists;
        }
        refused(&answer, now)
    }

    /// Asks that a subscription end (Twitch docs, "Delete EventSub Subscription").
    pub fn delete_subscription(&self, app: &AccessToken, id: &str) -> Request<Bytes> {
        self.api_request(Method::DELETE, &PATH, &[("id", id)], app)
    }

    /// What the answer to [`delete_subscription`](Self::delete_subscription) says. Whoever asked looks at the list again
    /// later, so a 404 of something on the way does no harm.
    pub fn read_deleted(&self, answer: Result<Response<Bytes>, Unanswered>, now: Timestamp) -> DeleteAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return DeleteAnswer::Unknown(unanswered.into()),
        };
        if matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_FOUND) {
            return DeleteAnswer::Done;
        }
        match fault(&answer, now) {
            Fault::TokenDead => DeleteAnswer::TokenDead,
            Fault::Unknown(trouble) => DeleteAnswer::Unknown(trouble),
            Fault::Misconfigured => DeleteAnswer::Unknown(trouble(&answer, now)),
        }
    }
}

/// Reads a page. None if it cannot be relied on, also if it goes on at a place that is not understood.
fn page(body: &[u8]) -> Option<ListAnswer> {
    let Listing { data, pagination } = body::object(body)?;
    let next = pagination.and_then(|pagination| pagination.0.cursor).filter(|cursor| !cursor.is_empty());
    if !next.as_deref().is_none_or(is_cursor) {
        return None;
    }
    let subscriptions = data.into_iter().filter_map(|Object(described)| described.read()).collect();
    Some(ListAnswer::Page { subscriptions, next })
}

fn is_cursor(text: &str) -> bool {
    text.len() <= CURSOR_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The id of the one subscription that was made.
fn created(body: &[u8]) -> Option<String> {
    let Listing { data, .. } = body::object(body)?;
    let [Object(described)] = <[_; 1]>::try_from(data).ok()?;
    Some(described.read()?.id)
}

/// Why there is no new subscription. Words that are not known are shown to the operator: a wrong address of ours is told so.
fn refused(answer: &Response<Bytes>, now: Timestamp) -> CreateAnswer {
    let said = refusal(answer);
    match (fault(answer, now), said) {
        (Fault::TokenDead, _) => CreateAnswer::TokenDead,
        (Fault::Unknown(trouble), None) => CreateAnswer::Unknown(trouble),
        (Fault::Misconfigured | Fault::Unknown(_), said) => {
            let reason = said.and_then(|said| readable(said.message()?, REFUSAL_CHARS));
            CreateAnswer::Refused(reason.unwrap_or_else(|| answer.status().to_string()))
        }
    }
}

/// What is to be done so that there is one good subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The ids of those to end, before a new one is asked for.
    pub delete: Vec<String>,
    /// Whether one is missing.
    pub create: bool,
}

/// Decides what is to be done about the subscriptions that were found: the whole list, not one page.
///
/// Exactly one good subscription with our address and our client stays: one that is enabled rather than one that waits for
/// its challenge, and of equals the first. Others with our address and our client end. One with another address is left
/// alone, since it is another deployment's of the same client, and so is one about something else.
///
/// The list does not tell which secret a subscription was made with: whoever changes the secret ends the old one.
pub fn reconcile(found: &[Subscription], callback: &Url, client_id: &str) -> Plan {
    let ours = || found.iter().filter(|subscription| subscription.is_for(callback, client_id));
    let good = || ours().filter(|subscription| subscription.good());
    let kept = good().find(|subscription| subscription.status == "enabled").or_else(|| good().next());
    let kept = kept.map(|subscription| subscription.id.as_str());
    Plan {
        delete: ours()
            .map(|ours| ours.id.as_str())
            .filter(|id| Some(*id) != kept)
            .map(str::to_owned)
            .collect(),
        create: kept.is_none(),
    }
}

#[cfg(test)]
mod tests;
