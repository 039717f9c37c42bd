//! Everything in a store, row by row: to copy it into another store ([`copy`]), and to compare the
//! two ([`verify`]).
//!
//! A copy holds every table, and each row exactly as it is:
//!
//! | table | why it is copied |
//! |---|---|
//! | sessions | Users stay signed in. Version, generation and sealed blobs belong together: a blob opens only with the row and the generation that it was sealed for. All claims are copied: without its claim, a refresh token that may be spent would look unspent (invariant SPENT). Tombstones are copied, so that a user who was signed out learns why (invariant ENDED) |
//! | pending revocations | They are still pending (invariant CASCADE). Their tries and due times are copied, so that the outbox continues at its rate |
//! | used-up sign-ins | A callback that was answered from the old store is not answered again from the new one |
//! | suspicions | Open ones are still to be checked. Closed ones keep their key, so that a repeated event is recognised |
//! | slots | The sweep continues where it stopped, hourly and evenly (invariants HOURLY, SPREAD). Leases are copied too; they expire by themselves |
//! | shared entries | They keep the used budget, the app token, and the progress of a change of keys |
//!
//! Holders of leases are copied although they died with the gateway that was stopped. So a row has
//! the same columns on both sides, and comparing two stores is comparing rows.

mod copy;
mod digest;
#[cfg(test)]
mod tests;

use std::fmt;

use async_trait::async_trait;
use claviger_core::{AttemptId, Session, SessionId, Timestamp};

use crate::{Item, ItemId, RevocationId, SharedEntry, Store, StoreError, SuspicionKey, SweepKind};

pub use copy::{
    CopyError, CopyOptions, Difference, Differs, Progress, Report, Step, Sum, Told, copy, verify,
};
pub use digest::Digest;

/// The entry in which a store keeps whether it is the destination of a copy. It is not copied
/// itself.
pub const MARKER: &str = "copy";

/// Returns whether a copy into the store was begun and not finished, from the entry under
/// [`MARKER`]. Such a store lacks sessions, and a gateway that serves from it signs their users
/// out.
pub fn is_unfinished(marker: Option<&SharedEntry>) -> bool {
    marker.is_some_and(|marker| marker.value != copy::DONE)
}

/// A store whose rows can be read and added as they are. The caller has the store to itself: no
/// gateway serves from it meanwhile.
///
/// # Errors
/// As those of [`Store`].
#[async_trait]
pub trait Archive: Store {
    /// Keeps gateways and other copies away from the store while the lock is held, as
    /// well as the store can.
    async fn lock_for_maintenance(&self, side: Side) -> Result<MaintenanceLock, MaintenanceLockError>;

    /// Counts the rows of a table. It may read all of them.
    async fn count(&self, table: Table) -> Result<Count, StoreError>;

    /// Returns at most `limit` of the table's rows in the order of their keys, starting after
    /// `after`. `limit` is not zero. Fewer rows mean that there are no more. Slots that were never
    /// visited have no row.
    async fn page(&self, table: Table, after: Option<&Key>, limit: usize) -> Result<Vec<Found>, StoreError>;

    /// Adds rows as they are. Adds none if there is already a row with one of their keys, whatever
    /// it holds.
    async fn add(&self, records: Vec<Record>) -> Result<(), StoreError>;

