//! Which users still let us in, asked for several at once (Twitch docs, "Get Authorization By User").
//!
//! The answer signs people out, so it is believed word by word. What is not understood proves nothing, and neither does
//! silence that could be the provider's own trouble: an empty list must not sign everybody out.

use bytes::Bytes;
use claviger_core::{secret::AccessToken, suspicion::Connection, time::Timestamp, verdict::Trouble};
use http::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    answer::Unanswered,
    app::{Fault, fault},
    body::{self, Object, is_id},
    provider::Provider,
    words::text_or_none,
};

/// One probe asks about so many users (Twitch docs, "Get Authorization By User": "a maximum of 10").
pub const PROBE_USERS: usize = 10;

/// What the provider answered to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// What is known of each user, in the order of the question. Nothing is proven of a user who is not named here.
    Known(Vec<(String, Connection)>),
    /// The app's token is dead: get a new one and ask again.
    TokenDead,
    /// Our client is wrong.
    Misconfigured,
    /// Nothing is proven.
    Unknown(Trouble),
}

impl From<Fault> for ProbeAnswer {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TokenDead => Self::TokenDead,
            Fault::Misconfigured => Self::Misconfigured,
            Fault::Unknown(trouble) => Self::Unknown(trouble),
        }
    }
}

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

impl Provider {
    /// Asks which of these users let us in. Of more than [`PROBE_USERS`] ids only the first are asked about; neither the
    /// question nor the answer knows the others.
    pub fn authorizations_request(&self, app: &AccessToken, user_ids: &[String]) -> Request<Bytes> {
        let query: Vec<_> = questions(user_ids).into_iter().map(|id| ("user_id", id)).collect();
        self.api_request(Method::GET, &["authorization", "users"], &query, app)
    }

    /// What the answer to [`authorizations_request`](Self::authorizations_request) proves of the same users.
    ///
    /// A user is [`Gone`](Connection::Gone) if the answer leaves the id out and yet is sound: each of its entries is
    /// understood, none contradicts another, and at least one names somebody else of those asked about. An answer that names nobody could be the
    /// provider's own trouble, for everybody at once, and proves nothing. Only where one id was asked about does it have to
    /// be taken for `Gone`; whoever acts on that asks a second time, best together with a user who is known to be there.
    pub fn read_authorizations(
        &self,
        answer: Result<Response<Bytes>, Unanswered>,
        asked: &[String],
        now: Timestamp,
    ) -> ProbeAnswer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return ProbeAnswer::Unknown(unanswered.into()),
        };
        if answer.status() != StatusCode::OK {
            return fault(&answer, now).into();
        }
        let listing = body::object(answer.body());
        let known = listing.map(|listing: Listing| connections(&listing, &questions(asked)));
        match known {
            Some(known) if !known.is_empty() => ProbeAnswer::Known(known),
            _ => Fault::UNREADABLE.into(),
        }
    }
}

/// The ids that a probe asks about: each once, and only what can be an id.
fn questions(user_ids: &[String]) -> Vec<&str> {
    let mut ids = Vec::with_capacity(PROBE_USERS);
    for id in user_ids.iter().map(String::as_str).filter(|id| is_id(id)) {
        if ids.len() < PROBE_USERS && !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

fn connections(listing: &Listing, asked: &[&str]) -> Vec<(String, Connection)> {
    let entries = || listing.data.iter().map(|Object(entry)| entry);
    // Nothing, if the id is not named; and nothing that is understood, if it is named twice and not in the same way.
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
