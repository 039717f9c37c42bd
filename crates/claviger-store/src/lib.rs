//! The session store: the trait that every store implements, a store in memory, and the conformance
//! suite. [`archive`] copies everything in one store into another.
//!
//! A store decides nothing. The rules in [`claviger_core::session`] make the next row. A store
//! writes it only if the row's version is still the one that the rules started from. So a store
//! cannot lose an update, revive an ended row, or let two writers both win. No in-process lock is
//! needed for this.
//!
//! Stores in SQL read and write the columns of their rows by one [`codec`].
//!
//! # How to add
//!
//! - **A method**: declare it in [`Store`]. Implement it in `memory`, in both SQL stores, in the
//!   simulator's `faulty_store` and `day/instance`, and in the wrapper of the engine's tests. If it
//!   changes sessions, the simulator's `ledger` must see it. Add a case to `conformance`.
//! - **A store**: see "Add a store" in CONTRIBUTING.md.

pub mod archive;
pub mod codec;
#[cfg(any(test, feature = "conformance"))]
mod conformance;
mod memory;
mod queue;

use async_trait::async_trait;
use claviger_core::{
    AttemptId, BlobHead, Change, EndReason, Session, SessionId, Slot, Subject, Timestamp, Version,
};

pub use claviger_core::Placement;
#[cfg(any(test, feature = "conformance"))]
pub use conformance::{Harness, conformance};
pub use memory::{MemoryStore, Method};
pub use queue::{
    Backlog, Item, ItemId, Lease, LeaseTerms, LeaseUpdate, Queue, RevocationId, SuspicionKey, SweepKind,
};

