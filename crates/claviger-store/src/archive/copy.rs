//! Copies all rows of one store into another, and compares the two.
//!
//! Rows are copied table by table in the order of their keys, so what a copy leaves behind that was cut short is a beginning of
//! each table. A copy begins with comparing that: if the destination holds anything but a beginning of what the source
//! holds, it is refused and not touched. Otherwise the copy goes on where the beginning ends. No row is ever
//! overwritten (invariants MONO, ENDED).

use std::{cmp::Ordering, fmt, vec};

use claviger_core::ids::Version;

use super::{
    Archive, Digest, Found, Key, MARKER, Record, Reservation, ReserveError, Side, Table, digest::Digester,
};
use crate::{Memo, StoreError};

/// So many rows are read at a time, and added in one step.
const BATCH: usize = 1000;
/// So many rows are compared between two words on how far it is.
const COMPARED_BETWEEN_WORDS: u64 = 1000;

pub(super) const UNDER_WAY: &[u8] = b"under way";
pub(super) const DONE: &[u8] = b"done";

/// How to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CopyOptions {
    /// Whether rows of the source that cannot be read are left behind. Otherwise the first of them ends the copy.
    pub skip_damaged: bool,
}

/// What a copy is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Compares what the destination holds already.
    Check,
    /// Copies.
    Copy,
    /// Reads both stores and compares them.
    Verify,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is at.
    pub step: Step,
    /// Where.
    pub table: Table,
    /// So many rows of the table are done.
    pub done: u64,
    /// Of so many.
    pub of: u64,
}

/// What is told while a copy runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// How far it is.
    Progress(Progress),
    /// A row of the source is left behind, because it cannot be read.
    LeftBehind {
        /// Which.
        key: Key,
        /// What is wrong with it.
        what: String,
    },
}

/// What two stores were found to hold, both of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of each table.
    pub sums: Vec<Sum>,
    /// Whether all of it was there before.
    pub was_done: bool,
}

/// What a table was found to hold, in both stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Which table.
    pub table: Table,
    /// So many rows.
    pub rows: u64,
    /// Of these rows.
    pub digest: Digest,
    /// So many rows of the source cannot be read and are not in the destination.
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

/// How the destination's row differs from the source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// The destination lacks it.
    Missing,
    /// The source lacks it.
    Foreign,
    /// It was changed in the destination since.
    Newer,
    /// It was changed in the source since.
    Older,
    /// Something in it is not the same.
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

/// Why stores were not copied, or are not the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// A store could not do it. The copy goes on when it is begun again.
    #[error("the {side}: {error}")]
    Store {
        /// Which.
        side: Side,
        /// Why.
        error: StoreError,
    },
    /// Somebody is at one of the stores.
    #[error("the {side} cannot be had alone: {error}")]
    Reserve {
        /// Which.
        side: Side,
        /// Why.
        error: ReserveError,
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
    /// There are parts of rows that belong to none.
    #[error("the {side} is damaged: among its {} are {rows} parts of rows that belong to none", .table.name())]
    Strays {
        /// Where.
        side: Side,
        /// In which table.
        table: Table,
        /// How many.
        rows: u64,
    },
    /// The source lacks rows, because a copy into it was not finished.
    #[error("the source is itself the destination of a copy that was not finished, so it lacks rows")]
    UnfinishedSource,
    /// The destination is not empty, and not what a copy of this source leaves behind. Nothing was changed.
    #[error("the destination holds something else than a part of the source: {0}. Nothing was changed in it")]
    Occupied(Difference),
    /// The copy was finished before, and the two are not the same any more. Nothing was changed.
    #[error(
        "a copy into this destination was finished before, and since then the two differ: {0}. Nothing was changed"
    )]
    Finished(Difference),
    /// The rows of both stores are equal one by one, and their checksums are not. This is a fault of ours.
    #[error("the two stores are not the same: the checksums of their {} differ", .0.name())]
    Checksum(Table),
    /// The two stores are not the same.
    #[error("the two stores are not the same: among the {}, {difference}", .difference.key.table().name())]
    Unequal {
        /// In what.
        difference: Difference,
    },
}

