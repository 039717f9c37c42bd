//! Copies all rows of one store into another, and compares the two.
//!
//! Rows are copied table by table in the order of their keys, so an interrupted copy leaves the
//! first rows of each table. A copy compares these first. If the destination holds anything but the
//! first rows of the source's tables, it is refused and not changed. Otherwise the copy continues
//! after them. No row is ever overwritten (invariants MONO, ENDED).

use std::{cmp::Ordering, fmt, vec};

use claviger_core::Version;

use super::{
    Archive, Digest, Found, Key, MARKER, MaintenanceLock, MaintenanceLockError, Record, Side, Table,
    digest::Digester,
};
use crate::{SharedEntry, StoreError};

/// Number of rows that are read at a time, and added in one step.
const BATCH: usize = 1000;
/// Number of rows compared between two reports of progress.
const COMPARED_BETWEEN_WORDS: u64 = 1000;

pub(super) const UNDER_WAY: &[u8] = b"under way";
pub(super) const DONE: &[u8] = b"done";

/// How to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CopyOptions {
    /// Whether to skip rows of the source that cannot be read. Otherwise the first of them ends the
    /// copy.
    pub skip_damaged: bool,
}

/// A step of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Comparing the rows that the destination already holds.
    Check,
    /// Copying rows.
    Copy,
    /// Reading and comparing both stores.
    Verify,
}

/// The progress of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The current step.
    pub step: Step,
    /// The current table.
    pub table: Table,
    /// Number of rows of the table that are done.
    pub done: u64,
    /// Number of rows of the table in all.
    pub of: u64,
}

/// A message while a copy runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Its progress.
    Progress(Progress),
    /// A row of the source is skipped, because it cannot be read.
    LeftBehind {
        /// Which.
        key: Key,
        /// What is wrong with it.
        what: String,
    },
}

/// What both stores hold after a copy or a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The sum of each table.
    pub sums: Vec<Sum>,
    /// Whether the destination held everything before.
    pub was_done: bool,
}

/// What a table holds in both stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The table.
    pub table: Table,
    /// Number of rows.
    pub rows: u64,
    /// The checksum of these rows.
    pub digest: Digest,
    /// Number of rows of the source that cannot be read and are not in the destination.
    pub left_behind: u64,
}

/// The first row in which two stores differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which row.
    pub key: Key,
    /// How.
    pub how: Differs,
}

/// How a row of the destination differs from the source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// The destination lacks it.
    Missing,
    /// The source lacks it.
    Foreign,
    /// It was changed later in the destination.
    Newer,
    /// It was changed later in the source.
    Older,
    /// Its content differs.
    Content,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, how } = self;
        match how {
            Differs::Missing => write!(f, "{key} is missing in the destination"),
            Differs::Foreign => write!(f, "{key} is in the destination and not in the source"),
            Differs::Newer => {
                write!(f, "{key} is newer in the destination: a gateway has served from there already")
            }
            Differs::Older => {
                write!(f, "{key} is newer in the source: a gateway has served from there since it was copied")
            }
            Differs::Content => write!(f, "{key} is not the same in both"),
        }
    }
}

/// Why a copy failed, or how two stores differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// A store failed. Running the copy again continues it.
    #[error("the {side}: {error}")]
    Store {
        /// Which.
        side: Side,
        /// Why.
        error: StoreError,
    },
    /// One of the stores is in use.
    #[error("the {side} cannot be reserved: {error}")]
    Lock {
        /// Which.
        side: Side,
        /// Why.
        error: MaintenanceLockError,
    },
    /// A row cannot be read.
    #[error("the {side} is damaged: {key} cannot be read ({what})")]
    Damaged {
        /// Where.
        side: Side,
        /// Which row.
        key: Key,
        /// What is wrong with it.
        what: String,
    },
    /// There are parts of rows that belong to no row.
    #[error("the {side} is damaged: among its {} are {rows} parts of rows that belong to no row", .table.name())]
    Strays {
        /// Where.
        side: Side,
        /// In which table.
        table: Table,
        /// How many.
        rows: u64,
    },
    /// The source lacks rows, because a copy into it is not finished.
    #[error("the source is itself the destination of a copy that was not finished, so it lacks rows")]
    UnfinishedSource,
    /// The destination holds rows that are not from a copy of this source. Nothing was changed.
    #[error(
        "the destination holds something other than a part of the source: {0}. Nothing was changed in it"
    )]
    Occupied(Difference),
    /// The copy was finished before, and the stores have differed since. Nothing was changed.
    #[error(
        "a copy into this destination was finished before, and since then the two differ: {0}. Nothing was changed"
    )]
    Finished(Difference),
    /// All rows are equal and the checksums are not. This is a bug in this program.
    #[error("the two stores are not the same: the checksums of their {} differ", .0.name())]
    Checksum(Table),
    /// The two stores differ.
    #[error("the two stores are not the same: among the {}, {difference}", .difference.key.table().name())]
    Unequal {
        /// In what.
        difference: Difference,
    },
}

