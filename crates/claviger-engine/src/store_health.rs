//! Whether the store works: every call of the engine goes through [`WatchedStore`].
//!
//! A call waits for a store that cannot be used for a moment, so a failover of its database is a
//! pause and no error. Only what certainly changed nothing is tried again: reads, and writes that
//! did not reach the store ([`StoreError::is_undone`]). While there is an outage, one waiting call
//! looks whether the store is back, and the others wait for it. [`Store::check`] never waits.
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
use claviger_core::{
    AttemptId, Change, EndReason, Placement, Session, SessionId, Slot, Subject, Timestamp, limits,
};
use claviger_store::{
    Applied, Backlog, ChangeFeed, Item, ItemId, KeyIdCount, Lease, LeaseTerms, LeaseUpdate, Leftover, Queue,
    Selection, SessionCounts, SharedEntry, Store, StoreError, SweepKind,
};
use tokio::sync::{Notify, Semaphore};

use crate::{Clock, Lock, metrics};

/// A shared entry that does not exist. Looking for it is the cheapest read.
const NO_ENTRY: &str = "";
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
    /// What the operator must mend although calls succeed.
    pub trouble: Option<String>,
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

    /// Whether a call that failed so may be made again.
    fn may_repeat(self, error: &StoreError) -> bool {
        match self {
            Self::Read => error.may_pass(),
            Self::Write => error.may_pass() && error.is_undone(),
        }
    }
}

/// What is known of an outage of one kind of calls.
struct Record {
    since: Timestamp,
    logged_at: Timestamp,
    failures: u64,
    error: StoreError,
}

/// One kind of calls. `fails` says without a lock whether there is an outage.
struct Calls {
    fails: AtomicBool,
    outage: Lock<Option<Record>>,
    /// Is notified when the outage is over.
    over: Notify,
    /// Held by the waiting call that looks whether the outage is over.
    looking: Semaphore,
}

/// Whether a call waits.
enum Outage {
    /// There is no outage.
    None,
    /// It may be over soon.
    Short(StoreError),
    /// It lasts too long to wait, or until the operator acts, or no call waits by the settings.
    Lasting,
}

/// The store, and what fails at it.
pub(crate) struct WatchedStore {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// How long a call waits.
    wait: Duration,
    /// One permit for each call that may wait.
    waiters: Semaphore,
    reads: Calls,
    writes: Calls,
    trouble: Lock<Option<String>>,
}

impl WatchedStore {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, wait: Duration) -> Arc<Self> {
        let waiters = Semaphore::new(limits::STORE_WAITERS);
        let (reads, writes, trouble) = (Calls::new(), Calls::new(), Lock::default());
        Arc::new(Self { store, clock, wait, waiters, reads, writes, trouble })
    }

    /// Looks for what the operator must mend although calls succeed, and logs what is new.
    pub(crate) async fn look_for_trouble(&self) {
        let found = self.store.trouble().await;
        let before = std::mem::replace(&mut *self.trouble.lock(), found.clone());
        match found {
            Some(trouble) if before.as_ref() != Some(&trouble) => tracing::error!("{trouble}"),
            None if before.is_some() => tracing::info!("the session store is as it should be again"),
            _ => {}
        }
    }

    /// What fails at the moment. It asks the store, since a full disk shows only at a write.
    pub(crate) async fn state(&self) -> StoreState {
        // The answer is taken note of.
        let _noted = self.check().await;
        self.look_for_trouble().await;
        let trouble = self.trouble.lock().clone();
        StoreState { reads: self.reads.failing(), writes: self.writes.failing(), trouble }
    }

    /// Makes a call. In a short outage it waits, and makes the call again if that is safe.
    async fn call<T, F>(&self, access: Access, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let until = self.clock.monotonic() + self.wait;
        if let Outage::Short(error) = self.outage(access)
            && !self.outlast(access, until).await
        {
            return Err(not_tried(error));
        }
        loop {
            let answer = self.note(access, attempt().await);
            let Err(error) = &answer else { return answer };
            let again = access.may_repeat(error) && !matches!(self.outage(access), Outage::Lasting);
            if !again || !self.outlast(access, until).await {
                return answer;
            }
        }
    }

    fn outage(&self, access: Access) -> Outage {
        let calls = self.calls(access);
        if !calls.fails.load(Ordering::Relaxed) {
            return Outage::None;
        }
        match calls.failing() {
            None => Outage::None,
            Some(Failing { since, error }) => {
                let is_short = self.clock.now().since(since) < limits::STORE_WAITED_FOR;
                let waits = is_short && error.may_pass() && !self.wait.is_zero();
                if waits { Outage::Short(error) } else { Outage::Lasting }
            }
        }
    }

    /// Waits until an outage is over, at most until a time. Gives false if it is not over, or if
    /// too many wait.
    async fn outlast(&self, access: Access, until: Duration) -> bool {
        let left = until.saturating_sub(self.clock.monotonic());
        let Ok(_permit) = self.waiters.try_acquire() else { return false };
        if left.is_zero() {
            return false;
        }
        // In this order, so that a history of the simulator repeats exactly.
        let over = async {
            tokio::select! {
                biased;
                () = self.calls(access).over.notified() => {}
                () = self.look_until_over(access) => {}
            }
        };
        tokio::time::timeout(left, over).await.is_ok()
    }

    /// Looks now and then whether the outage is over. One caller at a time looks.
    async fn look_until_over(&self, access: Access) {
        let calls = self.calls(access);
        tokio::time::sleep(limits::STORE_LOOK_EVERY).await;
        // The semaphore is never closed.
        let _looking = calls.looking.acquire().await;
        while calls.fails.load(Ordering::Relaxed) {
            // Its answer is noted, which ends the outage if the store is back.
            let _noted = match access {
                Access::Read => self.note(access, self.store.shared_entry(NO_ENTRY).await.map(drop)),
                Access::Write => self.check().await,
            };
            if calls.fails.load(Ordering::Relaxed) {
                tokio::time::sleep(limits::STORE_LOOK_EVERY).await;
            }
        }
    }

    fn calls(&self, access: Access) -> &Calls {
        match access {
            Access::Read => &self.reads,
            Access::Write => &self.writes,
        }
    }

    fn note<T>(&self, access: Access, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let calls = self.calls(access);
        match &answer {
            Ok(_) if calls.fails.load(Ordering::Relaxed) => calls.recover(access, self.clock.now()),
            Err(error) if error.is_outage() => calls.fail(access, error, self.clock.now()),
            Ok(_) | Err(_) => {}
        }
        answer
    }
}

