//! The outbox: which message goes to which webhook when, and what became of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use serde::{Deserialize, Serialize};

use crate::eventsub::messages::{Message, MessageType};
use crate::eventsub::subscriptions::SubscriptionType;
use crate::limits;

/// Names one attempt to deliver a message; never used twice by one mock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DeliveryId(pub(crate) u64);

/// One request to a webhook, to be sent now;
/// [`MockTwitch::delivered`](crate::MockTwitch::delivered) needs its outcome.
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// The request, whose address is the subscription's callback as an absolute URI.
    pub request: Request<Bytes>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The outcome of a delivery at the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookAnswer {
    /// It answered.
    Answered {
        /// The status.
        status: u16,
        /// The body, which counts for a challenge.
        body: Bytes,
    },
    /// It could not be reached, took too long, or broke off.
    NoAnswer,
}

impl WebhookAnswer {
    /// Whether it answered with 2xx.
    pub(crate) fn accepts(&self) -> bool {
        matches!(self, Self::Answered { status: 200..300, .. })
    }

    fn state(&self) -> DeliveryState {
        match self {
            Self::Answered { status, .. } => DeliveryState::Answered(*status),
            Self::NoAnswer => DeliveryState::NoAnswer,
        }
    }
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It is not due yet.
    Waiting,
    /// It is held until released.
    Held,
    /// It has been sent.
    UnderWay,
    /// It was answered with this status.
    Answered(u16),
    /// It was not answered.
    NoAnswer,
    /// It is never sent: a setting says so, its subscription is gone, or too many wait.
    Dropped,
}

/// One delivery in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryEntry {
    /// Its name; grows with each delivery.
    pub id: DeliveryId,
    /// Its state.
    pub state: DeliveryState,
    /// The header `Twitch-Eventsub-Message-Id`.
    pub message_id: String,
    /// The header `Twitch-Eventsub-Message-Type`.
    pub message_type: MessageType,
    /// The header `Twitch-Eventsub-Message-Timestamp`.
    pub message_timestamp: String,
    /// The header `Twitch-Eventsub-Message-Retry`.
    pub retry: u32,
    /// The subscription.
    pub subscription_id: String,
    /// The subscription's type.
    pub subscription_type: SubscriptionType,
    /// The client of the subscription.
    pub client_id: String,
    /// The user whom a notification concerns.
    pub user_id: Option<String>,
    /// When it is or was due, in Unix milliseconds.
    pub due_at_ms: i64,
    /// When it ended, in Unix milliseconds.
    pub ended_at_ms: Option<i64>,
}

/// The order in which held deliveries are released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseOrder {
    /// Oldest first.
    #[default]
    OldestFirst,
    /// Newest first.
    NewestFirst,
}

/// What happens to a delivery when it is added.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    Due(i64),
    Hold,
    Drop,
}

/// A delivery to add.
#[derive(Clone)]
pub(crate) struct Parcel {
    pub(crate) message: Arc<Message>,
    pub(crate) retry: u32,
    /// Whether it is a copy of another one; a copy is never repeated.
    pub(crate) is_copy: bool,
}

struct Entry {
    listed: DeliveryEntry,
    /// The number of the subscription.
    subscription: u64,
    /// None once the delivery has ended.
    parcel: Option<Parcel>,
}

impl Entry {
    fn new(id: DeliveryId, state: DeliveryState, due_at_ms: i64, parcel: Parcel) -> Self {
        let message = &parcel.message;
        let listed = DeliveryEntry {
            id,
            state,
            message_id: message.id.clone(),
            message_type: message.kind,
            message_timestamp: message.timestamp.clone(),
            retry: parcel.retry,
            subscription_id: message.subscription_id.clone(),
            subscription_type: message.subscription_type,
            client_id: message.client_id.clone(),
            user_id: message.user_id.clone(),
            due_at_ms,
            ended_at_ms: None,
        };
        Self { listed, subscription: message.subscription, parcel: Some(parcel) }
    }
}

/// All deliveries of the mock.
#[derive(Default)]
pub(crate) struct Outbox {
    entries: BTreeMap<DeliveryId, Entry>,
    /// By time, then by the order of insertion.
    waiting: BTreeMap<(i64, u64), DeliveryId>,
    held: VecDeque<DeliveryId>,
    under_way: BTreeSet<DeliveryId>,
    ended: VecDeque<DeliveryId>,
    last_id: u64,
    last_place: u64,
}

impl Outbox {
    pub(crate) fn add(&mut self, parcel: Parcel, plan: Plan, now_ms: i64) {
        self.last_id += 1;
        let id = DeliveryId(self.last_id);
        let full = self.waiting.len() + self.held.len() >= limits::DELIVERIES_WAITING;
        let (state, due_at_ms) = match plan {
            _ if full => (DeliveryState::Dropped, now_ms),
            Plan::Due(due_at_ms) => (DeliveryState::Waiting, due_at_ms),
            Plan::Hold => (DeliveryState::Held, now_ms),
            Plan::Drop => (DeliveryState::Dropped, now_ms),
        };
        self.entries.insert(id, Entry::new(id, state, due_at_ms, parcel));
        match state {
            DeliveryState::Waiting => self.queue(id, due_at_ms),
            DeliveryState::Held => self.held.push_back(id),
            _ => self.end(id, state, now_ms),
        }
    }

