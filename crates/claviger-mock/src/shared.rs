//! The mock behind its lock, as the connections and the courier share it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::eventsub::{Delivery, DeliveryId, WebhookAnswer};
use crate::mock::MockTwitch;

/// Returns the time in Unix milliseconds.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// State that the connections and the courier share.
pub(crate) struct Shared {
    mock: Mutex<MockTwitch>,
    clock: Clock,
    /// Wakes the courier when deliveries become due at another time.
    outbox_changed: Notify,
}

impl Shared {
    /// Shares a mock that goes by a clock.
    pub(crate) fn new(mock: MockTwitch, clock: Clock) -> Self {
        Self { mock: Mutex::new(mock), clock, outbox_changed: Notify::new() }
    }

    /// Reads or changes the mock, and wakes the courier.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut MockTwitch) -> T) -> T {
        let looked = self.at_now(|mock, _| look(mock));
        self.outbox_changed.notify_one();
        looked
    }

    fn at_now<T>(&self, look: impl FnOnce(&mut MockTwitch, i64) -> T) -> T {
        // A test that panics inside `with` must not affect the answers of other tests.
        let mut mock = self.mock.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = (self.clock)();
        mock.set_now(now_ms);
        look(&mut mock, now_ms)
    }

    /// As `at_now`, and wakes the courier if the next due time has changed.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut MockTwitch, i64) -> T) -> T {
        let (result, changed) = self.at_now(|mock, now_ms| {
            let before = mock.next_delivery_at_ms();
            let result = change(mock, now_ms);
            (result, mock.next_delivery_at_ms() != before)
        });
        if changed {
            self.outbox_changed.notify_one();
        }
        result
    }

    /// The deliveries that are due, and the time until the next one.
    pub(crate) fn due_deliveries(&self) -> (Vec<Delivery>, Option<Duration>) {
        self.at_now(|mock, now_ms| {
            let due = mock.due_deliveries(now_ms);
            let wait = mock.next_delivery_at_ms().map(|next_ms| {
                // A wait of zero would loop if the clock stands still.
                Duration::from_millis(u64::try_from(next_ms.saturating_sub(now_ms)).unwrap_or(0).max(1))
            });
            (due, wait)
        })
    }

    /// Waits until the next due time differs from the last one seen.
    pub(crate) async fn changed(&self) {
        self.outbox_changed.notified().await;
    }

    /// Passes a webhook's answer to the mock.
    pub(crate) fn delivered(&self, id: DeliveryId, answer: &WebhookAnswer) {
        self.change(|mock, now_ms| mock.delivered(id, answer, now_ms));
    }
}
