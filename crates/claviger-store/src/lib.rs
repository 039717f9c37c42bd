//! Where sessions are kept: the trait that every store implements, a store in memory, and the conformance suite; and how all that a
//! store holds is copied into another ([`archive`]).
//!
//! A store decides nothing. The rules in [`claviger_core::session`] make the next row; a store writes it only if the
//! row's version is still the one the rules started from. So no store can lose an update, revive an ended row, or tell
//! two writers that both won, and no lock of one process is needed for any of it.

pub mod archive;
#[cfg(any(test, feature = "conformance"))]
mod conformance;
mod memory;

use async_trait::async_trait;
use claviger_core::{
    ids::{AttemptId, SessionId, Subject, Version},
    session::{BlobHead, EndReason, OwedRevocation, Session},
    suspicion::Suspicion,
    sweep::Slot,
    time::Timestamp,
};

#[cfg(any(test, feature = "conformance"))]
pub use conformance::{Harness, conformance};
pub use memory::{MemoryStore, Method};

/// Keeps sessions, the revocations owed to providers, and the sign-ins that were used up.
///
/// Every method is atomic and, where the store is durable, durable when it returns.
///
/// # Errors
/// Each method fails with [`StoreError`] if the store could not do it; then nothing is changed, unless the error is
/// [`StoreError::Unavailable`] on a write, whose outcome is unknown.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Whether the store can be read and written.
    async fn check(&self) -> Result<(), StoreError>;

    /// Adds a session that just began. In the same step ends the session it replaces, and those of the user's devices
    /// that are over the limit ([`claviger_core::session::over_limit`]), and owes their revocations.
    /// Gives the rows it ended: at the time the new session was created, the replaced one first.
    ///
    /// An id that is taken is refused as unavailable, whatever the row in its place: another sign-in gets another id.
    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError>;

    /// The row as it is now, ended or not.
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError>;

    /// Puts `next` in the place of the row it was made from, if that is still the stored one: compare-and-set on the
    /// version, `next.version` being one higher, and it has not ended. The subject, `created_at` and `last_seen_at` are
    /// left as stored. In the same step owes `owed`.
    async fn replace(&self, next: &Session, owed: Option<&OwedRevocation>) -> Result<Replaced, StoreError>;

    /// The same for a row that differs from the one it was made from in nothing but version and claim. A store may do less for it.
    async fn replace_claim(&self, next: &Session) -> Result<Replaced, StoreError> {
        self.replace(next, None).await
    }

    /// The user's sessions that have not ended, last used first, of equals the youngest; at most `limit`.
    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError>;

    /// Ends all sessions of the selection that have not ended, in one step, and owes their revocations.
    /// Gives the rows it ended, in the order of their ids.
    async fn end_all(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError>;

    /// Moves `last_seen_at` forward, never back, and changes nothing else, the version included.
    /// Ended and unknown rows are passed over.
    async fn touch(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError>;

    /// Sessions that have not ended and were last seen at or before `idle_since`, or created at or before
    /// `created_until`; at most `limit`. The idle ones come first, the longest idle before the others; then the old ones,
    /// the oldest before the others. Each comes once.
    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError>;

    /// Ids of sessions that ended or are suspect, the youngest sign-in first, at most `limit`.
    async fn distrusted(&self, limit: usize) -> Result<Vec<SessionId>, StoreError>;

    /// Deletes tombstones of sessions created at or before `created_until`, the oldest first, at most `limit`.
    /// Gives their number.
    async fn purge(&self, created_until: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// Uses up a sign-in's state. True for the first caller, false ever after, until `expires_at` at least.
    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError>;

    /// Forgets used-up states that expired at or before `now`, the oldest first, at most `limit`. Gives their number.
    async fn forget_logins(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// Adds a revocation that is owed to the provider, due from [`OwedRevocation::owed_at`] on.
    async fn owe(&self, owed: &OwedRevocation) -> Result<(), StoreError>;

    /// Takes revocations that are due and leased to nobody, the longest due first, at most `limit`.
    /// They are leased to `attempt` until `lease_until`, and due again then.
    async fn take_owed(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Owed>, StoreError>;

    /// Closes a revocation that `attempt` holds: it is confirmed, or moot. False if the lease went to somebody else.
    async fn settle_owed(&self, id: OwedId, attempt: AttemptId) -> Result<bool, StoreError>;

    /// Gives a revocation that `attempt` holds back, due again at `due_at`, its tries one more.
    /// False if the lease went to somebody else.
    async fn postpone_owed(
        &self,
        id: OwedId,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// How many revocations are owed, and since when the oldest.
    async fn owed_backlog(&self) -> Result<Backlog, StoreError>;

    /// Takes slots of a wheel whose visit is due and that are leased to nobody, the longest due first, at most `limit`.
    /// Slots without a session that the wheel is for are passed over. They are leased to `attempt` until `lease_until`, and
    /// then as due as before. A slot that was never visited has been due since the epoch.
    async fn take_slots(
        &self,
        wheel: Wheel,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Visit>, StoreError>;

    /// The slot's sessions that the wheel is for, in the order of their ids, from the one after `after` on; at most `limit`. Fewer than
    /// that are the last: a row that cannot be read is passed over, and the next one taken in its place.
    async fn in_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError>;

    /// Prolongs the lease of a slot. False if it went to somebody else, or the visit is closed.
    async fn hold_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        lease_until: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Closes a visit: the slot is leased to nobody and due at `due_at`. False if the lease went to somebody else.
    async fn leave_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Since when the slot has been due that is due longest and holds a session that the wheel is for; leased or not.
    async fn longest_due(&self, wheel: Wheel) -> Result<Option<Timestamp>, StoreError>;

    /// Puts many rows in the place of those that they were made from, in one step, each by a compare-and-set of its own.
    /// They differ from these in nothing but version, state and proof. Says of each whether it was written.
    async fn replace_all(&self, next: &[Session]) -> Result<Vec<bool>, StoreError>;

    /// How many sessions there are in each state, and how many have a claim on them. It may go through all of them.
    async fn census(&self, now: Timestamp) -> Result<Census, StoreError>;

    /// How many rows hold a sealed blob that begins with the same octets ([`BlobHead`]), by these octets: which of
    /// them name a key is not the store's business. A row whose two blobs begin alike counts once, else under each. It may
    /// go through all rows. In SQL, of `session` and in the same way of `owed`:
    ///
    /// ```sql
    /// SELECT head, count(*) FROM (
    ///     SELECT substr(access, 1, 5) AS head FROM session WHERE access IS NOT NULL
    ///     UNION ALL
    ///     SELECT substr(refresh, 1, 5) FROM session WHERE substr(refresh, 1, 5) <> substr(access, 1, 5)
    /// ) GROUP BY head ORDER BY head
    /// ```
    async fn heads(&self) -> Result<Vec<HeadCount>, StoreError>;

    /// Notes a suspicion, due at once. False, and nothing is noted, if one with this key was noted and is not forgotten.
    async fn suspect(
        &self,
        key: SuspicionKey,
        suspicion: &Suspicion,
        noted_at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Takes suspicions that are due and leased to nobody, the longest due first, at most `limit`.
    /// They are leased to `attempt` until `lease_until`, and due again then.
    async fn take_suspicions(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Suspected>, StoreError>;

    /// Closes a suspicion that `attempt` holds. Its key stays noted. False if the lease went to somebody else.
    async fn settle_suspicion(&self, key: SuspicionKey, attempt: AttemptId) -> Result<bool, StoreError>;

    /// Gives a suspicion that `attempt` holds back, due again at `due_at`, its tries one more.
    /// False if the lease went to somebody else.
    async fn postpone_suspicion(
        &self,
        key: SuspicionKey,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Forgets suspicions that are closed and were noted at or before `noted_until`, the oldest first, at most `limit`.
    /// Gives their number.
    async fn forget_suspicions(&self, noted_until: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// What all who share the store keep under this name.
    async fn memo(&self, name: &str) -> Result<Option<Memo>, StoreError>;

    /// Keeps something under a name: compare-and-set on the version, which is [`Version::FIRST`] for a name that is new, and
    /// else one higher than the stored one. False if another writer was first.
    async fn put_memo(&self, name: &str, memo: &Memo) -> Result<bool, StoreError>;

    /// Who else changes the store. Asked once, by whoever remembers what it read.
    fn others(&self) -> Others {
        Others::None
    }
}

/// Who else changes a store.
pub enum Others {
    /// Nobody: what this process remembers is right.
    None,
    /// Other processes, of which nothing is heard: nothing may be remembered that must be right.
    Unheard,
    /// Other processes, and this is their news.
    Heard(Box<dyn News>),
}

/// News of what all who share a store change, this process included.
#[async_trait]
pub trait News: Send {
    /// The next change. It may be awaited beside something else: no change is lost if that comes first.
    async fn next(&mut self) -> Change;
}

/// A piece of [`News`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session ended, is suspect, or has another pair: what is remembered of it is wrong.
    Session(SessionId),
    /// All that was changed before was told: what is remembered may be trusted until then, by the clock that all who share the
    /// store go by, and longer only if this is said again. So a process that stood still trusts nothing it remembers when it wakes.
    Heard {
        /// How long it may be trusted.
        until: Timestamp,
    },
    /// Changes are not heard any more: nothing that is remembered may be trusted until [`Change::Resync`] and [`Change::Heard`].
    Lost,
    /// Changes are heard from now on; some may have been missed before. First of all, and after each [`Change::Lost`].
    Resync,
}

/// A round of visits to sessions, slot by slot ([`claviger_core::sweep`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wheel {
    /// To validate access tokens: sessions in [`State::Live`](claviger_core::session::State::Live).
    Validation,
    /// To ask about users: sessions that have not ended.
    Probe,
}

impl Wheel {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Validation, Self::Probe];

    /// Whether it is for this session.
    pub fn is_for(self, session: &Session) -> bool {
        match self {
            Self::Validation => matches!(session.state, claviger_core::session::State::Live(_)),
            Self::Probe => !session.ended(),
        }
    }
}

/// A slot that was taken to be visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Visit {
    /// The slot.
    pub slot: Slot,
    /// Since when its visit is due.
    pub due_at: Timestamp,
}

/// How many sessions there are in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Census {
    /// Live ones.
    pub live: u64,
    /// Parked ones.
    pub parked: u64,
    /// Suspect ones.
    pub suspect: u64,
    /// When the live session was proven whose proof is the oldest.
    pub oldest_proof: Option<Timestamp>,
    /// The claims on them.
    pub claims: Claims,
}

/// How many rows hold blobs that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeadCount {
    /// How the blobs begin.
    pub head: BlobHead,
    /// So many sessions hold one.
    pub sessions: u64,
    /// So many revocations that are owed hold one.
    pub owed: u64,
}

/// Tells one suspicion from another, so that none is noted twice: a hash of where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SuspicionKey(pub [u8; 32]);

/// A suspicion that was taken to be looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspected {
    /// Its key.
    pub key: SuspicionKey,
    /// What it says.
    pub suspicion: Suspicion,
    /// How often it was looked into before.
    pub tries: u32,
}

/// Something that all who share the store keep under one name, such as a budget. What it holds is no business of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memo {
    /// Counts the writes.
    pub version: Version,
    /// What is kept.
    pub value: Vec<u8>,
}

/// What an insert does to the user's other sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// So many sessions may the user have, the new one among them. At least one.
    pub limit: u32,
    /// The session of the same browser that the new one replaces.
    pub replaces: Option<SessionId>,
}

/// Which of a user's sessions are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Whose.
    pub subject: Subject,
    /// But not this one.
    pub except: Option<SessionId>,
    /// Only those created before this time: a sign-in that is younger than the event is spared.
    pub created_before: Timestamp,
}

