//! How a store in SQL writes core's values as columns, and reads them back.
//!
//! Every SQL store has the same columns, so what a column holds is decided here, once. A store says
//! how its database gives a plain value ([`ColumnReader`]) and takes one. Reading goes from left to
//! right, in the order of the columns that each function names.
//!
//! What does not decode is damage: [`StoreError::Corrupt`] with the name of the column, and nothing
//! of its content.
//!
//! Earlier releases have stored these names and numbers. Changing one needs a migration in every
//! store.

use claviger_core::{
    ActiveState, AttemptId, Cause, Claim, Custody, DeviceLabel, EndReason, Expiry, Fingerprint,
    PendingRevocation, ProviderName, SealedBlob, SealedPair, SecretHash, Session, SessionId, Slot, State,
    Subject, Suspicion, Timestamp, Version,
};

use crate::{
    Backlog, Claims, Item, ItemId, KeyIdCount, Lease, Queue, RevocationId, SessionCounts, StoreError,
    SuspicionKey, SweepKind,
    archive::{Count, Record, StoredItem},
};

const LIVE: i16 = 0;
const PARKED: i16 = 1;
const SUSPECT: i16 = 2;
const ENDED: i16 = 3;

const AT: &str = "at";
const UNKNOWN: &str = "unknown";
const NEVER: &str = "never";

/// The columns of one row, read from left to right. Each method takes the next column.
///
/// # Errors
/// Each method fails with [`ColumnReader::damage`] if the column holds something else.
pub trait ColumnReader {
    /// Returns which column comes next.
    fn position(&self) -> usize;

    /// Returns the error that names this column and reveals nothing of its content.
    fn damage(&self, column: usize) -> StoreError;

    /// Takes an integer of 64 bits, or NULL.
    fn integer(&mut self) -> Result<Option<i64>, StoreError>;

    /// Takes a small integer that stands for a word.
    fn code(&mut self) -> Result<i16, StoreError>;

    /// Takes a truth value, or NULL.
    fn flag(&mut self) -> Result<Option<bool>, StoreError>;

    /// Takes the 16 octets of an id, or NULL.
    fn id(&mut self) -> Result<Option<[u8; 16]>, StoreError>;

    /// Takes exactly `N` octets.
    fn octets<const N: usize>(&mut self) -> Result<[u8; N], StoreError>;

    /// Takes octets, or NULL.
    fn blob(&mut self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Takes a text.
    fn text(&mut self) -> Result<String, StoreError>;

    /// Takes a stable name, or NULL. `known` returns `None` for an unknown name.
    fn name<T>(&mut self, known: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StoreError>;

    /// Takes columns that must not be NULL.
    fn required<T>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let column = self.position();
        take(self)?.ok_or_else(|| self.damage(column))
    }

    /// Takes a time.
    fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.required(Self::maybe_time)
    }

    /// Takes a time, or NULL.
    fn maybe_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.integer()?.map(Timestamp::from_millis))
    }

    /// Takes a version.
    fn version(&mut self) -> Result<Version, StoreError> {
        self.count().map(Version)
    }

    /// Takes a number that is not negative.
    fn count(&mut self) -> Result<u64, StoreError> {
        let column = self.position();
        let count = self.required(Self::integer)?;
        u64::try_from(count).map_err(|_| self.damage(column))
    }

    /// Takes the id of a session.
    fn session_id(&mut self) -> Result<SessionId, StoreError> {
        self.required(Self::id).map(SessionId::from_bytes)
    }

    /// Takes the holder of a lease, or NULL.
    fn holder(&mut self) -> Result<Option<AttemptId>, StoreError> {
        Ok(self.id()?.map(AttemptId))
    }
}

/// Returns the column of a version. SQL's integers have a sign; no row reaches that many changes.
///
/// # Errors
/// [`StoreError::Unavailable`] if it does not fit.
pub fn version_column(version: Version) -> Result<i64, StoreError> {
    i64::try_from(version.0).map_err(|_| StoreError::Unavailable("a version is out of range".to_owned()))
}

/// Returns the columns `expiry` and `expires_at`.
pub fn expiry_columns(expiry: Expiry) -> (&'static str, Option<i64>) {
    match expiry {
        Expiry::At(at) => (AT, Some(at.as_millis())),
        Expiry::Unknown => (UNKNOWN, None),
        Expiry::Never => (NEVER, None),
    }
}

