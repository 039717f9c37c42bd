//! Queues of work in a store. An instance leases an item, works on it, and then acknowledges it or
//! puts it off. When an instance dies, its items go to the others as soon as the leases end.
//!
//! | queue | an item is | acknowledged, it is |
//! |---|---|---|
//! | [`Queue::Revocations`] | the revocation of a token pair | deleted |
//! | [`Queue::Suspicions`] | the suspicion that a user disconnected the app | closed; its key stays noted |
//! | [`Queue::Slots`] | the visit of a sweep to the sessions of one slot | never: it is only put off |

use claviger_core::{AttemptId, PendingRevocation, Session, Slot, State, Suspicion, Timestamp, limits};

/// The queues of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// Pending revocations.
    Revocations,
    /// Suspicions.
    Suspicions,
    /// The visits of a sweep. Slots without a session that the sweep is for are skipped.
    Slots(SweepKind),
}

/// A round of visits to sessions, slot by slot ([`claviger_core::sweep`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SweepKind {
    /// To validate access tokens: sessions in [`State::Live`].
    Validation,
    /// To check the connections of users: sessions that have not ended.
    Connections,
}

impl SweepKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Validation, Self::Connections];

    /// Returns whether the sweep visits this session.
    pub fn is_for(self, session: &Session) -> bool {
        match self {
            Self::Validation => matches!(session.state, State::Live(_)),
            Self::Connections => !session.ended(),
        }
    }
}

/// Identifies an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemId {
    /// A pending revocation.
    Revocation(RevocationId),
    /// A suspicion.
    Suspicion(SuspicionKey),
    /// A slot of a sweep.
    Slot(SweepKind, Slot),
}

impl ItemId {
    /// Returns the queue of the item.
    pub const fn queue(self) -> Queue {
        match self {
            Self::Revocation(_) => Queue::Revocations,
            Self::Suspicion(_) => Queue::Suspicions,
            Self::Slot(sweep, _) => Queue::Slots(sweep),
        }
    }
}

/// Identifies a pending revocation in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevocationId(pub i64);

/// Identifies a suspicion by a hash of its source, so that none is noted twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SuspicionKey(pub [u8; 32]);

/// What a queue holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// A pending revocation. The store gives it an id.
    Revocation(PendingRevocation),
    /// A suspicion.
    Suspicion {
        /// Its key.
        key: SuspicionKey,
        /// What it says.
        suspicion: Suspicion,
        /// When it was noted.
        noted_at: Timestamp,
    },
    /// A slot. It is in the queue from the beginning.
    Slot(Slot),
}

impl Item {
    /// Returns when a new item is due.
    pub const fn due_from(&self) -> Timestamp {
        match self {
            Self::Revocation(revocation) => revocation.pending_since,
            Self::Suspicion { noted_at, .. } => *noted_at,
            Self::Slot(_) => Timestamp::EPOCH,
        }
    }

    /// Returns the pending revocation.
    pub fn revocation(self) -> Option<PendingRevocation> {
        if let Self::Revocation(revocation) = self { Some(revocation) } else { None }
    }

    /// Returns what the suspicion says.
    pub fn suspicion(self) -> Option<Suspicion> {
        if let Self::Suspicion { suspicion, .. } = self { Some(suspicion) } else { None }
    }

    /// Returns the slot.
    pub fn slot(self) -> Option<Slot> {
        if let Self::Slot(slot) = self { Some(slot) } else { None }
    }
}

/// One attempt to work on items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Who takes the items.
    pub holder: AttemptId,
    /// What is due at this time may be taken.
    pub now: Timestamp,
    /// When the lease ends.
    pub until: Timestamp,
    /// The latest time that any item can be due. A later one was written by a clock that was ahead,
    /// and the item is due now.
    pub latest_due: Timestamp,
}

impl LeaseTerms {
    /// Returns the latest time at which a lease of a slot can end. A later one is over.
    pub fn latest_lease(&self) -> Timestamp {
        self.until.after(limits::CLOCK_SKEW)
    }
}

/// An item that `holder` took to work on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease<T> {
    /// Identifies the item.
    pub id: ItemId,
    /// The item.
    pub item: T,
    /// Who took it.
    pub holder: AttemptId,
    /// Since when it was due.
    pub due_at: Timestamp,
    /// How often it was put off. Slots do not count this.
    pub tries: u32,
}

/// What the holder of a lease does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseUpdate {
    /// The work goes on: the lease ends at this time.
    Extend(Timestamp),
    /// The item is due again at this time, with one more try, and leased to nobody. A slot counts
    /// no tries.
    Reschedule(Timestamp),
    /// The item is done.
    Acknowledge,
}

/// How much waits in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Number of items that are not done, leased ones included. For a sweep, the slots that hold a
    /// session that it is for.
    pub count: u64,
    /// Since when the oldest of them waits. For a sweep, the earliest time at which one is due.
    pub oldest: Option<Timestamp>,
}
