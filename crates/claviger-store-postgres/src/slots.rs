//! The table of the visits to each slot.

use claviger_core::{ids::AttemptId, sweep::Slot, time::Timestamp};
use claviger_store::{
    StoreError, Visit, Wheel,
    archive::{Count, Found, Key, Record},
};
use tokio_postgres::Row;

use crate::{
    archive,
    database::{Link, bounds},
    error::Fault,
    values::{Columns, attempt_column, rows},
};

/// Visits to slots that hold at least one session that the wheel is for. The LIMIT has each slot looked into by itself, by
/// the index, in place of one walk through all sessions.
macro_rules! in_use {
    ($visits:literal, $state:literal) => {
        concat!(
            $visits,
            " AS v CROSS JOIN LATERAL (SELECT FROM claviger.pulse AS p WHERE p.slot = v.slot AND p.state ",
            $state,
            " LIMIT 1) AS used"
        )
    };
}

// What others are just taking is passed over.
macro_rules! take {
    ($wheel:literal, $state:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (SELECT v.slot FROM ",
            in_use!("claviger.slot", $state),
            " WHERE v.wheel = ",
            $wheel,
            " AND v.due_at <= $1 AND v.lease_until <= $1 ORDER BY v.due_at, v.slot LIMIT $2 FOR UPDATE OF v SKIP LOCKED)
            UPDATE claviger.slot AS v SET lease_until = $3, holder = $4 FROM due
            WHERE v.wheel = ",
            $wheel,
            " AND v.slot = due.slot RETURNING v.slot, v.due_at"
        )
    };
}

const TAKE_TO_VALIDATE: &str = take!("0", "= 0");
const TAKE_TO_PROBE: &str = take!("1", "< 3");

macro_rules! longest {
    ($wheel:literal, $state:literal) => {
        concat!(
            "SELECT v.due_at FROM ",
            in_use!(
                "(SELECT slot, due_at FROM claviger.slot WHERE wheel = $1 ORDER BY due_at OFFSET 0)",
                $state
            ),
            " ORDER BY v.due_at LIMIT 1"
        )
    };
}

const LONGEST_TO_VALIDATE: &str = longest!("0", "= 0");
const LONGEST_TO_PROBE: &str = longest!("1", "< 3");

const HOLD: &str = "UPDATE claviger.slot SET lease_until = $3 WHERE wheel = $1 AND slot = $2 AND holder = $4";
const LEAVE: &str = "UPDATE claviger.slot SET due_at = $3, lease_until = 0, holder = NULL
    WHERE wheel = $1 AND slot = $2 AND holder = $4";

/// Slots that were never visited, and are not leased, are as they were made.
macro_rules! is_new {
    () => {
        "due_at = 0 AND lease_until = 0 AND holder IS NULL"
    };
}