/// Returns the columns `state` and `proven_at`.
pub fn state_columns(state: &State) -> (i16, Option<i64>) {
    let (code, active) = match state {
        State::Live(active) => (LIVE, active),
        State::Parked(active) => (PARKED, active),
        State::Suspect(active) => (SUSPECT, active),
        State::Ended { .. } => return (ENDED, None),
    };
    (code, Some(active.proven_at.as_millis()))
}

/// Returns the columns `end_reason` and `ended_at`.
pub fn end_columns(state: &State) -> (Option<&'static str>, Option<i64>) {
    match state {
        State::Ended { reason, at } => (Some(reason.name()), Some(at.as_millis())),
        State::Live(_) | State::Parked(_) | State::Suspect(_) => (None, None),
    }
}

/// The columns of the claim on a session. All are NULL if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimColumns {
    /// [`Claim::attempt`].
    pub attempt: Option<[u8; 16]>,
    /// [`Claim::taken_at`].
    pub taken_at: Option<i64>,
    /// [`Claim::lease_until`].
    pub lease_until: Option<i64>,
    /// [`Claim::fingerprint`].
    pub fingerprint: Option<[u8; 16]>,
    /// [`Claim::replay`].
    pub replay: Option<bool>,
    /// [`Claim::answer_lost`].
    pub answer_lost: Option<bool>,
}

impl ClaimColumns {
    /// Returns the columns of this session's claim.
    pub fn of(session: &Session) -> Self {
        let claim = session.active().and_then(|active| active.claim);
        Self {
            attempt: claim.map(|claim| claim.attempt.0),
            taken_at: claim.map(|claim| claim.taken_at.as_millis()),
            lease_until: claim.map(|claim| claim.lease_until.as_millis()),
            fingerprint: claim.map(|claim| claim.fingerprint.0),
            replay: claim.map(|claim| claim.replay),
            answer_lost: claim.map(|claim| claim.answer_lost),
        }
    }
}

/// The columns of a session's token pair. All are NULL if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairColumns<'a> {
    /// [`SealedPair::generation`].
    pub generation: Option<i64>,
    /// [`SealedPair::access`].
    pub access: Option<&'a [u8]>,
    /// [`SealedPair::refresh`].
    pub refresh: Option<&'a [u8]>,
    /// The first column of [`SealedPair::expiry`].
    pub expiry: Option<&'static str>,
    /// The second column of [`SealedPair::expiry`].
    pub expires_at: Option<i64>,
}

impl<'a> PairColumns<'a> {
    /// Returns the columns of this session's pair.
    ///
    /// # Errors
    /// See [`version_column`].
    pub fn of(session: &'a Session) -> Result<Self, StoreError> {
        let pair = session.pair();
        let (expiry, expires_at) = pair.map(|pair| expiry_columns(pair.expiry)).unzip();
        Ok(Self {
            generation: pair.map(|pair| version_column(pair.generation)).transpose()?,
            access: pair.map(|pair| pair.access.0.as_slice()),
            refresh: pair.and_then(|pair| pair.refresh.as_ref()).map(|refresh| refresh.0.as_slice()),
            expiry,
            expires_at: expires_at.flatten(),
        })
    }
}

/// Reads a session: `id`, `version`, `provider`, `subject_id`, `display_name`, `secret_hash`,
/// `custody`, `device`, `created_at`, `last_seen_at`, `state`, `proven_at`; its pair: `generation`,
/// `access`, `refresh`, `expiry`, `expires_at`; the claim on it: attempt, `taken_at`,
/// `lease_until`, `fingerprint`, `replay`, `answer_lost`; `end_reason`, `ended_at`.
///
/// # Errors
/// [`StoreError::Corrupt`] if no session has these columns.
pub fn session(columns: &mut impl ColumnReader) -> Result<Session, StoreError> {
    Ok(Session {
        id: columns.session_id()?,
        version: columns.version()?,
        subject: subject(columns)?,
        display_name: columns.text()?,
        secret_hash: SecretHash(columns.octets()?),
        custody: columns.required(|columns| columns.name(Custody::from_name))?,
        device: DeviceLabel::new(&columns.text()?),
        created_at: columns.time()?,
        last_seen_at: columns.time()?,
        state: state(columns)?,
    })
}

fn subject(columns: &mut impl ColumnReader) -> Result<Subject, StoreError> {
    Ok(Subject { provider: ProviderName(columns.text()?), id: columns.text()? })
}

