//! What a store holds, row by row: to copy it into another store ([`copy`]), and to compare the two ([`verify`]).
//!
//! Every table goes along, and each row of it exactly as it stands:
//!
//! | table | why it goes along |
//! |---|---|
//! | sessions | their users stay signed in. Version, generation and sealed blobs belong together: a blob opens only with the row and the generation that it was sealed for. Claims go along as they are, those whose answer was lost and those that were under way: without its claim a refresh token that may be spent would look unspent (invariant SPENT). Tombstones too, so that who was signed out is told so, and why (invariant ENDED) |
//! | owed revocations | the provider is still owed them (invariant CASCADE); with their tries and due times, so that the outbox goes on at its pace |
//! | used-up sign-ins | a callback that was answered is not answered again, whichever store answers |
//! | suspicions | open ones are still to be looked into; closed ones remember the word that they came from, so that it is not taken for another |
//! | slots | the sweep goes on where it stood, hourly and evenly (invariants HOURLY, SPREAD). Leases too: they run out by themselves |
//! | memos | small, and each saves something: the budget that was used, the app token that would otherwise be left over, how far a change of keys is |
//!
//! Holders of leases go along although they died with the gateway that was stopped: that way a row is the same on both sides,
//! down to the last column, and comparing two stores is comparing rows.

mod copy;
mod digest;
#[cfg(test)]
mod tests;

use std::fmt;

use async_trait::async_trait;
use claviger_core::{
    ids::{AttemptId, SessionId},
    session::Session,
    sweep::Slot,
    time::Timestamp,
};

use crate::{Memo, Owed, OwedId, Store, StoreError, Suspected, SuspicionKey, Wheel};

pub use copy::{
    CopyError, CopyOptions, Difference, Differs, Progress, Report, Step, Sum, Told, copy, verify,
};
pub use digest::Digest;

/// Under this name a store keeps whether it is the destination of a copy. It is no part of what is copied.
pub const MARKER: &str = "copy";

/// Whether a copy into the store was begun and not finished, by what the store keeps under [`MARKER`]. Such a store lacks sessions,
/// and whoever serves from it signs their users out.
pub fn is_unfinished(marker: Option<&Memo>) -> bool {
    marker.is_some_and(|marker| marker.value != copy::DONE)
}

/// A store whose rows can be read and added as they are, by whoever has it for itself. No gateway serves from it meanwhile.
///
/// # Errors
/// As those of [`Store`].
#[async_trait]
pub trait Archive: Store {
    /// Keeps gateways and other copies away from the store for as long as the reservation is kept, as well as the store can.
    async fn reserve(&self, side: Side) -> Result<Reservation, ReserveError>;

    /// How many rows a table holds. It may go through all of them.
    async fn count(&self, table: Table) -> Result<Count, StoreError>;

    /// The table's rows in the order of their keys, from the one after `after` on; at most `limit`, which is not zero. Fewer than
    /// that are the last. Slots that were never visited are no rows.
    async fn page(&self, table: Table, after: Option<&Key>, limit: usize) -> Result<Vec<Found>, StoreError>;

    /// Adds rows as they are: all of them, or none if a row with one of their keys is there already, whatever is in it.
    async fn add(&self, records: Vec<Record>) -> Result<(), StoreError>;

    /// Is told that many rows were added, and that they will be asked for.
    async fn prepare_to_serve(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Which of the two stores of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that is read. Nobody may change it meanwhile.
    Source,
    /// The one that is written.
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
pub struct Reservation {
    kept: Option<Box<dyn Keeper>>,
}

/// Keeps others away from a store until it is dropped, and may lose the means to.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// Whether it has kept them away until now.
    async fn has_kept(&self) -> Result<(), ReserveError>;

    /// Whether no gateway is at the store now.
    async fn is_alone(&self) -> Result<(), ReserveError>;
}

impl Reservation {
    /// Where whoever has the store open has it for itself anyway.
    pub const fn inherent() -> Self {
        Self { kept: None }
    }