    fn queue(&mut self, id: DeliveryId, due_at_ms: i64) {
        self.last_place += 1;
        self.waiting.insert((due_at_ms, self.last_place), id);
    }

    /// Returns what is due, within the limit of deliveries in flight.
    pub(crate) fn take_due(&mut self, now_ms: i64, one_at_a_time: bool) -> Vec<Delivery> {
        let mut busy = self.busy(one_at_a_time);
        let mut taken = Vec::new();
        for (place, id) in self.waiting.range(..=(now_ms, u64::MAX)) {
            if self.under_way.len() + taken.len() >= limits::DELIVERIES_UNDER_WAY {
                break;
            }
            let subscription = self.entries.get(id).map(|entry| entry.subscription);
            let free = subscription.is_none_or(|number| !one_at_a_time || busy.insert(number));
            if free {
                taken.push((*place, *id));
            }
        }
        taken.into_iter().filter_map(|(place, id)| self.send(place, id)).collect()
    }

    fn send(&mut self, place: (i64, u64), id: DeliveryId) -> Option<Delivery> {
        self.waiting.remove(&place);
        let entry = self.entries.get_mut(&id)?;
        let parcel = entry.parcel.as_ref()?;
        entry.listed.state = DeliveryState::UnderWay;
        self.under_way.insert(id);
        Some(Delivery { id, request: parcel.message.request(parcel.retry) })
    }

    /// When the next delivery can be sent; `None` if that first needs an answer or a release.
    pub(crate) fn next_at_ms(&self, one_at_a_time: bool) -> Option<i64> {
        if self.under_way.len() >= limits::DELIVERIES_UNDER_WAY {
            return None;
        }
        let busy = self.busy(one_at_a_time);
        let free =
            |id: &DeliveryId| self.entries.get(id).is_some_and(|entry| !busy.contains(&entry.subscription));
        self.waiting.iter().find(|(_, id)| free(id)).map(|((due_at_ms, _), _)| *due_at_ms)
    }

    /// The subscriptions that must wait because one of their deliveries is in flight.
    fn busy(&self, one_at_a_time: bool) -> BTreeSet<u64> {
        let under_way = self.under_way.iter().filter(|_| one_at_a_time);
        under_way.filter_map(|id| Some(self.entries.get(id)?.subscription)).collect()
    }

    /// Ends a delivery in flight; `None` if it was not in flight.
    pub(crate) fn finish(&mut self, id: DeliveryId, answer: &WebhookAnswer, now_ms: i64) -> Option<Parcel> {
        if !self.under_way.remove(&id) {
            return None;
        }
        let parcel = self.entries.get_mut(&id)?.parcel.take();
        self.end(id, answer.state(), now_ms);
        parcel
    }

    fn end(&mut self, id: DeliveryId, state: DeliveryState, now_ms: i64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.listed.state = state;
        entry.listed.ended_at_ms = Some(now_ms);
        entry.parcel = None;
        self.ended.push_back(id);
        if self.ended.len() > limits::DELIVERIES_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    /// Drops the waiting and held deliveries of a subscription. Those in flight arrive.
    pub(crate) fn cancel(&mut self, subscription: u64, now_ms: i64) {
        let entries = &self.entries;
        let concerned =
            |id: &DeliveryId| entries.get(id).is_some_and(|entry| entry.subscription == subscription);
        let unsent = self.waiting.values().chain(&self.held);
        let cancelled: BTreeSet<DeliveryId> = unsent.copied().filter(concerned).collect();
        self.waiting.retain(|_, id| !cancelled.contains(id));
        self.held.retain(|id| !cancelled.contains(id));
        for id in cancelled {
            self.end(id, DeliveryState::Dropped, now_ms);
        }
    }

    /// Makes all held deliveries due, and returns their number.
    pub(crate) fn release(&mut self, order: ReleaseOrder, now_ms: i64) -> usize {
        let mut released: Vec<DeliveryId> = std::mem::take(&mut self.held).into();
        if order == ReleaseOrder::NewestFirst {
            released.reverse();
        }
        for id in &released {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.listed.state = DeliveryState::Waiting;
                entry.listed.due_at_ms = now_ms;
            }
            self.queue(*id, now_ms);
        }
        released.len()
    }

    /// All listed deliveries, oldest first.
    pub(crate) fn list(&self) -> impl DoubleEndedIterator<Item = DeliveryEntry> {
        self.entries.values().map(|entry| entry.listed.clone())
    }

    /// Forgets all. Ids continue, so an answer to an older delivery finds nothing.
    pub(crate) fn clear(&mut self) {
        let (last_id, last_place) = (self.last_id, self.last_place);
        *self = Self { last_id, last_place, ..Self::default() };
    }
}