/// Copies everything in one store into another, and then compares them. After an interruption, it
/// continues where it stopped.
///
/// # Errors
/// [`CopyError`]. An unfinished copy leaves a mark in the destination ([`super::is_unfinished`]),
/// so that no gateway serves from it.
pub async fn copy(
    from: &dyn Archive,
    to: &dyn Archive,
    options: CopyOptions,
    tell: &mut (dyn FnMut(Told) + Send),
) -> Result<Report, CopyError> {
    let locks = BothLocks::take(from, to).await?;
    refuse_unfinished(from).await?;
    let mut work = Work { from, to, options, tell };
    let marker = to.shared_entry(MARKER).await.map_err(of(Side::Destination))?;
    if marker.as_ref().is_some_and(|marker| marker.value == DONE) {
        let report = work.verify_again().await?;
        locks.check_held().await?;
        return Ok(report);
    }
    let begun = work.check().await?;
    mark(to, marker.as_ref(), UNDER_WAY).await?;
    // A gateway may have started after the first check and before the mark was there to refuse it.
    locks.destination.check_no_gateways().await.map_err(lock_failed(Side::Destination))?;
    for (table, place) in Table::ALL.into_iter().zip(begun) {
        work.copy(table, place).await?;
    }
    to.prepare_to_serve().await.map_err(of(Side::Destination))?;
    let sums = work.verify().await?;
    locks.check_held().await?;
    let marker = to.shared_entry(MARKER).await.map_err(of(Side::Destination))?;
    mark(to, marker.as_ref(), DONE).await?;
    Ok(Report { sums, was_done: false })
}

/// Compares two stores and changes nothing.
///
/// # Errors
/// [`CopyError`].
pub async fn verify(
    from: &dyn Archive,
    to: &dyn Archive,
    options: CopyOptions,
    tell: &mut (dyn FnMut(Told) + Send),
) -> Result<Report, CopyError> {
    let locks = BothLocks::take(from, to).await?;
    let sums = Work { from, to, options, tell }.verify().await?;
    locks.check_held().await?;
    Ok(Report { sums, was_done: true })
}

/// Keeps others away from both stores.
struct BothLocks {
    source: MaintenanceLock,
    destination: MaintenanceLock,
}

impl BothLocks {
    async fn take(from: &dyn Archive, to: &dyn Archive) -> Result<Self, CopyError> {
        let source = from.lock_for_maintenance(Side::Source).await.map_err(lock_failed(Side::Source))?;
        let destination =
            to.lock_for_maintenance(Side::Destination).await.map_err(lock_failed(Side::Destination))?;
        Ok(Self { source, destination })
    }

    /// Checks that nothing changed while the rows were read.
    async fn check_held(&self) -> Result<(), CopyError> {
        self.source.check_held().await.map_err(lock_failed(Side::Source))?;
        self.destination.check_held().await.map_err(lock_failed(Side::Destination))
    }
}

fn lock_failed(side: Side) -> impl Fn(MaintenanceLockError) -> CopyError {
    move |error| CopyError::Lock { side, error }
}

async fn refuse_unfinished(from: &dyn Archive) -> Result<(), CopyError> {
    let marker = from.shared_entry(MARKER).await.map_err(of(Side::Source))?;
    if super::is_unfinished(marker.as_ref()) { Err(CopyError::UnfinishedSource) } else { Ok(()) }
}

/// Writes the state of the copy into the destination, if it changed.
async fn mark(to: &dyn Archive, marker: Option<&SharedEntry>, value: &[u8]) -> Result<(), CopyError> {
    if marker.is_some_and(|marker| marker.value == value) {
        return Ok(());
    }
    let version = marker.map_or(Version::FIRST, |marker| marker.version.next());
    let entry = SharedEntry { version, value: value.to_vec() };
    if to.put_shared_entry(MARKER, &entry).await.map_err(of(Side::Destination))? {
        return Ok(());
    }
    let error = MaintenanceLockError::InUse("another copy into it is under way".to_owned());
    Err(CopyError::Lock { side: Side::Destination, error })
}