fn state(columns: &mut impl ColumnReader) -> Result<State, StoreError> {
    let first = columns.position();
    let code = columns.code()?;
    let open: Option<fn(ActiveState) -> State> = match code {
        LIVE => Some(State::Live),
        PARKED => Some(State::Parked),
        SUSPECT => Some(State::Suspect),
        ENDED => None,
        _ => return Err(columns.damage(first)),
    };
    let proven = columns.position();
    let proven_at = columns.maybe_time()?;
    let pair = pair(columns)?;
    let claim = claim(columns)?;
    let end = columns.position();
    let reason = columns.name(EndReason::from_name)?;
    let at = columns.maybe_time()?;
    match (open, proven_at, reason, at) {
        (Some(open), Some(proven_at), None, None) => Ok(open(ActiveState { pair, proven_at, claim })),
        (None, None, Some(reason), Some(at)) => Ok(State::Ended { reason, at }),
        (Some(_), None, ..) | (None, Some(_), ..) => Err(columns.damage(proven)),
        _ => Err(columns.damage(end)),
    }
}

fn pair(columns: &mut impl ColumnReader) -> Result<Option<SealedPair>, StoreError> {
    let first = columns.position();
    let generation = columns.integer()?;
    let access = columns.blob()?;
    let refresh = columns.blob()?;
    let expiry = expiry(columns)?;
    match (generation, access, expiry) {
        (Some(generation), Some(access), Some(expiry)) => Ok(Some(SealedPair {
            generation: Version(u64::try_from(generation).map_err(|_| columns.damage(first))?),
            access: SealedBlob(access),
            refresh: refresh.map(SealedBlob),
            expiry,
        })),
        (None, None, None) if refresh.is_none() => Ok(None),
        _ => Err(columns.damage(first)),
    }
}

fn expiry(columns: &mut impl ColumnReader) -> Result<Option<Expiry>, StoreError> {
    let first = columns.position();
    let kind = columns.name(|kind| [AT, UNKNOWN, NEVER].into_iter().find(|known| *known == kind))?;
    match (kind, columns.maybe_time()?) {
        (None, None) => Ok(None),
        (Some(AT), Some(at)) => Ok(Some(Expiry::At(at))),
        (Some(UNKNOWN), None) => Ok(Some(Expiry::Unknown)),
        (Some(NEVER), None) => Ok(Some(Expiry::Never)),
        _ => Err(columns.damage(first)),
    }
}

fn claim(columns: &mut impl ColumnReader) -> Result<Option<Claim>, StoreError> {
    let first = columns.position();
    let (attempt, taken_at, lease_until) = (columns.id()?, columns.maybe_time()?, columns.maybe_time()?);
    let (fingerprint, replay, answer_lost) = (columns.id()?, columns.flag()?, columns.flag()?);
    match (attempt, taken_at, lease_until, fingerprint, replay, answer_lost) {
        (Some(attempt), Some(taken_at), Some(lease_until), Some(fingerprint), Some(replay), Some(lost)) => {
            let (attempt, fingerprint) = (AttemptId(attempt), Fingerprint(fingerprint));
            Ok(Some(Claim { attempt, taken_at, lease_until, fingerprint, replay, answer_lost: lost }))
        }
        (None, None, None, None, None, None) => Ok(None),
        _ => Err(columns.damage(first)),
    }
}

/// Returns the column `wheel` of a slot.
pub const fn sweep_column(sweep: SweepKind) -> i16 {
    match sweep {
        SweepKind::Validation => 0,
        SweepKind::Connections => 1,
    }
}

/// Reads the id of an item: of a revocation `id`, of a suspicion `key`, of a slot `slot`.
///
/// # Errors
/// [`StoreError::Corrupt`] if the queue has no such id.
pub fn item_id(queue: Queue, columns: &mut impl ColumnReader) -> Result<ItemId, StoreError> {
    Ok(match queue {
        Queue::Revocations => ItemId::Revocation(RevocationId(columns.required(ColumnReader::integer)?)),
        Queue::Suspicions => ItemId::Suspicion(SuspicionKey(columns.octets()?)),
        Queue::Slots(sweep) => {
            let column = columns.position();
            let slot = u16::try_from(columns.code()?).ok().and_then(Slot::new);
            ItemId::Slot(sweep, slot.ok_or_else(|| columns.damage(column))?)
        }
    })
}

/// Reads `wheel` and `slot`.
///
/// # Errors
/// [`StoreError::Corrupt`] if there is no such slot.
pub fn slot_id(columns: &mut impl ColumnReader) -> Result<ItemId, StoreError> {
    let (column, code) = (columns.position(), columns.code()?);
    let sweep = SweepKind::ALL.into_iter().find(|sweep| sweep_column(*sweep) == code);
    item_id(Queue::Slots(sweep.ok_or_else(|| columns.damage(column))?), columns)
}

