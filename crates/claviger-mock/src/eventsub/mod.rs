//! EventSub over webhooks (Twitch docs: EventSub): messages to subscribers, when they are due, and
//! how their answers count. [`Server`](crate::Server) sends them.

mod control;
mod deliveries;
mod messages;
mod settings;
mod subscriptions;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::limits;
use crate::mock::MockTwitch;
use crate::secret::Secret;
use crate::state::Pair;

use deliveries::{Outbox, Parcel, Plan};
use messages::{Content, Message};
use subscriptions::Subscriptions;

pub use deliveries::{Delivery, DeliveryEntry, DeliveryId, DeliveryState, ReleaseOrder, WebhookAnswer};
pub use messages::MessageType;
pub use settings::EventsubSettings;
pub use subscriptions::{RevocationReason, Subscription, SubscriptionStatus, SubscriptionType};

/// Subscriptions and deliveries of one mock.
#[derive(Default)]
pub(crate) struct Eventsub {
    pub(crate) subscriptions: Subscriptions,
    pub(crate) outbox: Outbox,
}

impl Eventsub {
    pub(crate) fn clear(&mut self) {
        self.subscriptions.clear();
        self.outbox.clear();
    }
}

/// A notification without an event, as JSON in `POST /mock/eventsub/notify`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// The user. One that does not exist has neither login nor name.
    pub user_id: String,
    /// The type; the subscriptions of this type get it.
    #[serde(rename = "type", default = "revoke")]
    pub kind: SubscriptionType,
    /// Only this client's subscriptions; all clients' by default.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The event, instead of that of the type.
    #[serde(default)]
    pub event: Option<Value>,
    /// The message id, instead of a new one, to repeat an earlier message.
    #[serde(default)]
    pub message_id: Option<String>,
    /// Milliseconds added to the timestamp, instead of those in the settings.
    #[serde(default)]
    pub timestamp_offset_ms: Option<i64>,
}

fn revoke() -> SubscriptionType {
    SubscriptionType::UserAuthorizationRevoke
}

impl Notice {
    /// A notification of this type about a user.
    pub fn new(kind: SubscriptionType, user_id: impl Into<String>) -> Self {
        Self {
            user_id: user_id.into(),
            kind,
            client_id: None,
            event: None,
            message_id: None,
            timestamp_offset_ms: None,
        }
    }

