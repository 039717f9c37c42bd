//! What can be changed about EventSub while the mock runs.

use serde::{Deserialize, Serialize};

use crate::limits;

/// How the mock delivers EventSub messages; the field `eventsub` of [`Settings`](crate::Settings).
///
/// Twitch documents that it may resend a message with the same id, but not when or how many times
/// (Twitch docs: handling webhook events). The defaults are guesses. The other settings test what a
/// webhook must withstand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsubSettings {
    /// Accepts `http` callbacks with any port on localhost, 127.0.0.1 or `[::1]`; Twitch requires
    /// HTTPS on port 443. With this setting a client of the mock can make it post to programs on
    /// its machine.
    pub loopback_callbacks: bool,
    /// Subscriptions on one page of a listing.
    pub page_size: usize,
    /// Milliseconds to wait before each repetition of a message that was not answered with 2xx; one
    /// repetition for each number.
    pub retry_after_ms: Vec<u64>,
    /// Notifications given up in a row until the subscription is revoked with
    /// `notification_failures_exceeded`; 0 never revokes it.
    pub failures_until_revoked: u32,
    /// Number of copies of each notification, with the same id. Only the first copy is repeated if
    /// it fails.
    pub copies: u32,
    /// Delay of notifications in milliseconds. Their timestamps keep the time of the event.
    pub delay_ms: u64,
    /// Holds new notifications until they are released.
    pub hold: bool,
    /// Loses new notifications: they are listed as dropped and never sent.
    pub drop: bool,
    /// Milliseconds added to the timestamp of every message, negative for stale ones.
    pub timestamp_offset_ms: i64,
    /// Signs messages with another secret than the subscription's.
    pub wrong_signature: bool,
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
            wrong_signature: false,
            one_at_a_time: false,
        }
    }
}

impl EventsubSettings {
    /// Checks settings from outside.
    ///
    /// # Errors
    /// A sentence for the person who sets them.
    pub fn check(&self) -> Result<(), String> {
        let in_time = |ms: &u64| i64::try_from(*ms).is_ok_and(|ms| ms <= limits::SHIFT_MS);
        if self.page_size == 0 {
            return Err("eventsub.page_size must be at least 1".to_owned());
        }
        if self.retry_after_ms.len() > limits::RETRIES {
            return Err(format!("eventsub.retry_after_ms must have at most {} numbers", limits::RETRIES));
        }
        if !(1..=limits::COPIES).contains(&self.copies) {
            return Err(format!("eventsub.copies must be from 1 to {}", limits::COPIES));
        }
        if !self.retry_after_ms.iter().chain([&self.delay_ms]).all(in_time) {
            return Err("a time in eventsub is longer than a year".to_owned());
        }
        check_offset(self.timestamp_offset_ms)
    }
}

/// Checks a shift of a timestamp.
pub(crate) fn check_offset(offset_ms: i64) -> Result<(), String> {
    let fine = (-limits::SHIFT_MS..=limits::SHIFT_MS).contains(&offset_ms);
    if fine { Ok(()) } else { Err("timestamp_offset_ms is more than a year".to_owned()) }
}
