//! The subscription to the message that a user disconnected us (Twitch docs, "EventSub subscription
//! types", `user.authorization.revoke`).
//!
//! One subscription covers all users of our client, so there is to be exactly one for each address
//! that receives it.

use bytes::Bytes;
use claviger_core::{AccessToken, FailureKind, ProviderFailure, Timestamp};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::{
    answer::{Answer, failure, refusal},
    app::Fault,
    body::{self, Object, is_id, readable},
    capabilities::Subscriptions,
    client::Client,
    subscriptions::{CreateAnswer, DeleteAnswer, ListAnswer, Plan, Subscription},
    webhook::WebhookSecret,
    words::text_or_none,
};

/// A user disconnected our client (Twitch docs, "User Authorization Revoke").
pub(super) const REVOKE: &str = "user.authorization.revoke";
/// The version of it that is understood here.
pub(super) const VERSION: &str = "1";
/// The status of a subscription whose messages come (Twitch docs, "Get EventSub Subscriptions").
const ENABLED: &str = "enabled";
/// The status of one whose messages come once its address has answered the challenge.
const PENDING: &str = "webhook_callback_verification_pending";
/// Where subscriptions live, below the base of the API (Twitch docs, "EventSub").
const PATH: [&str; 2] = ["eventsub", "subscriptions"];
/// At most this many bytes name a place in a list. Twitch's have about a hundred.
const CURSOR_BYTES: usize = 1024;
/// At most this many characters of a refusal are shown to the operator.
const REFUSAL_CHARS: usize = 300;

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
pub(super) struct Described {
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
    pub(super) fn read(self) -> Option<Subscription> {
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

/// EventSub's list of subscriptions.
#[derive(Debug)]
pub(super) struct EventSubSubscriptions;

impl Subscriptions for EventSubSubscriptions {
    fn list(&self, client: &Client, app: &AccessToken, after: Option<&str>) -> Request<Bytes> {
        let mut query = vec![("type", REVOKE)];
        query.extend(after.map(|after| ("after", after)));
        client.api_request(Method::GET, &PATH, &query, app)
    }

    fn read_list(&self, client: &Client, answer: Answer, now: Timestamp) -> ListAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return ListAnswer::Unknown(unanswered.into()),
        };
        if answer.status() != StatusCode::OK {
            return client.fault(&answer, now).into();
        }
        page(answer.body()).unwrap_or_else(|| Fault::UNREADABLE.into())
    }

    fn create(
        &self,
        client: &Client,
        app: &AccessToken,
        callback: &Url,
        secret: &WebhookSecret,
    ) -> Request<Bytes> {
        let wish = json!({
            "type": REVOKE,
            "version": VERSION,
            "condition": { "client_id": client.id },
            "transport": { "method": "webhook", "callback": callback.as_str(), "secret": secret.expose() },
        });
        let request = client.api_request(Method::POST, &PATH, &[], app);
        let mut request = request.map(|_| Bytes::from(wish.to_string()));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }

    fn read_created(&self, client: &Client, answer: Answer, now: Timestamp) -> CreateAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return CreateAnswer::Unknown(unanswered.into()),
        };
        if answer.status().is_success() {
            let unreadable = ProviderFailure::new(FailureKind::Unreadable);
            return created(answer.body()).map_or(CreateAnswer::Unknown(unreadable), CreateAnswer::Created);
        }
        if answer.status() == StatusCode::CONFLICT {
            return CreateAnswer::Exists;
        }
        refused(client, &answer, now)
    }

    fn delete(&self, client: &Client, app: &AccessToken, id: &str) -> Request<Bytes> {
        client.api_request(Method::DELETE, &PATH, &[("id", id)], app)
    }

    fn read_deleted(&self, client: &Client, answer: Answer, now: Timestamp) -> DeleteAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return DeleteAnswer::Unknown(unanswered.into()),
        };
        if matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_FOUND) {
            return DeleteAnswer::Done;
        }
        match client.fault(&answer, now) {
            Fault::TokenDead => DeleteAnswer::TokenDead,
            Fault::Unknown(failure) => DeleteAnswer::Unknown(failure),
            Fault::Misconfigured => DeleteAnswer::Unknown(failure(&answer, now)),
        }
    }

    /// The current subscription stays if it is enabled or waits for its challenge. The list does
    /// not tell which secret a subscription was made with, so others of our client to our address
    /// end. One with another address is left alone, also if this store made it: the store may be a
    /// copy, and the original at work there. So is one about something else.
    fn plan(&self, client: &Client, found: &[Subscription], callback: &Url, current: Option<&str>) -> Plan {
        let ours = || found.iter().filter(|one| is_ours(one, callback, &client.id));
        let is_current = |one: &&Subscription| current == Some(&one.id) && is_good(one);
        let kept = ours().find(is_current);
        let is_kept = |id: &String| kept.is_some_and(|kept| kept.id == *id);
        Plan {
            delete: ours().map(|one| one.id.clone()).filter(|id| !is_kept(id)).collect(),
            create: kept.is_none(),
            works: kept.is_some_and(|one| one.status == ENABLED),
        }
    }
}

fn is_ours(one: &Subscription, callback: &Url, client_id: &str) -> bool {
    one.kind == REVOKE
        && one.version.as_deref() == Some(VERSION)
        && one.callback.as_deref() == Some(callback.as_str())
        && one.client_id.as_deref() == Some(client_id)
}

fn is_good(one: &Subscription) -> bool {
    [ENABLED, PENDING].contains(&one.status.as_str())
}

/// Reads a page. None if it cannot be relied on, also if it goes on at a place that is not
/// understood.
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

/// Why there is no new subscription. Words that are not known are shown to the operator, who learns
/// so of a wrong address.
fn refused(client: &Client, answer: &Response<Bytes>, now: Timestamp) -> CreateAnswer {
    let said = refusal(answer);
    match (client.fault(answer, now), said) {
        (Fault::TokenDead, _) => CreateAnswer::TokenDead,
        (Fault::Unknown(failure), None) => CreateAnswer::Unknown(failure),
        (Fault::Misconfigured | Fault::Unknown(_), said) => {
            let reason = said.and_then(|said| readable(said.message()?, REFUSAL_CHARS));
            CreateAnswer::Refused(reason.unwrap_or_else(|| answer.status().to_string()))
        }
    }
}

#[cfg(test)]
mod tests;