    /// Prepares for many reads after many rows were added. A database updates its statistics here.
    async fn prepare_to_serve(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// One of the two stores of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The store that is read. It must not change meanwhile.
    Source,
    /// The store that is written.
    Destination,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

/// Keeps others away until it is dropped.
#[must_use = "others are kept away for as long as it is there"]
pub struct MaintenanceLock {
    guard: Option<Box<dyn MaintenanceLockGuard>>,
}

/// Keeps others away from a store until it is dropped. It may fail at that meanwhile.
#[async_trait]
pub trait MaintenanceLockGuard: Send + Sync {
    /// Checks that others were kept away until now.
    async fn check_held(&self) -> Result<(), MaintenanceLockError>;

    /// Checks that no gateway uses the store now.
    async fn check_no_gateways(&self) -> Result<(), MaintenanceLockError>;
}

impl MaintenanceLock {
    /// The lock of a store that only one process can open anyway.
    pub const fn implicit() -> Self {
        Self { guard: None }
    }

    /// A lock that lasts until `guard` is dropped.
    pub fn guarded_by(guard: impl MaintenanceLockGuard + 'static) -> Self {
        Self { guard: Some(Box::new(guard)) }
    }

    /// Checks that others were kept away until now.
    ///
    /// # Errors
    /// [`MaintenanceLockError::Lost`] if others may have used the store.
    pub async fn check_held(&self) -> Result<(), MaintenanceLockError> {
        match &self.guard {
            Some(guard) => guard.check_held().await,
            None => Ok(()),
        }
    }

    /// Checks again that no gateway uses the store.
    ///
    /// # Errors
    /// [`MaintenanceLockError::InUse`] if one does.
    pub async fn check_no_gateways(&self) -> Result<(), MaintenanceLockError> {
        match &self.guard {
            Some(guard) => guard.check_no_gateways().await,
            None => Ok(()),
        }
    }
}

/// Why others cannot be kept away from a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaintenanceLockError {
    /// The store is in use.
    #[error("{0}")]
    InUse(String),
    /// Others were no longer kept away.
    #[error(
        "the connection that kept others away was lost ({0}), so the store may have changed meanwhile; run the same \
         command again, which compares everything again"
    )]
    Lost(StoreError),
    /// The store could not say.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tables of a store, in the order of copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Sessions, tombstones included, with the claims on them.
    Sessions,
    /// Pending revocations.
    Revocations,
    /// States of sign-ins that were used up.
    Logins,
    /// Suspicions, open and closed.
    Suspicions,
    /// Visits to slots.
    Slots,
    /// Shared entries.
    SharedEntries,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 6] =
        [Self::Sessions, Self::Revocations, Self::Logins, Self::Suspicions, Self::Slots, Self::SharedEntries];

    /// Returns what the table holds, in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Revocations => "pending revocations",
            Self::Logins => "used-up sign-ins",
            Self::Suspicions => "suspicions",
            Self::Slots => "slots",
            Self::SharedEntries => "shared entries",
        }
    }
}

/// Identifies a row. Keys are ordered as the pages of their table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A session's.
    Session(SessionId),
    /// Of a pending revocation, a suspicion or a slot.
    Item(ItemId),
    /// A used-up sign-in's: the hash of its state.
    Login([u8; 32]),
    /// A shared entry's.
    SharedEntry(String),
}

impl Key {
    /// Returns the table of the row.
    pub const fn table(&self) -> Table {
        match self {
            Self::Session(_) => Table::Sessions,
            Self::Item(id) => match id {
                ItemId::Revocation(_) => Table::Revocations,
                ItemId::Suspicion(_) => Table::Suspicions,
                ItemId::Slot(..) => Table::Slots,
            },
            Self::Login(_) => Table::Logins,
            Self::SharedEntry(_) => Table::SharedEntries,
        }
    }

    /// Returns the id, if it is a session's.
    pub const fn session(&self) -> Option<SessionId> {
        if let Self::Session(id) = self { Some(*id) } else { None }
    }

    /// Returns the id, if it is an item's.
    pub const fn item(&self) -> Option<ItemId> {
        if let Self::Item(id) = self { Some(*id) } else { None }
    }

    /// Returns the hash of the state, if it is a sign-in's.
    pub const fn login(&self) -> Option<[u8; 32]> {
        if let Self::Login(state_hash) = self { Some(*state_hash) } else { None }
    }

    /// Returns the name, if it is a shared entry's.
    pub fn shared_entry(&self) -> Option<&str> {
        if let Self::SharedEntry(name) = self { Some(name) } else { None }
    }
}