/// Reads an item, without its id: of a revocation `session`, `generation`, `provider`, `access`,
/// `refresh`, `expiry`, `expires_at`, `owed_at`; of a suspicion `provider`, `subject_id`, `at`,
/// `cause`, `noted_at`; of a slot nothing.
fn item(id: ItemId, columns: &mut impl ColumnReader) -> Result<Item, StoreError> {
    Ok(match id {
        ItemId::Revocation(_) => Item::Revocation(PendingRevocation {
            session: columns.session_id()?,
            generation: columns.version()?,
            provider: ProviderName(columns.text()?),
            access: SealedBlob(columns.required(ColumnReader::blob)?),
            refresh: columns.blob()?.map(SealedBlob),
            expiry: columns.required(expiry)?,
            pending_since: columns.time()?,
        }),
        ItemId::Suspicion(key) => Item::Suspicion {
            key,
            suspicion: Suspicion {
                subject: subject(columns)?,
                at: columns.time()?,
                cause: columns.required(|columns| columns.name(Cause::from_name))?,
            },
            noted_at: columns.time()?,
        },
        ItemId::Slot(_, slot) => Item::Slot(slot),
    })
}

/// Reads what `holder` took: the columns of the item after its id; `tries`, but not of a slot; and
/// `due_at`.
///
/// # Errors
/// [`StoreError::Corrupt`] if no item has these columns.
pub fn lease(
    id: ItemId,
    holder: AttemptId,
    columns: &mut impl ColumnReader,
) -> Result<Lease<Item>, StoreError> {
    Ok(Lease { id, item: item(id, columns)?, holder, tries: tries(id, columns)?, due_at: columns.time()? })
}

/// Reads an item as it is stored: the columns of [`lease`], `holder`, and of a slot `lease_until`.
///
/// # Errors
/// See [`lease`].
pub fn stored_item(id: ItemId, columns: &mut impl ColumnReader) -> Result<Record, StoreError> {
    Ok(Record::Item(StoredItem {
        id,
        item: item(id, columns)?,
        tries: tries(id, columns)?,
        due_at: match id {
            ItemId::Suspicion(_) => columns.maybe_time()?,
            ItemId::Revocation(_) | ItemId::Slot(..) => Some(columns.time()?),
        },
        holder: columns.holder()?,
        lease_until: match id {
            ItemId::Slot(..) => columns.time()?,
            ItemId::Revocation(_) | ItemId::Suspicion(_) => Timestamp::EPOCH,
        },
    }))
}

fn tries(id: ItemId, columns: &mut impl ColumnReader) -> Result<u32, StoreError> {
    if matches!(id, ItemId::Slot(..)) {
        return Ok(0);
    }
    let column = columns.position();
    u32::try_from(columns.count()?).map_err(|_| columns.damage(column))
}

/// Reads the numbers of live, parked and suspect sessions, the oldest proof of a live one, and the
/// numbers of claims in flight and of ambiguous claims.
///
/// # Errors
/// [`StoreError::Corrupt`] if these are not such numbers.
pub fn session_counts(columns: &mut impl ColumnReader) -> Result<SessionCounts, StoreError> {
    Ok(SessionCounts {
        live: columns.count()?,
        parked: columns.count()?,
        suspect: columns.count()?,
        oldest_proof: columns.maybe_time()?,
        claims: Claims { in_flight: columns.count()?, ambiguous: columns.count()? },
    })
}

/// Reads how blobs begin, and the numbers of sessions and of revocations that hold one.
///
/// # Errors
/// [`StoreError::Corrupt`] if these are not such numbers.
pub fn key_id_count(columns: &mut impl ColumnReader) -> Result<KeyIdCount, StoreError> {
    let head = SealedBlob(columns.required(ColumnReader::blob)?).head();
    Ok(KeyIdCount { head, sessions: columns.count()?, revocations: columns.count()? })
}

/// Reads how many items wait in a queue, and since when the oldest does.
///
/// # Errors
/// [`StoreError::Corrupt`] if this is not such a number.
pub fn backlog(columns: &mut impl ColumnReader) -> Result<Backlog, StoreError> {
    Ok(Backlog { count: columns.count()?, oldest: columns.maybe_time()? })
}

/// Reads the number of a table's rows, and of parts of rows that belong to no row.
///
/// # Errors
/// [`StoreError::Corrupt`] if these are not such numbers.
pub fn table_count(columns: &mut impl ColumnReader) -> Result<Count, StoreError> {
    Ok(Count { rows: columns.count()?, strays: columns.count()? })
}

#[cfg(test)]
mod tests;