const PAGE: &str = concat!(
    "SELECT wheel, slot, due_at, lease_until, holder FROM claviger.slot
    WHERE (wheel, slot) > ($1, $2) AND NOT (",
    is_new!(),
    ") ORDER BY wheel, slot LIMIT $3"
);
const ADD: &str = concat!(
    "UPDATE claviger.slot SET due_at = $3, lease_until = $4, holder = $5 WHERE wheel = $1 AND slot = $2 AND ",
    is_new!()
);
const COUNT: &str = concat!("SELECT count(*), 0::bigint FROM claviger.slot WHERE NOT (", is_new!(), ")");

fn wheel_column(wheel: Wheel) -> i16 {
    match wheel {
        Wheel::Validation => 0,
        Wheel::Probe => 1,
    }
}

/// Slots count to 1023.
pub(crate) fn slot_column(slot: Slot) -> i16 {
    i16::try_from(slot.number()).unwrap_or(i16::MAX)
}

fn slot(column: i16) -> Option<Slot> {
    Slot::new(u16::try_from(column).ok()?)
}

pub(crate) async fn take(
    link: Link,
    wheel: Wheel,
    attempt: AttemptId,
    now: Timestamp,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<Visit>, Fault> {
    let sql = match wheel {
        Wheel::Validation => TAKE_TO_VALIDATE,
        Wheel::Probe => TAKE_TO_PROBE,
    };
    let bounds = bounds![
        INT8: now.as_millis(),
        INT8: rows(limit),
        INT8: lease_until.as_millis(),
        UUID: attempt_column(attempt),
    ];
    let mut visits = Vec::new();
    for row in link.query(sql, &bounds).await? {
        let mut columns = Columns::of(&row, "a slot");
        let slot = columns.read(slot)?;
        visits.push(Visit { slot, due_at: columns.time()? });
    }
    visits.sort_by_key(|visit| (visit.due_at, visit.slot));
    Ok(visits)
}

pub(crate) async fn hold(
    link: Link,
    wheel: Wheel,
    slot: Slot,
    attempt: AttemptId,
    lease_until: Timestamp,
) -> Result<bool, Fault> {
    update(link, HOLD, wheel, slot, attempt, lease_until).await
}

pub(crate) async fn leave(
    link: Link,
    wheel: Wheel,
    slot: Slot,
    attempt: AttemptId,
    due_at: Timestamp,
) -> Result<bool, Fault> {
    update(link, LEAVE, wheel, slot, attempt, due_at).await
}

async fn update(
    link: Link,
    sql: &str,
    wheel: Wheel,
    slot: Slot,
    attempt: AttemptId,
    at: Timestamp,
) -> Result<bool, Fault> {
    let bounds = bounds![
        INT2: wheel_column(wheel),
        INT2: slot_column(slot),
        INT8: at.as_millis(),
        UUID: attempt_column(attempt),
    ];
    Ok(link.execute(sql, &bounds).await? == 1)
}

pub(crate) async fn longest_due(link: Link, wheel: Wheel) -> Result<Option<Timestamp>, Fault> {
    let sql = match wheel {
        Wheel::Validation => LONGEST_TO_VALIDATE,
        Wheel::Probe => LONGEST_TO_PROBE,
    };
    let found = link.query(sql, &bounds![INT2: wheel_column(wheel)]).await?;
    found.first().map(|row| Columns::of(row, "a slot").time()).transpose()
}

/// All slots that are not as they were made, from the one after `after` on.
pub(crate) async fn page(
    link: Link,
    after: Option<(Wheel, Slot)>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let (wheel, number) = after.map_or((-1, 0), |(wheel, slot)| (wheel_column(wheel), slot_column(slot)));
    let found = link.query(PAGE, &bounds![INT2: wheel, INT2: number, INT8: rows(limit)]).await?;
    let whole = |row: &Row| {
        let mut columns = Columns::of(row, "a slot");
        let wheel = columns.read(|column| Wheel::ALL.into_iter().find(|of| wheel_column(*of) == column))?;
        let slot = columns.read(slot)?;
        let record = decode(&mut columns, wheel, slot).map_err(StoreError::from);
        Ok(Found::of(Key::Slot(wheel, slot), record)?)
    };
    found.iter().map(whole).collect()
}

fn decode(columns: &mut Columns<'_>, wheel: Wheel, slot: Slot) -> Result<Record, Fault> {
    let (due_at, lease_until) = (columns.time()?, columns.time()?);
    Ok(Record::Slot { wheel, slot, due_at, lease_until, holder: columns.holder()? })
}

/// Sets how a slot stands that is as it was made. False if it is not.
pub(crate) async fn add(
    link: &Link,
    (wheel, slot): (Wheel, Slot),
    due_at: Timestamp,
    lease_until: Timestamp,
    holder: Option<AttemptId>,
) -> Result<bool, Fault> {
    let bounds = bounds![
        INT2: wheel_column(wheel),
        INT2: slot_column(slot),
        INT8: due_at.as_millis(),
        INT8: lease_until.as_millis(),
        UUID: holder.map(attempt_column),
    ];
    Ok(link.execute(ADD, &bounds).await? == 1)
}

pub(crate) async fn count(link: Link) -> Result<Count, Fault> {
    archive::count_by(&link, COUNT).await
}