/// For the operator, who may have to find the row. The first octets of a hash are enough.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "session {id}"),
            Self::Login(hash) => write!(f, "used-up sign-in {}…", beginning(hash)),
            Self::Item(ItemId::Revocation(RevocationId(id))) => write!(f, "pending revocation {id}"),
            Self::Item(ItemId::Suspicion(SuspicionKey(hash))) => write!(f, "suspicion {}…", beginning(hash)),
            Self::Item(ItemId::Slot(sweep, slot)) => {
                let of = match sweep {
                    SweepKind::Validation => "validations",
                    SweepKind::Connections => "connection checks",
                };
                write!(f, "slot {} of the {of}", slot.number())
            }
            Self::SharedEntry(name) => write!(f, "entry {name:?}"),
        }
    }
}

fn beginning(hash: &[u8; 32]) -> String {
    hash.iter().take(4).map(|octet| format!("{octet:02x}")).collect()
}

/// A row, exactly as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// A session with the claim on it.
    Session(Session),
    /// An item of a queue.
    Item(StoredItem),
    /// A sign-in's state that was used up.
    Login {
        /// The hash of the state.
        state_hash: [u8; 32],
        /// The earliest time at which it may be forgotten.
        expires_at: Timestamp,
    },
    /// A shared entry.
    SharedEntry {
        /// The name.
        name: String,
        /// The entry.
        entry: SharedEntry,
    },
}

impl Record {
    /// Returns the key of the row.
    pub fn key(&self) -> Key {
        match self {
            Self::Session(session) => Key::Session(session.id),
            Self::Item(stored) => Key::Item(stored.id),
            Self::Login { state_hash, .. } => Key::Login(*state_hash),
            Self::SharedEntry { name, .. } => Key::SharedEntry(name.clone()),
        }
    }
}

/// An item of a queue, exactly as it is stored. The slots of a store that were never visited are
/// not among its rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredItem {
    /// Its id.
    pub id: ItemId,
    /// What it says.
    pub item: Item,
    /// How often it was put off. 0 for a slot.
    pub tries: u32,
    /// When it is due. `None` for a suspicion that is closed.
    pub due_at: Option<Timestamp>,
    /// When the lease of a slot ends. Any other item is due when its lease ends, and has the epoch
    /// here.
    pub lease_until: Timestamp,
    /// Who took it last.
    pub holder: Option<AttemptId>,
}

impl StoredItem {
    /// Returns a new item.
    pub fn new(id: ItemId, item: Item) -> Self {
        let due_at = Some(item.due_from());
        Self { id, item, tries: 0, due_at, lease_until: Timestamp::EPOCH, holder: None }
    }

    /// Returns whether this is a slot that was never visited and is not leased.
    pub fn is_unvisited_slot(&self) -> bool {
        matches!(self.id, ItemId::Slot(..)) && *self == Self::new(self.id, self.item.clone())
    }
}

/// The result of reading one row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all that is found are records")]
pub enum Found {
    /// A row.
    Record(Record),
    /// A row that cannot be read.
    Damaged {
        /// Its key.
        key: Key,
        /// What is wrong with it. It reveals no content of the row.
        what: String,
    },
}

impl Found {
    /// Turns the result of reading a row into what was found: a damaged row is found too.
    ///
    /// # Errors
    /// Every other error.
    pub fn of(key: Key, read: Result<Record, StoreError>) -> Result<Self, StoreError> {
        match read {
            Ok(record) => Ok(Self::Record(record)),
            Err(StoreError::Corrupt(what)) => Ok(Self::Damaged { key, what }),
            Err(error) => Err(error),
        }
    }

    /// Returns the key of the row.
    pub fn key(&self) -> Key {
        match self {
            Self::Record(record) => record.key(),
            Self::Damaged { key, .. } => key.clone(),
        }
    }
}

/// The number of rows in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Count {
    /// Number of rows.
    pub rows: u64,
    /// Number of parts of rows that belong to no row. Nothing reads them.
    pub strays: u64,
}
