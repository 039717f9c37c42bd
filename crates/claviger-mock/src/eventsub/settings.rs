//! What can be changed about EventSub while the mock runs.

use serde::{Deserialize, Serialize};

use crate::limits;

/// How the mock delivers EventSub messages; the field `eventsub` of [`Settings`](crate::Settings).
///
/// Twitch documents that it may resend a message with the same id, and neither how often nor when (Twitch docs:
/// handling webhook events). The defaults are guesses; the rest is there to try what a webhook must withstand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsubSettings {
    /// Accepts `http` callbacks with any port on localhost, 127.0.0.1 or `[::1]`; Twitch wants HTTPS on port 443.
    /// Whoever reaches the mock can then make it post to programs on its machine.
    pub loopback_callbacks: bool,
    /// Subscriptions on one page of a listing.
    pub page_size: usize,
    /// Milliseconds to wait before each repetition of a message that was not answered with 2xx; as many
    /// repetitions as numbers.
    pub retry_after_ms: Vec<u64>,
    /// Notifications given up in a row until the subscription is revoked with `notification_failures_exceeded`;
    /// 0 never revokes it.
    pub failures_until_revoked: u32,
    /// Times that each notification is sent, with the same id; only the first copy is repeated where it fails.
    pub copies: u32,
    /// Milliseconds that notifications come late; their timestamps say when the event was.
    pub delay_ms: u64,
    /// Keeps new notifications back until they are released.
    pub hold: bool,
    /// Loses new notifications: they are listed as dropped and never sent.
    pub drop: bool,
    /// Milliseconds added to the timestamp of every message, negative for stale ones.
    pub timestamp_offset_ms: i64,
    /// Sends a subscription's messages one after the other, in order, instead of at the same time.
    pub one_at_a_time: bool,
}

impl Default for EventsubSettings {
    fn default() -> Self {
        Self {
            loopback_callbacks: true,
            page_size: 100,
            retry_after_ms: vec![1_000, 5_000, 30_000, 120_000, 600_000],
            failures_until_revoked: 3,
            copies: 1,
            delay_ms: 0,
            hold: false,
            drop: false,
            timestamp_offset_ms: 0,
            one_at_a_time: false,
        }
    }
}

impl EventsubSettings {
    /// Says what is wrong with settings that came from outside.
    ///
    /// # Errors
    /// A sentence for the person who sets them.
    pub fn check(&self) -> Result<(), String> {
        let in_time = |ms: &u64| i64::try_from(*ms).is_ok_and(|ms| ms <= limits::SHIFT_MS);
        if self.page_size == 0 {
            return Err("eventsub.page_size is 1 at least".to_owned());
        }
        if self.retry_after_ms.len() > limits::RETRIES {
            return Err(format!("eventsub.retry_after_ms has {} numbers at most", limits::RETRIES));
        }
        if !(1..=limits::COPIES).contains(&self.copies) {
            return Err(format!("eventsub.copies is from 1 to {}", limits::COPIES));
        }
        if !self.retry_after_ms.iter().chain([&self.delay_ms]).all(in_time) {
            return Err("a time in eventsub is longer than a year".to_owned());
        }
        check_offset(self.timestamp_offset_ms)
    }
}

/// Says what is wrong with a shift of a timestamp.
pub(crate) fn check_offset(offset_ms: i64) -> Result<(), String> {
    let fine = (-limits::SHIFT_MS..=limits::SHIFT_MS).contains(&offset_ms);
    if fine { Ok(()) } else { Err("timestamp_offset_ms is more than a year".to_owned()) }
}