/// Keeps sessions, pending revocations, and the states of sign-ins that were used up.
///
/// Every method is atomic and, where the store is durable, durable when it returns.
///
/// # Errors
/// Each method fails with [`StoreError`] if the store could not do it. Nothing is changed then,
/// with one exception: after [`StoreError::Unavailable`] the outcome of a write is unknown.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Checks that the store can be read and written.
    async fn check(&self) -> Result<(), StoreError>;

    /// Adds a new session. In the same step it ends the session that this one replaces and the
    /// user's devices over the limit ([`Placement::ends`]), and stores their pending revocations.
    /// Returns the rows that it ended, as of the new session's creation, the replaced one first.
    ///
    /// Fails as unavailable if the id is taken, whatever that row holds. The next sign-in gets
    /// another id.
    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError>;

    /// Returns the row as it is now, ended or not.
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError>;

    /// Writes a change over the row that it was made from. This is a compare-and-set: the stored
    /// row must not have ended, and its version must be one lower. Writes exactly the columns of
    /// the change's kind ([`Change::applied_to`]). The revocation that an end carries is stored in
    /// the same step.
    async fn apply(&self, change: &Change) -> Result<Applied, StoreError>;

    /// Writes many changes of different rows, each by a compare-and-set of its own. Returns for
    /// each whether it was written. This is the way to write many proofs or changes of state.
    async fn apply_all(&self, changes: &[Change]) -> Result<Vec<bool>, StoreError>;

    /// Returns at most `limit` of the user's sessions that have not ended. The last used come
    /// first; of equals, the youngest.
    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError>;

    /// Ends all sessions of the selection that have not ended, in one step, and stores their
    /// pending revocations. Returns the rows that it ended, in the order of their ids.
    async fn end_sessions(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError>;

    /// Moves `last_seen_at` forward, never back. Changes nothing else, not even the version. Skips
    /// ended and unknown rows.
    async fn record_last_seen(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError>;

    /// Returns at most `limit` open sessions that were last seen at or before `idle_since`, or
    /// created at or before `created_until`. The idle ones come first, the longest idle at the
    /// front. Then come the old ones, the oldest at the front. Each is returned once.
    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError>;

    /// Returns at most `limit` ids of sessions that ended or are suspect, the youngest sign-in
    /// first.
    async fn denylist(&self, limit: usize) -> Result<Vec<SessionId>, StoreError>;

    /// Deletes at most `limit` rows that nobody needs any more and whose time ([`Leftover`]) is at
    /// or before `until`, the oldest first. Returns their number.
    async fn purge(&self, what: Leftover, until: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// Uses up a sign-in's state. Returns true to the first caller, and false to all others until
    /// at least `expires_at`.
    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError>;

    /// Adds an item to its queue, due at [`Item::due_from`]. Returns false, and changes nothing, if
    /// it is there already: a suspicion of this key, open or closed, or a slot.
    async fn enqueue(&self, item: &Item) -> Result<bool, StoreError>;

    /// Takes at most `limit` items that are due and not leased, the longest due first. They are
    /// leased until [`LeaseTerms::until`]. Then a slot is due as before, and any other item is due
    /// from that time on. An item whose content cannot be read is leased too, so that it delays no
    /// other, and not returned.
    ///
    /// Before that, what a clock that was ahead put off or leased becomes due now and is nobody's
    /// ([`LeaseTerms::latest_due`], [`LeaseTerms::latest_lease`]).
    async fn take(
        &self,
        queue: Queue,
        terms: LeaseTerms,
        limit: usize,
    ) -> Result<Vec<Lease<Item>>, StoreError>;

    /// Updates the lease of an item. Returns false, and changes nothing, if `holder` does not have
    /// it, or put the item off or acknowledged it before, or if a slot is acknowledged. A lease
    /// that nobody took over is its holder's even after its end.
    async fn update_lease(
        &self,
        id: ItemId,
        holder: AttemptId,
        update: LeaseUpdate,
    ) -> Result<bool, StoreError>;

    /// Returns how much waits in a queue.
    async fn backlog(&self, queue: Queue) -> Result<Backlog, StoreError>;

    /// Returns at most `limit` of the slot's sessions that the sweep is for, in the order of their
    /// ids, starting after `after`. Fewer than `limit` means that there are no more. A row that
    /// cannot be read is skipped, and the next one returned in its place.
    async fn in_slot(
        &self,
        sweep: SweepKind,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError>;

    /// Counts the sessions in each state, and the claims on them. It may read all sessions.
    async fn session_counts(&self, now: Timestamp) -> Result<SessionCounts, StoreError>;

    /// Counts the rows by the first octets of their sealed blobs ([`BlobHead`]). The store does not
    /// know which octets name a key. A row whose two blobs begin alike counts once, otherwise once
    /// under each. It may read all rows. In SQL, for `session` and in the same way for `owed`:
    ///
    /// ```sql
    /// SELECT head, count(*) FROM (
    ///     SELECT substr(access, 1, 5) AS head FROM session WHERE access IS NOT NULL
    ///     UNION ALL
    ///     SELECT substr(refresh, 1, 5) FROM session WHERE substr(refresh, 1, 5) <> substr(access, 1, 5)
    /// ) GROUP BY head ORDER BY head
    /// ```
    async fn key_id_counts(&self) -> Result<Vec<KeyIdCount>, StoreError>;

    /// Returns the entry of this name.
    async fn shared_entry(&self, name: &str) -> Result<Option<SharedEntry>, StoreError>;

    /// Stores a shared entry under a name by a compare-and-set on the version. It is
    /// [`Version::FIRST`] for a new name, otherwise one higher than the stored version. Returns
    /// false if another writer was first.
    async fn put_shared_entry(&self, name: &str, entry: &SharedEntry) -> Result<bool, StoreError>;

    /// Returns what the operator must mend although calls succeed, as a sentence.
    async fn trouble(&self) -> Option<String> {
        None
    }

    /// Returns whether no other process, and no other engine of this one, uses the store while this
    /// one does. A claim of a process that died is then known to be an orphan. False if in doubt.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// Returns how this process learns of changes by others. Called once, by the owner of the
    /// cache.
    fn change_feed(&self) -> ChangeFeed;
}

impl<T> Lease<T> {
    /// Extends the lease. Returns false as [`Store::update_lease`] does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn extend(&self, store: &dyn Store, until: Timestamp) -> Result<bool, StoreError> {
        store.update_lease(self.id, self.holder, LeaseUpdate::Extend(until)).await
    }

    /// Puts the item off. Returns false as [`Store::update_lease`] does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reschedule(&self, store: &dyn Store, due_at: Timestamp) -> Result<bool, StoreError> {
        store.update_lease(self.id, self.holder, LeaseUpdate::Reschedule(due_at)).await
    }

    /// Says that the item is done. Returns false as [`Store::update_lease`] does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn acknowledge(&self, store: &dyn Store) -> Result<bool, StoreError> {
        store.update_lease(self.id, self.holder, LeaseUpdate::Acknowledge).await
    }
}

