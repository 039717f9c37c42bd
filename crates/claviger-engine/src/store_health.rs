//! Whether the store works: every call of the engine goes through [`WatchedStore`].
//!
//! An outage is logged when it begins, once a minute while it lasts, and when it is over. So the
//! places that meet an outage need not log it themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use claviger_core::{AttemptId, Change, EndReason, Placement, Session, SessionId, Slot, Subject, Timestamp};
use claviger_store::{
    Applied, Backlog, ChangeFeed, Item, ItemId, KeyIdCount, Lease, LeaseTerms, LeaseUpdate, Leftover, Queue,
    Selection, SessionCounts, SharedEntry, Store, StoreError, SweepKind,
};

use crate::{Clock, Lock, metrics};

/// How often an outage that lasts is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A kind of calls that fails at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Since when.
    pub since: Timestamp,
    /// The last error.
    pub error: StoreError,
}

/// What fails at the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// Reads, if they fail.
    pub reads: Option<Failing>,
    /// Writes, if they fail. With a full disk, reads work.
    pub writes: Option<Failing>,
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

impl Access {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// An outage of one kind of calls.
struct Outage {
    since: Timestamp,
    logged_at: Timestamp,
    failures: u64,
    error: StoreError,
}

/// One kind of calls. `fails` says without a lock whether there is an outage.
#[derive(Default)]
struct Calls {
    fails: AtomicBool,
    outage: Lock<Option<Outage>>,
}

/// The store, and what fails at it.
pub(crate) struct WatchedStore {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    reads: Calls,
    writes: Calls,
}

impl WatchedStore {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { store, clock, reads: Calls::default(), writes: Calls::default() })
    }

    /// What fails at the moment. It asks the store, since a full disk shows only at a write.
    pub(crate) async fn state(&self) -> StoreState {
        // The answer is taken note of.
        let _noted = self.check().await;
        StoreState { reads: self.reads.failing(), writes: self.writes.failing() }
    }

    fn note<T>(&self, access: Access, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let calls = match access {
            Access::Read => &self.reads,
            Access::Write => &self.writes,
        };
        match &answer {
            Ok(_) if calls.fails.load(Ordering::Relaxed) => calls.recover(access, self.clock.now()),
            Err(error) if error.is_outage() => calls.fail(access, error, self.clock.now()),
            Ok(_) | Err(_) => {}
        }
        answer
    }
}

impl Calls {
    fn failing(&self) -> Option<Failing> {
        let outage = self.outage.lock();
        outage.as_ref().map(|outage| Failing { since: outage.since, error: outage.error.clone() })
    }

    fn fail(&self, access: Access, error: &StoreError, now: Timestamp) {
        let mut held = self.outage.lock();
        let begins = held.is_none();
        let first = || Outage { since: now, logged_at: now, failures: 0, error: error.clone() };
        let outage = held.get_or_insert_with(first);
        outage.failures += 1;
        outage.error = error.clone();
        let access = access.name();
        if begins {
            self.fails.store(true, Ordering::Relaxed);
            metrics::store_fails(access, true);
            tracing::error!(access, %error, "the session store fails; requests that need it get 503");
        } else if now.since(outage.logged_at) >= LOG_EVERY {
            outage.logged_at = now;
            let (failures, seconds) = (outage.failures, now.since(outage.since).as_secs());
            tracing::error!(access, %error, failures, seconds, "the session store still fails");
        }
    }

    fn recover(&self, access: Access, now: Timestamp) {
        let Some(outage) = self.outage.lock().take() else { return };
        self.fails.store(false, Ordering::Relaxed);
        let (access, seconds) = (access.name(), now.since(outage.since).as_secs());
        metrics::store_fails(access, false);
        tracing::info!(access, failures = outage.failures, seconds, "the session store is back");
    }
}

/// Passes each call on, and takes note of its answer.
macro_rules! watch {
    ($($access:ident $name:ident(&$this:ident $(, $argument:ident: $type:ty)*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for WatchedStore {
            $(async fn $name(&$this $(, $argument: $type)*) -> Result<$answer, StoreError> {
                $this.note(Access::$access, $this.store.$name($($argument),*).await)
            })*

            fn is_exclusive(&self) -> bool {
                self.store.is_exclusive()
            }

            fn change_feed(&self) -> ChangeFeed {
                self.store.change_feed()
            }
        }
    };
}

watch! {
    Write check(&self) -> ();
    Write insert(&self, session: Session, placement: Placement) -> Vec<Session>;
    Read load(&self, id: SessionId) -> Option<Session>;
    Write apply(&self, change: &Change) -> Applied;
    Write apply_all(&self, changes: &[Change]) -> Vec<bool>;
    Read devices(&self, subject: &Subject, limit: usize) -> Vec<Session>;
    Write end_sessions(&self, selection: &Selection, reason: EndReason, at: Timestamp) -> Vec<Session>;
    Write record_last_seen(&self, seen: &[(SessionId, Timestamp)]) -> ();
    Read overdue(&self, idle_since: Timestamp, created_until: Timestamp, limit: usize) -> Vec<SessionId>;
    Read denylist(&self, limit: usize) -> Vec<SessionId>;
    Write purge(&self, what: Leftover, until: Timestamp, limit: usize) -> usize;
    Write spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> bool;
    Write enqueue(&self, item: &Item) -> bool;
    Write take(&self, queue: Queue, terms: LeaseTerms, limit: usize) -> Vec<Lease<Item>>;
    Write update_lease(&self, id: ItemId, holder: AttemptId, update: LeaseUpdate) -> bool;
    Read backlog(&self, queue: Queue) -> Backlog;
    Read in_slot(&self, sweep: SweepKind, slot: Slot, after: Option<SessionId>, limit: usize) -> Vec<Session>;
    Read session_counts(&self, now: Timestamp) -> SessionCounts;
    Read key_id_counts(&self) -> Vec<KeyIdCount>;
    Read shared_entry(&self, name: &str) -> Option<SharedEntry>;
    Write put_shared_entry(&self, name: &str, entry: &SharedEntry) -> bool;
}