fn of(side: Side) -> impl Fn(StoreError) -> CopyError {
    move |error| CopyError::Store { side, error }
}

/// Where the copy of a table continues.
struct Place {
    after: Option<Key>,
    done: u64,
}

struct Work<'a> {
    from: &'a dyn Archive,
    to: &'a dyn Archive,
    options: CopyOptions,
    tell: &'a mut (dyn FnMut(Told) + Send),
}

impl Work<'_> {
    async fn rows(&self, archive: &dyn Archive, side: Side, table: Table) -> Result<u64, CopyError> {
        let count = archive.count(table).await.map_err(of(side))?;
        if count.strays > 0 && (side == Side::Destination || !self.options.skip_damaged) {
            return Err(CopyError::Strays { side, table, rows: count.strays });
        }
        Ok(count.rows)
    }

    fn progress(&mut self, step: Step, table: Table, done: u64, of: u64) {
        (self.tell)(Told::Progress(Progress { step, table, done, of }));
    }

    fn name_left_behind(&mut self, reader: &mut Reader<'_>) {
        for (key, what) in reader.left_behind.drain(..) {
            (self.tell)(Told::LeftBehind { key, what });
        }
    }

    /// Compares the destination with the first rows of each table of the source, before anything is
    /// changed.
    async fn check(&mut self) -> Result<Vec<Place>, CopyError> {
        let mut places = Vec::new();
        for table in Table::ALL {
            places.push(self.check_table(table).await?);
        }
        Ok(places)
    }

    async fn check_table(&mut self, table: Table) -> Result<Place, CopyError> {
        let held = self.rows(self.to, Side::Destination, table).await?;
        let (from, to) = (self.from, self.to);
        let mut ours = Reader::new(from, Side::Source, table, None, self.options.skip_damaged);
        let mut theirs = Reader::new(to, Side::Destination, table, None, false);
        let mut place = Place { after: None, done: 0 };
        while let Some(their) = theirs.next().await? {
            let our = ours.next().await?;
            if let Some(difference) = difference(our.as_ref(), Some(&their)) {
                let foreign = difference.how == Differs::Missing && !ours.comes_to(&their.key()).await?;
                let foreign = foreign.then(|| Difference { key: their.key(), how: Differs::Foreign });
                return Err(CopyError::Occupied(foreign.unwrap_or(difference)));
            }
            // The interrupted copy named them, but its output may be lost.
            self.name_left_behind(&mut ours);
            place = Place { after: Some(their.key()), done: place.done + 1 };
            if place.done.is_multiple_of(COMPARED_BETWEEN_WORDS) {
                self.progress(Step::Check, table, place.done, held);
            }
        }
        Ok(place)
    }

    async fn copy(&mut self, table: Table, place: Place) -> Result<(), CopyError> {
        let rows = self.rows(self.from, Side::Source, table).await?;
        let mut done = place.done;
        let mut ours = Reader::new(self.from, Side::Source, table, place.after, self.options.skip_damaged);
        loop {
            let batch = ours.batch().await?;
            self.name_left_behind(&mut ours);
            if batch.is_empty() {
                return Ok(());
            }
            done += u64::try_from(batch.len()).unwrap_or(u64::MAX);
            self.to.add(batch).await.map_err(of(Side::Destination))?;
            self.progress(Step::Copy, table, done, rows);
        }
    }

    /// Compares the stores after a copy that was finished before.
    async fn verify_again(&mut self) -> Result<Report, CopyError> {
        match self.verify().await {
            Ok(sums) => Ok(Report { sums, was_done: true }),
            Err(CopyError::Unequal { difference }) => Err(CopyError::Finished(difference)),
            Err(error) => Err(error),
        }
    }

    async fn verify(&mut self) -> Result<Vec<Sum>, CopyError> {
        let mut sums = Vec::new();
        for table in Table::ALL {
            sums.push(self.verify_table(table).await?);
        }
        Ok(sums)
    }

    async fn verify_table(&mut self, table: Table) -> Result<Sum, CopyError> {
        let of = self.rows(self.from, Side::Source, table).await?;
        self.rows(self.to, Side::Destination, table).await?;
        let (from, to) = (self.from, self.to);
        let mut ours = Reader::new(from, Side::Source, table, None, self.options.skip_damaged);
        let mut theirs = Reader::new(to, Side::Destination, table, None, false);
        let (mut rows, mut left_behind) = (0_u64, 0);
        let (mut our_digest, mut their_digest) = (Digester::default(), Digester::default());
        loop {
            let (our, their) = (ours.next().await?, theirs.next().await?);
            if let Some(difference) = difference(our.as_ref(), their.as_ref()) {
                return Err(CopyError::Unequal { difference });
            }
            left_behind += u64::try_from(ours.left_behind.drain(..).count()).unwrap_or(u64::MAX);
            let (Some(our), Some(their)) = (our, their) else { break };
            our_digest.add(&our);
            their_digest.add(&their);
            rows += 1;
            if rows.is_multiple_of(COMPARED_BETWEEN_WORDS) {
                self.progress(Step::Verify, table, rows, of);
            }
        }
        let (digest, theirs) = (our_digest.finish(), their_digest.finish());
        if digest != theirs {
            return Err(CopyError::Checksum(table));
        }
        Ok(Sum { table, rows, digest, left_behind })
    }
}