impl Calls {
    fn new() -> Self {
        Self {
            fails: AtomicBool::new(false),
            outage: Lock::default(),
            over: Notify::new(),
            looking: Semaphore::new(1),
        }
    }

    fn failing(&self) -> Option<Failing> {
        let outage = self.outage.lock();
        outage.as_ref().map(|outage| Failing { since: outage.since, error: outage.error.clone() })
    }

    fn fail(&self, access: Access, error: &StoreError, now: Timestamp) {
        let mut held = self.outage.lock();
        let begins = held.is_none();
        let first = || Record { since: now, logged_at: now, failures: 0, error: error.clone() };
        let outage = held.get_or_insert_with(first);
        outage.failures += 1;
        outage.error = error.clone();
        let access = access.name();
        if begins {
            self.fails.store(true, Ordering::Relaxed);
            metrics::store_fails(access, true);
            tracing::error!(access, %error, "the session store fails; requests that need it wait, or get 503");
        } else if now.since(outage.logged_at) >= LOG_EVERY {
            outage.logged_at = now;
            let (failures, seconds) = (outage.failures, now.since(outage.since).as_secs());
            tracing::error!(access, %error, failures, seconds, "the session store still fails");
        }
    }

    fn recover(&self, access: Access, now: Timestamp) {
        // Under the lock, or a failure that comes meanwhile would be forgotten.
        let mut held = self.outage.lock();
        let Some(outage) = held.take() else { return };
        let (access, seconds) = (access.name(), now.since(outage.since).as_secs());
        self.fails.store(false, Ordering::Relaxed);
        metrics::store_fails(access, false);
        drop(held);
        self.over.notify_waiters();
        tracing::info!(access, failures = outage.failures, seconds, "the session store is back");
    }
}

/// The error of a call that was not made, because of an outage with this error.
fn not_tried(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(why) => StoreError::Unreachable(why),
        error => error,
    }
}

/// Passes each call on.
macro_rules! watch {
    ($($access:ident $name:ident(&$this:ident $(, $argument:ident: $type:ty)*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for WatchedStore {
            $(async fn $name(&$this $(, $argument: $type)*) -> Result<$answer, StoreError> {
                $this.call(Access::$access, || $this.store.$name($(Clone::clone(&$argument)),*)).await
            })*

            /// It never waits, since health checks ask for the state as it is.
            async fn check(&self) -> Result<(), StoreError> {
                self.note(Access::Write, self.store.check().await)
            }

            async fn trouble(&self) -> Option<String> {
                self.store.trouble().await
            }

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
