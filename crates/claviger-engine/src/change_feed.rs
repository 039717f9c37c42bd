//! Follows the store's change feed, so that a sign-out on one instance counts on all at once.
//!
//! While the feed is interrupted, no row in memory is trusted: every request reads the store.

use std::sync::Arc;

use claviger_core::{SessionId, Timestamp};
use claviger_store::{FeedEvent, Subscriber};
use tokio::{sync::Mutex, task::JoinSet};

use crate::{Rows, metrics};

/// Maximum number of changed sessions that are read from the store at a time.
const READS: usize = 16;
/// Rows in memory are trusted without a limit.
const ALWAYS: Timestamp = Timestamp::from_millis(i64::MAX);
/// No row in memory is trusted.
const NEVER: Timestamp = Timestamp::from_millis(i64::MIN);

/// Until when rows in memory may be trusted before the feed is followed.
pub(crate) fn trusted_at_start(feed: &claviger_store::ChangeFeed) -> Timestamp {
    match feed {
        claviger_store::ChangeFeed::SoleWriter => ALWAYS,
        claviger_store::ChangeFeed::Silent | claviger_store::ChangeFeed::Subscriber(_) => NEVER,
    }
}

/// Takes note of what other processes change.
pub(crate) struct ChangeFeed {
    rows: Arc<Rows>,
    /// Read by the process's background work.
    feed: Mutex<Option<Box<dyn Subscriber>>>,
}

impl ChangeFeed {
    pub(crate) fn new(rows: Arc<Rows>, feed: claviger_store::ChangeFeed) -> Self {
        let subscriber = match feed {
            claviger_store::ChangeFeed::Subscriber(subscriber) => Some(subscriber),
            claviger_store::ChangeFeed::SoleWriter | claviger_store::ChangeFeed::Silent => None,
        };
        Self { rows, feed: Mutex::new(subscriber) }
    }

    /// Follows the feed until it is dropped. Without a feed it waits forever.
    pub(crate) async fn follow(&self) {
        let mut feed = self.feed.lock().await;
        let Some(feed) = feed.as_mut() else { return std::future::pending().await };
        // Nobody takes note of what changes after the loop was dropped.
        let _untrusted = DistrustOnDrop(&self.rows);
        let mut reads = JoinSet::new();
        loop {
            match feed.next().await {
                FeedEvent::Session(id) => {
                    self.rows.cache().forget(id);
                    if reads.len() >= READS {
                        reads.join_next().await;
                    }
                    reads.spawn(read_changed(Arc::clone(&self.rows), id));
                }
                FeedEvent::UpToDate { until } => self.rows.cache().trust_until(until),
                FeedEvent::Lost => {
                    self.rows.cache().distrust();
                    metrics::change_feed_works(false);
                }
                FeedEvent::Resync => {
                    // Changes may have been missed, so what memory holds may be outdated.
                    self.rows.cache().forget_all();
                    self.rows.learn_endings_until_read().await;
                    metrics::change_feed_works(true);
                }
            }
        }
    }
}

struct DistrustOnDrop<'a>(&'a Rows);

impl Drop for DistrustOnDrop<'_> {
    fn drop(&mut self) {
        self.0.cache().distrust();
    }
}

/// Learns what became of a session that changed somewhere.
async fn read_changed(rows: Arc<Rows>, id: SessionId) {
    match rows.peek_stored(id).await {
        Ok(Some(row)) => rows.note_change(&row),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, session = %id, "a session that changed elsewhere cannot be read");
            rows.note_possible_endings(vec![id]);
        }
    }
}