    /// Checks a notification from outside.
    ///
    /// # Errors
    /// A sentence for the person who sends it.
    pub fn check(&self) -> Result<(), String> {
        let is_name = |text: &str| {
            (1..=limits::NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !is_name(&self.user_id) {
            return Err("user_id must consist of visible ASCII characters".to_owned());
        }
        if !self.message_id.as_deref().is_none_or(is_name) {
            return Err("message_id must consist of visible ASCII characters".to_owned());
        }
        settings::check_offset(self.timestamp_offset_ms.unwrap_or(0))
    }
}

/// EventSub, for tests and for the sender of the deliveries.
impl MockTwitch {
    /// The subscriptions of all clients, oldest first.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.eventsub.subscriptions.iter()
    }

    /// The deliveries that are still listed, oldest first.
    pub fn deliveries(&self) -> impl DoubleEndedIterator<Item = DeliveryEntry> {
        self.eventsub.outbox.list()
    }

    /// The time when the next delivery is due, in Unix milliseconds.
    ///
    /// `None` if nothing waits, or if all that waits needs an answer to another delivery first.
    pub fn next_delivery_at_ms(&self) -> Option<i64> {
        self.eventsub.outbox.next_at_ms(self.settings.eventsub.one_at_a_time)
    }

    /// Returns the requests that are due at `now_ms`, in Unix milliseconds, in the order in which
    /// to send them.
    ///
    /// Each must be followed by a call of [`MockTwitch::delivered`]: at most 64 are in flight at
    /// the same time.
    pub fn due_deliveries(&mut self, now_ms: i64) -> Vec<Delivery> {
        self.set_now(now_ms);
        self.eventsub.outbox.take_due(now_ms, self.settings.eventsub.one_at_a_time)
    }

    /// Takes a webhook's answer. The answer to a challenge enables the subscription or not. Another
    /// message is sent again unless the answer is 2xx, and too many failures revoke the
    /// subscription.
    pub fn delivered(&mut self, id: DeliveryId, answer: &WebhookAnswer, now_ms: i64) {
        self.set_now(now_ms);
        let Some(parcel) = self.eventsub.outbox.finish(id, answer, now_ms) else {
            return;
        };
        if parcel.message.kind == MessageType::WebhookCallbackVerification {
            self.verified(&parcel.message, answer);
        } else if answer.accepts() {
            if let Some(subscription) = self.eventsub.subscriptions.numbered(parcel.message.subscription) {
                subscription.failures = 0;
            }
        } else if !parcel.is_copy {
            self.failed(parcel, now_ms);
        }
    }

    /// Ends an enabled subscription as Twitch would, and returns whether there was one with this
    /// id.
    pub fn revoke_subscription(&mut self, id: &str, reason: RevocationReason) -> bool {
        let enabled = |subscription: &&Subscription| subscription.status == SubscriptionStatus::Enabled;
        let number = self.eventsub.subscriptions.by_id(id).filter(enabled).map(|found| found.number);
        number.is_some_and(|number| self.end_subscription(number, reason, self.last_now_ms))
    }

    /// Sends a notification to the enabled subscriptions that it concerns; returns the message ids.
    pub fn notify(&mut self, notice: &Notice) -> Vec<String> {
        let client_ids: Vec<String> = match &notice.client_id {
            Some(client_id) => vec![client_id.clone()],
            None => self.clients.keys().cloned().collect(),
        };
        let sent = client_ids.iter().map(|client_id| self.notify_client(client_id, notice));
        sent.collect::<Vec<_>>().concat()
    }

    /// Makes the held deliveries due now, and returns their number.
    pub fn release_deliveries(&mut self, order: ReleaseOrder) -> usize {
        self.eventsub.outbox.release(order, self.last_now_ms)
    }
}

impl MockTwitch {
    /// Notifies the subscribers of a client that a user has connected or disconnected it.
    pub(crate) fn announce(&mut self, kind: SubscriptionType, pair: &Pair) {
        if let Some(user_id) = &pair.user_id {
            self.notify_client(&pair.client_id, &Notice::new(kind, user_id));
        }
    }

    /// Asks a new subscription's callback to repeat a challenge.
    pub(crate) fn challenge(&mut self, subscription: &Subscription, now_ms: i64) {
        let challenge = messages::challenge(&mut self.mint);
        let message = self.message(subscription, None, None, &Content::Challenge(&challenge));
        let parcel = Parcel { message, retry: 0, is_copy: false };
        self.eventsub.outbox.add(parcel, Plan::Due(now_ms), now_ms);
    }

    fn verified(&mut self, message: &Message, answer: &WebhookAnswer) {
        let repeated = match answer {
            WebhookAnswer::Answered { body, .. } => {
                answer.accepts() && message.challenge.as_ref().is_some_and(|challenge| body == challenge)
            }
            WebhookAnswer::NoAnswer => false,
        };
        let subscription = self.eventsub.subscriptions.numbered(message.subscription);
        if let Some(subscription) = subscription {
            subscription.status = if repeated {
                SubscriptionStatus::Enabled
            } else {
                SubscriptionStatus::WebhookCallbackVerificationFailed
            };
        }
    }

