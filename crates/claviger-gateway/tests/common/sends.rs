//! How often each refresh token reached the provider, by the provider's log.

use std::collections::BTreeMap;

use claviger_mock::{LogEntry, Outcome};

#[derive(Clone, Default)]
pub struct Sends {
    /// By the fingerprint of the token.
    by_token: BTreeMap<String, usize>,
    /// Number of pairs issued for refreshes, by user.
    issued: BTreeMap<String, usize>,
    seen: u64,
}

impl Sends {
    /// Counts the new entries. The log keeps the newest ten thousand, which is more than come
    /// between two looks.
    pub fn look_at<'a>(&mut self, log: impl DoubleEndedIterator<Item = &'a LogEntry>) {
        let new: Vec<_> = log.rev().take_while(|entry| entry.sequence > self.seen).collect();
        let (Some(last), Some(first)) = (new.first(), new.last()) else { return };
        assert!(first.sequence == self.seen + 1, "entries of the log were lost before they were counted");
        self.seen = last.sequence;
        for entry in new.into_iter().filter(|entry| entry.grant_type.as_deref() == Some("refresh_token")) {
            let token = entry.token.clone().expect("every refresh presents a token");
            *self.by_token.entry(token).or_default() += 1;
            if let (Outcome::Answered(200), Some(user)) = (entry.outcome, &entry.user_id) {
                *self.issued.entry(user.clone()).or_default() += 1;
            }
        }
    }

    /// Returns the most times that any token came.
    pub fn most(&self) -> usize {
        self.by_token.values().copied().max().unwrap_or_default()
    }

    /// Returns how many tokens came a second time.
    pub fn replays(&self) -> usize {
        self.by_token.values().filter(|sends| **sends > 1).count()
    }

    /// Returns how many pairs were issued for refreshes of this user.
    pub fn issued_to(&self, user: &str) -> usize {
        self.issued.get(user).copied().unwrap_or_default()
    }
}