/// What became of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The row is the new one.
    Done,
    /// Another writer was first. This is the row now, if it still exists.
    Conflict(Option<Box<Session>>),
}

/// Names an owed revocation in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwedId(pub i64);

/// A revocation that was taken to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Its name.
    pub id: OwedId,
    /// What is owed.
    pub revocation: OwedRevocation,
    /// How often it was tried before.
    pub tries: u32,
}

/// Refreshes that are under way, or were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Claims {
    /// Rows with a claim whose owner may yet be at it.
    pub in_flight: u64,
    /// Rows of which nobody can say whether their refresh token is spent.
    pub ambiguous: u64,
}

/// How much is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Backlog {
    /// How many revocations.
    pub count: u64,
    /// Since when the oldest of them is owed.
    pub oldest: Option<Timestamp>,
}

/// Why a store could not do it. Each says who must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or is busy: try again. Of a write nobody can say whether it happened.
    #[error("the session store is unavailable ({0}); this may pass by itself")]
    Unavailable(String),
    /// There is no room left: the operator must make some.
    #[error("the session store is full ({0}); the operator must free space")]
    Full(String),
    /// It may not be written: the operator must change that.
    #[error("the session store is read-only ({0}); the operator must make it writable")]
    ReadOnly(String),
    /// What is stored cannot be understood: the operator must restore it.
    #[error("the session store is damaged ({0}); the operator must restore it from a backup")]
    Corrupt(String),
}

/// The error of an insert whose id is taken.
pub fn id_is_taken() -> StoreError {
    StoreError::Unavailable("the session id is taken".to_owned())
}

/// The error of a store whose rows hold what no session can.
pub fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}