    /// Sends a message again, or gives it up.
    fn failed(&mut self, parcel: Parcel, now_ms: i64) {
        let number = parcel.message.subscription;
        let is_notification = parcel.message.kind == MessageType::Notification;
        let Some(subscription) = self.eventsub.subscriptions.numbered(number) else {
            return;
        };
        if is_notification && subscription.status != SubscriptionStatus::Enabled {
            return;
        }
        let settings = &self.settings.eventsub;
        let wait_ms = usize::try_from(parcel.retry).ok().and_then(|retry| settings.retry_after_ms.get(retry));
        if let Some(wait_ms) = wait_ms {
            let again = Parcel { retry: parcel.retry + 1, ..parcel };
            self.eventsub.outbox.add(again, Plan::Due(later(now_ms, *wait_ms)), now_ms);
        } else if is_notification {
            subscription.failures += 1;
            let too_many = settings.failures_until_revoked;
            if too_many != 0 && subscription.failures >= too_many {
                self.end_subscription(number, RevocationReason::NotificationFailuresExceeded, now_ms);
            }
        }
    }

    fn end_subscription(&mut self, number: u64, reason: RevocationReason, now_ms: i64) -> bool {
        let Some(subscription) = self.eventsub.subscriptions.numbered(number) else {
            return false;
        };
        subscription.status = reason.status();
        let subscription = subscription.clone();
        self.eventsub.outbox.cancel(number, now_ms);
        let message = self.message(&subscription, None, None, &Content::Revoked);
        let parcel = Parcel { message, retry: 0, is_copy: false };
        self.eventsub.outbox.add(parcel, Plan::Due(now_ms), now_ms);
        true
    }

    fn notify_client(&mut self, client_id: &str, notice: &Notice) -> Vec<String> {
        let event = notice.event.clone().unwrap_or_else(|| self.event(client_id, &notice.user_id));
        let content = Content::Event { event: &event, user_id: Some(&notice.user_id) };
        let audience = self.eventsub.subscriptions.audience(notice.kind, client_id);
        let mut ids = Vec::new();
        for subscription in audience {
            let (id, offset_ms) = (notice.message_id.clone(), notice.timestamp_offset_ms);
            let message = self.message(&subscription, id, offset_ms, &content);
            ids.push(message.id.clone());
            self.dispatch(&message);
        }
        ids
    }

    /// The event of both types. A deleted user has neither login nor name.
    fn event(&self, client_id: &str, user_id: &str) -> Value {
        let user = self.users.get(user_id);
        json!({
            "client_id": client_id,
            "user_id": user_id,
            "user_login": user.map(|user| &user.login),
            "user_name": user.map(|user| &user.display_name),
        })
    }

    /// Queues a notification according to the settings.
    fn dispatch(&mut self, message: &Arc<Message>) {
        let now_ms = self.last_now_ms;
        let settings = &self.settings.eventsub;
        let plan = match (settings.drop, settings.hold) {
            (true, _) => Plan::Drop,
            (false, true) => Plan::Hold,
            (false, false) => Plan::Due(later(now_ms, settings.delay_ms)),
        };
        for copy in 0..settings.copies {
            let parcel = Parcel { message: Arc::clone(message), retry: 0, is_copy: copy > 0 };
            self.eventsub.outbox.add(parcel, plan, now_ms);
        }
    }

    fn message(
        &mut self,
        subscription: &Subscription,
        id: Option<String>,
        offset_ms: Option<i64>,
        content: &Content<'_>,
    ) -> Arc<Message> {
        let id = id.unwrap_or_else(|| messages::message_id(&mut self.mint));
        let offset_ms = offset_ms.unwrap_or(self.settings.eventsub.timestamp_offset_ms);
        let timestamp = messages::timestamp(&mut self.mint, self.last_now_ms.saturating_add(offset_ms));
        let mut subscription = subscription.clone();
        if self.settings.eventsub.wrong_signature {
            subscription.secret = Secret::new("the secret of nobody");
        }
        Arc::new(Message::new(&subscription, id, timestamp, content))
    }
}

fn later(now_ms: i64, wait_ms: u64) -> i64 {
    now_ms.saturating_add(i64::try_from(wait_ms).unwrap_or(i64::MAX))
}
