//! Which users still let us in, several users in one question (Twitch docs, "Get Authorization By
//! User").
//!
//! Silence that could be the provider's own trouble proves nothing: an empty list must not sign
//! everybody out.

use bytes::Bytes;
use claviger_core::{AccessToken, Connection, Timestamp};
use http::{Method, Request, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    answer::Answer,
    app::Fault,
    body::{self, Object, is_id},
    capabilities::ConnectionCheck,
    client::Client,
    connections::ConnectionsAnswer,
    words::text_or_none,
};

/// "A maximum of 10" (Twitch docs, "Get Authorization By User").
const USERS_AT_ONCE: usize = 10;

#[derive(Deserialize)]
struct Listing {
    data: Vec<Object<Entry>>,
}

/// What is said of one user, as far as it is understood.
#[derive(Deserialize)]
struct Entry {
    #[serde(default, deserialize_with = "text_or_none")]
    user_id: Option<String>,
    #[serde(default, deserialize_with = "bool_or_none")]
    has_authorized: Option<bool>,
}

/// The endpoint `authorization/users`.
#[derive(Debug)]
pub(super) struct Authorizations;

impl ConnectionCheck for Authorizations {
    fn users_at_once(&self) -> usize {
        USERS_AT_ONCE
    }

    fn request(&self, client: &Client, app: &AccessToken, user_ids: &[String]) -> Request<Bytes> {
        let query: Vec<_> = questions(user_ids).into_iter().map(|id| ("user_id", id)).collect();
        client.api_request(Method::GET, &["authorization", "users"], &query, app)
    }

    /// A user is [`Gone`](Connection::Gone) if the answer leaves the id out and yet is sound: each
    /// of its entries is understood, none contradicts another, and at least one names another user
    /// of the question. An answer that names nobody could be the provider's own trouble, for all
    /// users at once, and proves nothing.
    ///
    /// Where only one id was asked about, an empty answer has to count as `Gone`. The caller asks a
    /// second time before acting on that, best together with a user who is known to be there.
    fn read(
        &self,
        client: &Client,
        answer: Answer,
        user_ids: &[String],
        now: Timestamp,
    ) -> ConnectionsAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return ConnectionsAnswer::Unknown(unanswered.into()),
        };
        if answer.status() != StatusCode::OK {
            return client.fault(&answer, now).into();
        }
        let listing = body::object(answer.body());
        let known = listing.map(|listing: Listing| connections(&listing, &questions(user_ids)));
        match known {
            Some(known) if !known.is_empty() => ConnectionsAnswer::Known(known),
            _ => Fault::UNREADABLE.into(),
        }
    }
}

/// The ids of a question: each once, and only what can be an id.
fn questions(user_ids: &[String]) -> Vec<&str> {
    let mut ids = Vec::with_capacity(USERS_AT_ONCE);
    for id in user_ids.iter().map(String::as_str).filter(|id| is_id(id)) {
        if ids.len() < USERS_AT_ONCE && !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

fn connections(listing: &Listing, asked: &[&str]) -> Vec<(String, Connection)> {
    let entries = || listing.data.iter().map(|Object(entry)| entry);
    // `None` if the id is not named, `Some(None)` if it is not understood or contradicts itself.
    let said = |id: &str| {
        let said = entries().filter(|entry| entry.user_id.as_deref() == Some(id));
        said.map(|entry| entry.has_authorized).reduce(|one, other| if one == other { one } else { None })
    };
    let names_one_asked = |entry: &Entry| entry.user_id.as_deref().is_some_and(|id| asked.contains(&id));
    let sound = entries().all(names_one_asked) && asked.iter().all(|id| said(id) != Some(None));
    let silence_counts = sound && (asked.len() == 1 || !listing.data.is_empty());
    let connection = |id: &str| match said(id) {
        Some(Some(true)) => Some(Connection::Connected),
        Some(Some(false)) => Some(Connection::Disconnected),
        Some(None) => None,
        None => silence_counts.then_some(Connection::Gone),
    };
    asked.iter().filter_map(|id| Some(((*id).to_owned(), connection(id)?))).collect()
}

/// A truth value, or nothing where there is something else.
fn bool_or_none<'de, D: Deserializer<'de>>(value: D) -> Result<Option<bool>, D::Error> {
    Value::deserialize(value).map(|value| value.as_bool())
}

#[cfg(test)]
mod tests;
