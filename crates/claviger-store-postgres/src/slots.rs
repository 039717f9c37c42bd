//! The table of the visits to each slot.

use claviger_core::{ids::AttemptId, sweep::Slot, time::Timestamp};
use claviger_store::{Visit, Wheel};

use crate::{
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
        let slot = columns.read(|number: i16| Slot::new(u16::try_from(number).ok()?))?;
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