    /// Lasts until this is dropped.
    pub fn by(kept: impl Keeper + 'static) -> Self {
        Self { kept: Some(Box::new(kept)) }
    }

    /// Whether others were kept away until now.
    ///
    /// # Errors
    /// [`ReserveError::Lost`], if somebody may have been there.
    pub async fn has_kept(&self) -> Result<(), ReserveError> {
        match &self.kept {
            Some(kept) => kept.has_kept().await,
            None => Ok(()),
        }
    }

    /// Looks for gateways once more.
    ///
    /// # Errors
    /// [`ReserveError::InUse`], if there are any.
    pub async fn is_alone(&self) -> Result<(), ReserveError> {
        match &self.kept {
            Some(kept) => kept.is_alone().await,
            None => Ok(()),
        }
    }
}

/// Why nobody can be kept away from a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// Somebody is at it.
    #[error("{0}")]
    InUse(String),
    /// Nobody was kept away any more.
    #[error(
        "the connection that kept others away was lost ({0}), so somebody may have changed something meanwhile; run the same \
         command again, which compares all of it anew"
    )]
    Lost(StoreError),
    /// The store could not say.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tables of a store, in the order in which they are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Sessions, tombstones included, with the claims on them.
    Sessions,
    /// Revocations that providers are owed.
    Owed,
    /// States of sign-ins that were used up.
    Logins,
    /// Suspicions, those that are closed included.
    Suspicions,
    /// Visits to slots.
    Slots,
    /// What is kept under a name.
    Memos,
}

impl Table {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Sessions, Self::Owed, Self::Logins, Self::Suspicions, Self::Slots, Self::Memos];

    /// What it holds, in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Owed => "owed revocations",
            Self::Logins => "used-up sign-ins",
            Self::Suspicions => "suspicions",
            Self::Slots => "slots",
            Self::Memos => "memos",
        }
    }
}

/// Names a row. The keys of one table have the order of its pages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A session's.
    Session(SessionId),
    /// An owed revocation's.
    Owed(OwedId),
    /// A used-up sign-in's: the hash of its state.
    Login([u8; 32]),
    /// A suspicion's.
    Suspicion(SuspicionKey),
    /// A slot's.
    Slot(Wheel, Slot),
    /// A memo's.
    Memo(String),
}

impl Key {
    /// The table of its row.
    pub const fn table(&self) -> Table {
        match self {
            Self::Session(_) => Table::Sessions,
            Self::Owed(_) => Table::Owed,
            Self::Login(_) => Table::Logins,
            Self::Suspicion(_) => Table::Suspicions,
            Self::Slot(..) => Table::Slots,
            Self::Memo(_) => Table::Memos,
        }
    }

    /// The id, if it is a session's.
    pub const fn session(&self) -> Option<SessionId> {
        if let Self::Session(id) = self { Some(*id) } else { None }
    }

    /// The name, if it is an owed revocation's.
    pub const fn owed(&self) -> Option<OwedId> {
        if let Self::Owed(id) = self { Some(*id) } else { None }
    }

    /// The hash of the state, if it is a sign-in's.
    pub const fn login(&self) -> Option<[u8; 32]> {
        if let Self::Login(state_hash) = self { Some(*state_hash) } else { None }
    }

    /// The key, if it is a suspicion's.
    pub const fn suspicion(&self) -> Option<SuspicionKey> {
        if let Self::Suspicion(key) = self { Some(*key) } else { None }
    }

    /// Wheel and slot, if it is a slot's.
    pub const fn slot(&self) -> Option<(Wheel, Slot)> {
        if let Self::Slot(wheel, slot) = self { Some((*wheel, *slot)) } else { None }
    }

    /// The name, if it is a memo's.
    pub fn memo(&self) -> Option<&str> {
        if let Self::Memo(name) = self { Some(name) } else { None }
    }
}

