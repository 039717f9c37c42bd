//! Hears what other instances change, so that a sign-out on one of them counts on all at once.
//!
//! While nothing is heard, memory is not asked about sessions: every request reads the store.

use claviger_core::{ids::SessionId, time::Timestamp};
use claviger_store::{Change, News, Others};
use tokio::{sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Engine,
    known::{FOR_GOOD, NOT_AT_ALL},
    meter,
};

/// So many changed sessions are read from the store at a time.
const READS: usize = 16;

/// Where the news come from. Whoever runs the engine's background work takes them.
pub(crate) struct Hearing(Mutex<Option<Box<dyn News>>>);

impl Hearing {
    /// And until when memory may be trusted as yet.
    pub(crate) fn of(others: Others) -> (Self, Timestamp) {
        let (news, trusted_until) = match others {
            Others::None => (None, FOR_GOOD),
            Others::Unheard => (None, NOT_AT_ALL),
            Others::Heard(news) => (Some(news), NOT_AT_ALL),
        };
        (Self(Mutex::new(news)), trusted_until)
    }
}

impl Engine {
    pub(crate) async fn keep_hearing(&self, stop: &CancellationToken) {
        let mut news = self.inner.hearing.0.lock().await;
        if let Some(news) = news.as_mut() {
            stop.run_until_cancelled(self.hear(news.as_mut())).await;
            // What changes from now on is not heard.
            self.inner.known.trust_memory_until(NOT_AT_ALL);
        }
    }

    async fn hear(&self, news: &mut dyn News) {
        let mut reads = JoinSet::new();
        loop {
            match news.next().await {
                Change::Session(id) => {
                    self.inner.known.forget(id);
                    if reads.len() >= READS {
                        reads.join_next().await;
                    }
                    let engine = self.clone();
                    reads.spawn(async move { engine.hear_of(id).await });
                }
                Change::Heard { until } => self.inner.known.trust_memory_until(until),
                Change::Lost => {
                    self.inner.known.trust_memory_until(NOT_AT_ALL);
                    meter::others_heard(false);
                }
                Change::Resync => {
                    self.catch_up().await;
                    meter::others_heard(true);
                }
            }
        }
    }

    /// Learns what became of a session that changed somewhere.
    async fn hear_of(&self, id: SessionId) {
        match self.inner.parts.store.load(id).await {
            Ok(Some(row)) => self.note_change(&row),
            Ok(None) => {}
            // It may have ended.
            Err(error) => {
                tracing::warn!(%error, session = %id, "a session that changed elsewhere cannot be read");
                self.note_unheard(vec![id]);
            }
        }
    }

    /// Learns what ended while nothing was heard. What memory held is worth nothing.
    async fn catch_up(&self) {
        self.inner.known.forget_all();
        self.surely_hear_of_endings().await;
    }
}
