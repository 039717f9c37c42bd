//! The table of the visits to each slot.

use claviger_core::{ids::AttemptId, sweep::Slot, time::Timestamp};
use claviger_store::{
    Visit, Wheel,
    archive::{Count, Found, Key, Record},
};
use rusqlite::{Connection, params};

use crate::{
    archive::{count_by, page_of},
    error::Fault,
    sessions::rows,
    values::{Columns, millis},
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[
    DUE_TO_VALIDATE,
    DUE_TO_PROBE,
    LEASE,
    HOLD,
    LEAVE,
    LONGEST_TO_VALIDATE,
    LONGEST_TO_PROBE,
    PAGE,
    ADD,
    COUNT,
];

/// Visits to slots that hold at least one session that the wheel is for.
macro_rules! in_use {
    ($select:literal, $wheel:literal, $sessions:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $select,
            " FROM slot AS v WHERE v.wheel = ",
            $wheel,
            " AND EXISTS (SELECT 1 FROM pulse AS p INDEXED BY ",
            $sessions,
            ")",
            $rest
        )
    };
}

macro_rules! due {
    ($wheel:literal, $sessions:literal) => {
        in_use!(
            "v.slot, v.due_at",
            $wheel,
            $sessions,
            " AND v.due_at <= ?1 AND v.lease_until <= ?1 ORDER BY v.due_at, v.slot LIMIT ?2"
        )
    };
}

const DUE_TO_VALIDATE: &str = due!("0", "pulse_live WHERE p.slot = v.slot AND p.state = 0");
const DUE_TO_PROBE: &str = due!("1", "pulse_open WHERE p.slot = v.slot AND p.state < 3");
const LONGEST_TO_VALIDATE: &str = in_use!(
    "v.due_at",
    "0",
    "pulse_live WHERE p.slot = v.slot AND p.state = 0",
    " ORDER BY v.due_at LIMIT 1"
);
const LONGEST_TO_PROBE: &str = in_use!(
    "v.due_at",
    "1",
    "pulse_open WHERE p.slot = v.slot AND p.state < 3",
    " ORDER BY v.due_at LIMIT 1"
);
const LEASE: &str = "UPDATE slot SET lease_until = ?3, holder = ?4 WHERE wheel = ?1 AND slot = ?2";
const HOLD: &str = "UPDATE slot SET lease_until = ?3 WHERE wheel = ?1 AND slot = ?2 AND holder = ?4";
const LEAVE: &str = "UPDATE slot SET due_at = ?3, lease_until = 0, holder = NULL
    WHERE wheel = ?1 AND slot = ?2 AND holder = ?4";

/// Slots that were never visited, and are not leased, are as they were made.
macro_rules! is_new {
    () => {
        "due_at = 0 AND lease_until = 0 AND holder IS NULL"
    };
}

const PAGE: &str = concat!(
    "SELECT wheel, slot, due_at, lease_until, holder FROM slot
    WHERE (wheel, slot) > (?1, ?2) AND NOT (",
    is_new!(),
    ") ORDER BY wheel, slot LIMIT ?3"
);
const ADD: &str = concat!(
    "UPDATE slot SET due_at = ?3, lease_until = ?4, holder = ?5 WHERE wheel = ?1 AND slot = ?2 AND ",
    is_new!()
);
const COUNT: &str = concat!("SELECT count(*), 0 FROM slot WHERE NOT (", is_new!(), ")");

fn wheel_column(wheel: Wheel) -> i64 {
    match wheel {
        Wheel::Validation => 0,
        Wheel::Probe => 1,
    }
}

pub(crate) fn take(
    connection: &Connection,
    wheel: Wheel,
    attempt: AttemptId,
    now: Timestamp,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<Visit>, Fault> {
    let due = match wheel {
        Wheel::Validation => DUE_TO_VALIDATE,
        Wheel::Probe => DUE_TO_PROBE,
    };
    let mut statement = connection.prepare_cached(due)?;
    let mut found = statement.query(params![now.as_millis(), rows(limit)])?;
    let mut visits = Vec::new();
    while let Some(row) = found.next()? {
        let mut columns = Columns::of(row);
        visits.push(Visit { slot: columns.read(Slot::new)?, due_at: columns.time()? });
    }
    let mut lease = connection.prepare_cached(LEASE)?;
    for visit in &visits {
        lease.execute(params![
            wheel_column(wheel),
            visit.slot.number(),
            lease_until.as_millis(),
            attempt.0
        ])?;
    }
    Ok(visits)
}

pub(crate) fn hold(
    connection: &Connection,
    wheel: Wheel,
    slot: Slot,
    attempt: AttemptId,
    lease_until: Timestamp,
) -> Result<bool, Fault> {
    update(connection, HOLD, wheel, slot, attempt, lease_until)
}

pub(crate) fn leave(
    connection: &Connection,
    wheel: Wheel,
    slot: Slot,
    attempt: AttemptId,
    due_at: Timestamp,
) -> Result<bool, Fault> {
    update(connection, LEAVE, wheel, slot, attempt, due_at)
}

fn update(
    connection: &Connection,
    sql: &str,
    wheel: Wheel,
    slot: Slot,
    attempt: AttemptId,
    at: Timestamp,
) -> Result<bool, Fault> {
    let bounds = params![wheel_column(wheel), slot.number(), at.as_millis(), attempt.0];
    Ok(connection.prepare_cached(sql)?.execute(bounds)? == 1)
}

pub(crate) fn longest_due(connection: &Connection, wheel: Wheel) -> Result<Option<Timestamp>, Fault> {
    let sql = match wheel {
        Wheel::Validation => LONGEST_TO_VALIDATE,
        Wheel::Probe => LONGEST_TO_PROBE,
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([])?;
    Ok(found.next()?.map(|row| row.get(0)).transpose()?.map(millis))
}

/// All slots that are not as they were made, from the one after `after` on.
pub(crate) fn page(
    connection: &Connection,
    after: Option<(Wheel, Slot)>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let (wheel, slot) = after.map_or((-1, 0), |(wheel, slot)| (wheel_column(wheel), slot.number()));
    page_of(connection, PAGE, params![wheel, slot, rows(limit)], |columns| {
        let wheel =
            columns.read(|number: i64| Wheel::ALL.into_iter().find(|of| wheel_column(*of) == number))?;
        let slot = columns.read(Slot::new)?;
        Ok((Key::Slot(wheel, slot), decode(columns, wheel, slot)))
    })
}

fn decode(columns: &mut Columns<'_>, wheel: Wheel, slot: Slot) -> Result<Record, Fault> {
    let (due_at, lease_until) = (columns.time()?, columns.time()?);
    Ok(Record::Slot { wheel, slot, due_at, lease_until, holder: columns.holder()? })
}

/// Sets how a slot stands that is as it was made. False if it is not.
pub(crate) fn add(
    connection: &Connection,
    (wheel, slot): (Wheel, Slot),
    due_at: Timestamp,
    lease_until: Timestamp,
    holder: Option<AttemptId>,
) -> Result<bool, Fault> {
    let holder = holder.map(|holder| holder.0);
    let bounds =
        params![wheel_column(wheel), slot.number(), due_at.as_millis(), lease_until.as_millis(), holder];
    Ok(connection.prepare_cached(ADD)?.execute(bounds)? == 1)
}

pub(crate) fn count(connection: &Connection) -> Result<Count, Fault> {
    count_by(connection, COUNT)
}