/// For the operator, who may have to find the row. Of hashes the first octets are enough.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "session {id}"),
            Self::Owed(OwedId(id)) => write!(f, "owed revocation {id}"),
            Self::Login(hash) => write!(f, "used-up sign-in {}…", beginning(hash)),
            Self::Suspicion(SuspicionKey(hash)) => write!(f, "suspicion {}…", beginning(hash)),
            Self::Slot(Wheel::Validation, slot) => write!(f, "slot {} of the validations", slot.number()),
            Self::Slot(Wheel::Probe, slot) => write!(f, "slot {} of the probes", slot.number()),
            Self::Memo(name) => write!(f, "memo {name:?}"),
        }
    }
}

fn beginning(hash: &[u8; 32]) -> String {
    hash.iter().take(4).map(|octet| format!("{octet:02x}")).collect()
}

/// A row, exactly as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A session with the claim on it.
    Session(Session),
    /// A revocation that is owed. A lease is one that is due again when the lease ends.
    Owed {
        /// The revocation, with its name and its tries.
        owed: Owed,
        /// When it is due.
        due_at: Timestamp,
        /// Who took it last.
        holder: Option<AttemptId>,
    },
    /// A sign-in's state that was used up.
    Login {
        /// The hash of the state.
        state_hash: [u8; 32],
        /// Until when it is remembered at least.
        expires_at: Timestamp,
    },
    /// A suspicion.
    Suspicion {
        /// What it says, with its key and its tries.
        suspected: Suspected,
        /// When it was noted.
        noted_at: Timestamp,
        /// When it is due. None: it is closed.
        due_at: Option<Timestamp>,
        /// Who took it last.
        holder: Option<AttemptId>,
    },
    /// A slot that was visited, or is leased.
    Slot {
        /// Whose visits.
        wheel: Wheel,
        /// Which slot.
        slot: Slot,
        /// When the next visit is due.
        due_at: Timestamp,
        /// Until when it is leased.
        lease_until: Timestamp,
        /// Whom it is leased to.
        holder: Option<AttemptId>,
    },
    /// What is kept under a name.
    Memo {
        /// The name.
        name: String,
        /// What is kept.
        memo: Memo,
    },
}

impl Record {
    /// Names the row.
    pub fn key(&self) -> Key {
        match self {
            Self::Session(session) => Key::Session(session.id),
            Self::Owed { owed, .. } => Key::Owed(owed.id),
            Self::Login { state_hash, .. } => Key::Login(*state_hash),
            Self::Suspicion { suspected, .. } => Key::Suspicion(suspected.key),
            Self::Slot { wheel, slot, .. } => Key::Slot(*wheel, *slot),
            Self::Memo { name, .. } => Key::Memo(name.clone()),
        }
    }
}

/// What was found where a row should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all that is found are records")]
pub enum Found {
    /// A row.
    Record(Record),
    /// Something that cannot be read.
    Damaged {
        /// Where.
        key: Key,
        /// What is wrong with it. It tells nothing of what is in it.
        what: String,
    },
}

impl Found {
    /// What became of reading a row: one that is damaged is found too, and every other error is passed on.
    ///
    /// # Errors
    /// If it is not the row that is to blame.
    pub fn of(key: Key, read: Result<Record, StoreError>) -> Result<Self, StoreError> {
        match read {
            Ok(record) => Ok(Self::Record(record)),
            Err(StoreError::Corrupt(what)) => Ok(Self::Damaged { key, what }),
            Err(error) => Err(error),
        }
    }

    /// Names the row.
    pub fn key(&self) -> Key {
        match self {
            Self::Record(record) => record.key(),
            Self::Damaged { key, .. } => key.clone(),
        }
    }
}

/// How much a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Count {
    /// So many rows.
    pub rows: u64,
    /// So many parts of rows that belong to none. Nothing ever reads them.
    pub strays: u64,
}