/// How two rows at the same place differ.
fn difference(our: Option<&Record>, their: Option<&Record>) -> Option<Difference> {
    let (key, how) = match (our, their) {
        (None, None) => return None,
        (Some(our), None) => (our.key(), Differs::Missing),
        (None, Some(their)) => (their.key(), Differs::Foreign),
        (Some(our), Some(their)) => match our.key().cmp(&their.key()) {
            Ordering::Less => (our.key(), Differs::Missing),
            Ordering::Greater => (their.key(), Differs::Foreign),
            Ordering::Equal if our == their => return None,
            Ordering::Equal => (our.key(), age(our, their)),
        },
    };
    Some(Difference { key, how })
}

/// Which of two rows of one key is newer, if that is known.
fn age(our: &Record, their: &Record) -> Differs {
    let (Record::Session(our), Record::Session(their)) = (our, their) else { return Differs::Content };
    match (their.version, their.last_seen_at).cmp(&(our.version, our.last_seen_at)) {
        Ordering::Greater => Differs::Newer,
        Ordering::Less => Differs::Older,
        Ordering::Equal => Differs::Content,
    }
}

/// Reads the rows of a table, page by page.
struct Reader<'a> {
    archive: &'a dyn Archive,
    side: Side,
    table: Table,
    skip_damaged: bool,
    page: vec::IntoIter<Found>,
    after: Option<Key>,
    was_last: bool,
    left_behind: Vec<(Key, String)>,
}

impl<'a> Reader<'a> {
    fn new(
        archive: &'a dyn Archive,
        side: Side,
        table: Table,
        after: Option<Key>,
        skip_damaged: bool,
    ) -> Self {
        let (page, left_behind) = (Vec::new().into_iter(), Vec::new());
        Self { archive, side, table, skip_damaged, page, after, was_last: false, left_behind }
    }

    /// The next row that can be read.
    async fn next(&mut self) -> Result<Option<Record>, CopyError> {
        loop {
            match self.page.next() {
                Some(Found::Record(Record::SharedEntry { name, .. })) if name == MARKER => {}
                Some(Found::Record(record)) => return Ok(Some(record)),
                Some(Found::Damaged { key, what }) if self.skip_damaged => self.left_behind.push((key, what)),
                Some(Found::Damaged { key, what }) => {
                    return Err(CopyError::Damaged { side: self.side, key, what });
                }
                None if self.was_last => return Ok(None),
                None => self.turn().await?,
            }
        }
    }

    async fn turn(&mut self) -> Result<(), CopyError> {
        let page = self.archive.page(self.table, self.after.as_ref(), BATCH).await.map_err(of(self.side))?;
        self.was_last = page.len() < BATCH;
        self.after = page.last().map(Found::key).or(self.after.take());
        self.page = page.into_iter();
        Ok(())
    }

    /// Returns whether one of the next rows has this key.
    async fn comes_to(&mut self, key: &Key) -> Result<bool, CopyError> {
        while let Some(record) = self.next().await? {
            match record.key().cmp(key) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(true),
                Ordering::Greater => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The next rows that can be read. `None` if there are no more.
    async fn batch(&mut self) -> Result<Vec<Record>, CopyError> {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH
            && let Some(record) = self.next().await?
        {
            batch.push(record);
        }
        Ok(batch)
    }
}