/// Copies all that is in one store into another, and then compares them. Begun again after it was cut short, it goes on where it
/// stood.
///
/// # Errors
/// [`CopyError`]. A copy that was begun and not finished leaves a mark in the destination ([`super::is_unfinished`]), so that
/// nobody serves from it.
pub async fn copy(
    from: &dyn Archive,
    to: &dyn Archive,
    options: CopyOptions,
    tell: &mut (dyn FnMut(Told) + Send),
) -> Result<Report, CopyError> {
    let kept = Kept::of_both(from, to).await?;
    refuse_unfinished(from).await?;
    let mut work = Work { from, to, options, tell };
    let marker = to.memo(MARKER).await.map_err(of(Side::Destination))?;
    if marker.as_ref().is_some_and(|marker| marker.value == DONE) {
        let report = work.verify_again().await?;
        kept.until_now().await?;
        return Ok(report);
    }
    let begun = work.check().await?;
    mark(to, marker.as_ref(), UNDER_WAY).await?;
    // One that started before there was a mark to refuse it, and after others were looked for.
    kept.destination.is_alone().await.map_err(kept_of(Side::Destination))?;
    for (table, place) in Table::ALL.into_iter().zip(begun) {
        work.copy(table, place).await?;
    }
    to.prepare_to_serve().await.map_err(of(Side::Destination))?;
    let sums = work.verify().await?;
    kept.until_now().await?;
    let marker = to.memo(MARKER).await.map_err(of(Side::Destination))?;
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
    let kept = Kept::of_both(from, to).await?;
    let sums = Work { from, to, options, tell }.verify().await?;
    kept.until_now().await?;
    Ok(Report { sums, was_done: true })
}

/// Keeps others away from both stores.
struct Kept {
    source: Reservation,
    destination: Reservation,
}

impl Kept {
    async fn of_both(from: &dyn Archive, to: &dyn Archive) -> Result<Self, CopyError> {
        let source = from.reserve(Side::Source).await.map_err(kept_of(Side::Source))?;
        let destination = to.reserve(Side::Destination).await.map_err(kept_of(Side::Destination))?;
        Ok(Self { source, destination })
    }

    /// Whether what was read since can be believed.
    async fn until_now(&self) -> Result<(), CopyError> {
        self.source.has_kept().await.map_err(kept_of(Side::Source))?;
        self.destination.has_kept().await.map_err(kept_of(Side::Destination))
    }
}

fn kept_of(side: Side) -> impl Fn(ReserveError) -> CopyError {
    move |error| CopyError::Reserve { side, error }
}

async fn refuse_unfinished(from: &dyn Archive) -> Result<(), CopyError> {
    let marker = from.memo(MARKER).await.map_err(of(Side::Source))?;
    if super::is_unfinished(marker.as_ref()) { Err(CopyError::UnfinishedSource) } else { Ok(()) }
}

/// Keeps in the destination how the copy stands, if it does not say so already.
async fn mark(to: &dyn Archive, marker: Option<&Memo>, value: &[u8]) -> Result<(), CopyError> {
    if marker.is_some_and(|marker| marker.value == value) {
        return Ok(());
    }
    let version = marker.map_or(Version::FIRST, |marker| marker.version.next());
    let memo = Memo { version, value: value.to_vec() };
    if to.put_memo(MARKER, &memo).await.map_err(of(Side::Destination))? {
        return Ok(());
    }
    let error = ReserveError::InUse("another copy into it is under way".to_owned());
    Err(CopyError::Reserve { side: Side::Destination, error })
}

fn of(side: Side) -> impl Fn(StoreError) -> CopyError {
    move |error| CopyError::Store { side, error }
}

/// Where the copy of a table begins.
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

    /// Compares what is in the destination with the beginning of each table of the source, before anything is changed.
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
            // They were named by the copy that went by here, but perhaps to nobody who still has it.
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

    /// After a copy that was finished before.
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

/// In what two rows of the same place differ.
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

/// Which of two rows of one key is newer, if that can be told.
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
                Some(Found::Record(Record::Memo { name, .. })) if name == MARKER => {}
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

    /// Whether one of the next rows has this key.
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

    /// The next rows that can be read. None: there are no more.
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