impl dyn Store + '_ {
    /// Takes items ([`Store::take`]) with their content, such as [`Item::revocation`].
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Corrupt`] if `content` is not that of the queue's items.
    pub async fn take_as<T>(
        &self,
        queue: Queue,
        terms: LeaseTerms,
        limit: usize,
        content: fn(Item) -> Option<T>,
    ) -> Result<Vec<Lease<T>>, StoreError> {
        let taken = self.take(queue, terms, limit).await?.into_iter();
        let typed = taken.map(|Lease { id, item, holder, due_at, tries }| {
            let item = content(item).ok_or_else(|| corrupt("an item of another queue"))?;
            Ok(Lease { id, item, holder, due_at, tries })
        });
        typed.collect()
    }
}

/// How a process learns of changes that others make in a shared store.
pub enum ChangeFeed {
    /// No other process changes the store, so a cache is right until this process writes.
    SoleWriter,
    /// Others change the store, and it does not report the changes. A cache must not be trusted.
    Silent,
    /// Others change the store, and this subscriber receives what they change.
    Subscriber(Box<dyn Subscriber>),
}

/// Receives what every process changes in a shared store, this process included.
#[async_trait]
pub trait Subscriber: Send {
    /// The next event. Dropping the future loses no event.
    async fn next(&mut self) -> FeedEvent;
}

/// An event of a [`Subscriber`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// A session ended, is suspect, or has another pair or name. A cached row of it is out of date.
    Session(SessionId),
    /// Every change committed before this event has been delivered. Caches may be trusted until
    /// `until`, by the clock that all processes share. So a process that was suspended trusts
    /// nothing in its cache when it wakes.
    UpToDate {
        /// When this guarantee ends.
        until: Timestamp,
    },
    /// The feed is interrupted. Nothing in a cache may be trusted until [`FeedEvent::Resync`] and
    /// [`FeedEvent::UpToDate`].
    Lost,
    /// The feed works from now on, and may have missed changes before. The first event, and the
    /// next after each [`FeedEvent::Lost`].
    Resync,
}

/// Rows that nobody needs any more after some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leftover {
    /// Tombstones of sessions, by the time at which the session was created.
    Tombstones,
    /// States of sign-ins that were used up, by the time at which they expire.
    SpentLogins,
    /// Closed suspicions, by the time at which they were noted.
    ClosedSuspicions,
}

/// How many sessions there are in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SessionCounts {
    /// Live ones.
    pub live: u64,
    /// Parked ones.
    pub parked: u64,
    /// Suspect ones.
    pub suspect: u64,
    /// The oldest proof of a live session.
    pub oldest_proof: Option<Timestamp>,
    /// The claims on them.
    pub claims: Claims,
}

/// The number of rows whose blobs begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyIdCount {
    /// How the blobs begin.
    pub head: BlobHead,
    /// Number of sessions that hold such a blob.
    pub sessions: u64,
    /// Number of pending revocations that hold such a blob.
    pub revocations: u64,
}

/// A value under a name that all gateways of a store share, such as a budget. The store does not
/// interpret it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SharedEntry {
    /// Counts the writes.
    pub version: Version,
    /// What is kept.
    pub value: Vec<u8>,
}

/// Selects sessions of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Whose.
    pub subject: Subject,
    /// This one is spared.
    pub except: Option<SessionId>,
    /// Only sessions created before this time, so that a sign-in after the event is spared.
    pub created_before: Timestamp,
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was written.
    Done,
    /// Another writer was first. This is the row now, if it still exists.
    Conflict(Option<Box<Session>>),
}

/// Claims on sessions, by whether their outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Claims {
    /// Rows with a claim whose owner may still be working.
    pub in_flight: u64,
    /// Rows with a claim of unknown outcome: their refresh token may be spent.
    pub ambiguous: u64,
}

/// Why a store failed. Each variant says who must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not answer, or is busy: try again. Whether a write happened is unknown.
    #[error("the session store is unavailable: {0}")]
    Unavailable(String),
    /// It cannot be reached: try again. Nothing was changed.
    #[error("the session store is unavailable: {0}")]
    Unreachable(String),
    /// It refuses us: the operator must correct its address, or the rights of our role. Nothing was
    /// changed.
    #[error("the session store cannot be used: {0}")]
    Refused(String),
    /// There is no space left: the operator must free some.
    #[error("the session store is full ({0}); the operator must free space")]
    Full(String),
    /// It may be read but not written: the operator must allow that.
    #[error("the session store cannot be written: {0}")]
    ReadOnly(String),
    /// Stored data cannot be decoded: the operator must restore a backup.
    #[error("the session store is damaged ({0}); the operator must restore it from a backup")]
    Corrupt(String),
}

impl StoreError {
    /// Whether the whole store fails, as opposed to one damaged row.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unavailable(_)
            | Self::Unreachable(_)
            | Self::Refused(_)
            | Self::Full(_)
            | Self::ReadOnly(_) => true,
            Self::Corrupt(_) => false,
        }
    }

    /// Whether it may pass without the operator, as in a failover. Then a server is a standby until
    /// it is promoted, or until a proxy leads to another one.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Unreachable(_) | Self::ReadOnly(_) => true,
            Self::Refused(_) | Self::Full(_) | Self::Corrupt(_) => false,
        }
    }

    /// Whether a write that failed so certainly changed nothing.
    pub fn is_undone(&self) -> bool {
        !matches!(self, Self::Unavailable(_))
    }
}

/// Returns the error of an insert whose id is taken.
pub fn id_is_taken() -> StoreError {
    StoreError::Unavailable("the session id is taken".to_owned())
}

/// Returns the error of a store with rows that do not decode.
pub fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}
