//! The queues: pending revocations in the table `owed`, suspicions in `suspicion`, and the visits
//! of the sweeps in `slot`.
//!
//! A statement gets the item's id first: `id`, `key` or `slot`. The sweep stands in the statement.

use claviger_core::{AttemptId, PendingRevocation, Timestamp};
use claviger_store::{
    Backlog, Item, ItemId, Lease, LeaseTerms, LeaseUpdate, Queue, RevocationId, StoreError, SuspicionKey,
    SweepKind,
    archive::{Found, Key, StoredItem},
    codec::{self, expiry_columns, sweep_column, version_column},
};
use rusqlite::{Connection, ToSql, params, params_from_iter, types::ToSqlOutput};

use crate::{
    error::Fault,
    values::{Columns, page_of, rows},
};

/// The statements of one queue.
pub(crate) struct Statements {
    /// Makes items due at ?1 that are due after ?2, and slots that are leased for longer than ?3.
    recall: &'static str,
    /// Items that are due at ?1, at most ?2, the longest due first.
    due: &'static str,
    /// Leases ?1 until ?2 to ?3.
    lease: &'static str,
    /// Extends the lease of ?1 until ?3, if ?2 has it.
    extend: &'static str,
    /// Puts ?1 off until ?3, if ?2 has it.
    reschedule: &'static str,
    /// Removes or closes ?1, if ?2 has it.
    acknowledge: Option<&'static str>,
    backlog: &'static str,
}

const REVOCATIONS: Statements = Statements {
    recall: "UPDATE owed SET due_at = ?1, holder = NULL WHERE due_at > ?2",
    due:
        "SELECT id, session, generation, provider, access, refresh, expiry, expires_at, owed_at, tries, due_at
        FROM owed WHERE due_at <= ?1 ORDER BY due_at, id LIMIT ?2",
    lease: "UPDATE owed SET due_at = ?2, holder = ?3 WHERE id = ?1",
    extend: "UPDATE owed SET due_at = ?3 WHERE id = ?1 AND holder = ?2",
    reschedule: "UPDATE owed SET due_at = ?3, holder = NULL, tries = tries + 1 WHERE id = ?1 AND holder = ?2",
    acknowledge: Some("DELETE FROM owed WHERE id = ?1 AND holder = ?2"),
    backlog: "SELECT count(*), min(owed_at) FROM owed",
};

const SUSPICIONS: Statements = Statements {
    recall: "UPDATE suspicion SET due_at = ?1, holder = NULL WHERE due_at > ?2",
    due: "SELECT key, provider, subject_id, at, cause, noted_at, tries, due_at
        FROM suspicion WHERE due_at <= ?1 ORDER BY due_at, key LIMIT ?2",
    lease: "UPDATE suspicion SET due_at = ?2, holder = ?3 WHERE key = ?1",
    extend: "UPDATE suspicion SET due_at = ?3 WHERE key = ?1 AND holder = ?2",
    reschedule: "UPDATE suspicion SET due_at = ?3, holder = NULL, tries = tries + 1 WHERE key = ?1 AND holder = ?2",
    acknowledge: Some("UPDATE suspicion SET due_at = NULL, holder = NULL WHERE key = ?1 AND holder = ?2"),
    backlog: "SELECT count(*), min(noted_at) FROM suspicion WHERE due_at IS NOT NULL",
};

/// The slots of a sweep ($sweep) that hold a session that it is for ($sessions).
macro_rules! slots {
    ($sweep:literal, $sessions:literal) => {
        Statements {
            recall: concat!(
                "UPDATE slot SET due_at = min(due_at, ?1), lease_until = 0, holder = NULL WHERE wheel = ",
                $sweep,
                " AND (due_at > ?2 OR lease_until > ?3)"
            ),
            due: concat!(
                "SELECT slot, due_at FROM slot AS v WHERE wheel = ",
                $sweep,
                " AND EXISTS (SELECT 1 FROM pulse AS p INDEXED BY ",
                $sessions,
                ") AND due_at <= ?1 AND lease_until <= ?1 ORDER BY due_at, slot LIMIT ?2"
            ),
            lease: concat!(
                "UPDATE slot SET lease_until = ?2, holder = ?3 WHERE wheel = ",
                $sweep,
                " AND slot = ?1"
            ),
            extend: concat!(
                "UPDATE slot SET lease_until = ?3 WHERE wheel = ",
                $sweep,
                " AND slot = ?1 AND holder = ?2"
            ),
            reschedule: concat!(
                "UPDATE slot SET due_at = ?3, lease_until = 0, holder = NULL WHERE wheel = ",
                $sweep,
                " AND slot = ?1 AND holder = ?2"
            ),
            acknowledge: None,
            backlog: concat!(
                "SELECT count(*), min(due_at) FROM slot AS v WHERE wheel = ",
                $sweep,
                " AND EXISTS (SELECT 1 FROM pulse AS p INDEXED BY ",
                $sessions,
                ")"
            ),
        }
    };
}

const VALIDATIONS: Statements = slots!("0", "pulse_live WHERE p.slot = v.slot AND p.state = 0");
const CONNECTION_CHECKS: Statements = slots!("1", "pulse_open WHERE p.slot = v.slot AND p.state < 3");

const fn statements(queue: Queue) -> &'static Statements {
    match queue {
        Queue::Revocations => &REVOCATIONS,
        Queue::Suspicions => &SUSPICIONS,
        Queue::Slots(SweepKind::Validation) => &VALIDATIONS,
        Queue::Slots(SweepKind::Connections) => &CONNECTION_CHECKS,
    }
}

// A row whose id is NULL gets one that was never used.
const ADD_REVOCATION: &str =
    "INSERT INTO owed (id, session, generation, provider, access, refresh, expiry, expires_at, owed_at, tries, due_at, holder)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const ADD_SUSPICION: &str =
    "INSERT INTO suspicion (key, provider, subject_id, at, cause, noted_at, tries, due_at, holder)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING";

const FORGET_SUSPICIONS: &str = "DELETE FROM suspicion WHERE key IN
    (SELECT key FROM suspicion WHERE due_at IS NULL AND noted_at <= ?1 ORDER BY noted_at, key LIMIT ?2)";

/// Slots that were never visited and are not leased have their initial values.
macro_rules! is_new {
    () => {
        "due_at = 0 AND lease_until = 0 AND holder IS NULL"
    };
}

const ADD_SLOT: &str = concat!(
    "UPDATE slot SET due_at = ?3, lease_until = ?4, holder = ?5 WHERE wheel = ?1 AND slot = ?2 AND ",
    is_new!()
);
const PAGE_OF_REVOCATIONS: &str =
    "SELECT id, session, generation, provider, access, refresh, expiry, expires_at, owed_at, tries, due_at, holder
    FROM owed WHERE id > coalesce(?1, -9223372036854775808) ORDER BY id LIMIT ?2";
const PAGE_OF_SUSPICIONS: &str =
    "SELECT key, provider, subject_id, at, cause, noted_at, tries, due_at, holder
    FROM suspicion WHERE key > coalesce(?1, x'') ORDER BY key LIMIT ?2";
const PAGE_OF_SLOTS: &str = concat!(
    "SELECT wheel, slot, due_at, holder, lease_until FROM slot WHERE (wheel, slot) > (?1, ?2) AND NOT (",
    is_new!(),
    ") ORDER BY wheel, slot LIMIT ?3"
);
pub(crate) const COUNT_SLOTS: &str = concat!("SELECT count(*), 0 FROM slot WHERE NOT (", is_new!(), ")");

/// The id as the column that finds the item in its queue.
struct IdColumn(ItemId);

impl ToSql for IdColumn {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match &self.0 {
            ItemId::Revocation(RevocationId(id)) => id.to_sql(),
            ItemId::Suspicion(SuspicionKey(key)) => key.to_sql(),
            ItemId::Slot(_, slot) => Ok(slot.number().into()),
        }
    }
}

pub(crate) fn take(
    connection: &Connection,
    queue: Queue,
    terms: LeaseTerms,
    limit: usize,
) -> Result<Vec<Lease<Item>>, Fault> {
    let LeaseTerms { holder, now, until, latest_due } = terms;
    recall(connection, queue, [now, latest_due, terms.latest_lease()])?;
    let mut statement = connection.prepare_cached(statements(queue).due)?;
    let mut found = statement.query(params![now.as_millis(), rows(limit)])?;
    let (mut taken, mut ids) = (Vec::new(), Vec::new());
    while let Some(row) = found.next()? {
        let mut columns = Columns::of(row);
        let id = codec::item_id(queue, &mut columns)?;
        ids.push(id);
        match codec::lease(id, holder, &mut columns) {
            Ok(lease) => taken.push(lease),
            // It is skipped for the length of a lease, so that it does not block others.
            Err(error @ StoreError::Corrupt(_)) => {
                tracing::error!(%error, item = %Key::Item(id), "an item of a queue cannot be read");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut lease = connection.prepare_cached(statements(queue).lease)?;
    for id in ids {
        lease.execute(params![IdColumn(id), until.as_millis(), holder.0])?;
    }
    Ok(taken)
}

/// Makes due what a clock that was ahead put off or leased.
fn recall(connection: &Connection, queue: Queue, times: [Timestamp; 3]) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(statements(queue).recall)?;
    let used = statement.parameter_count();
    statement.execute(params_from_iter(times.iter().take(used).map(|at| at.as_millis())))?;
    Ok(())
}

pub(crate) fn update_lease(
    connection: &Connection,
    id: ItemId,
    holder: AttemptId,
    update: LeaseUpdate,
) -> Result<bool, Fault> {
    let Statements { extend, reschedule, acknowledge, .. } = statements(id.queue());
    let id = IdColumn(id);
    let updated = match update {
        LeaseUpdate::Extend(at) => {
            connection.prepare_cached(extend)?.execute(params![id, holder.0, at.as_millis()])?
        }
        LeaseUpdate::Reschedule(at) => {
            connection.prepare_cached(reschedule)?.execute(params![id, holder.0, at.as_millis()])?
        }
        LeaseUpdate::Acknowledge => match acknowledge {
            Some(sql) => connection.prepare_cached(sql)?.execute(params![id, holder.0])?,
            None => 0,
        },
    };
    Ok(updated == 1)
}

pub(crate) fn backlog(connection: &Connection, queue: Queue) -> Result<Backlog, Fault> {
    let mut statement = connection.prepare_cached(statements(queue).backlog)?;
    let mut found = statement.query([])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(codec::backlog(&mut Columns::of(row))?)
}

/// Forgets closed suspicions. Returns their number.
pub(crate) fn forget_suspicions(
    connection: &Connection,
    noted_until: Timestamp,
    limit: usize,
) -> Result<usize, Fault> {
    Ok(connection
        .prepare_cached(FORGET_SUSPICIONS)?
        .execute(params![noted_until.as_millis(), rows(limit)])?)
}

/// Adds a new item. Returns false if it is there already.
pub(crate) fn enqueue(connection: &Connection, item: &Item) -> Result<bool, Fault> {
    match item {
        Item::Revocation(revocation) => {
            add_revocation(connection, revocation)?;
            Ok(true)
        }
        Item::Suspicion { key, .. } => {
            add(connection, &StoredItem::new(ItemId::Suspicion(*key), item.clone()))
        }
        Item::Slot(_) => Ok(false),
    }
}

/// Adds a pending revocation, which gets an id.
pub(crate) fn add_revocation(connection: &Connection, revocation: &PendingRevocation) -> Result<(), Fault> {
    insert_revocation(connection, None, revocation, (0, Some(revocation.pending_since.as_millis()), None))
}

/// Adds an item as it is. Returns false if it is there already. The id of a revocation is never
/// given again.
pub(crate) fn add(connection: &Connection, stored: &StoredItem) -> Result<bool, Fault> {
    let StoredItem { id, item, tries, due_at, lease_until, holder } = stored;
    let (due_at, holder) = (due_at.map(|at| at.as_millis()), holder.map(|holder| holder.0));
    match (id, item) {
        (ItemId::Revocation(RevocationId(id)), Item::Revocation(revocation)) => {
            insert_revocation(connection, Some(*id), revocation, (*tries, due_at, holder)).map(|()| true)
        }
        (ItemId::Suspicion(key), Item::Suspicion { suspicion, noted_at, .. }) => {
            let added = connection.prepare_cached(ADD_SUSPICION)?.execute(params![
                key.0,
                suspicion.subject.provider.0,
                suspicion.subject.id,
                suspicion.at.as_millis(),
                suspicion.cause.name(),
                noted_at.as_millis(),
                tries,
                due_at,
                holder,
            ])?;
            Ok(added == 1)
        }
        (ItemId::Slot(sweep, slot), Item::Slot(_)) => {
            let bounds =
                params![sweep_column(*sweep), slot.number(), due_at, lease_until.as_millis(), holder];
            Ok(connection.prepare_cached(ADD_SLOT)?.execute(bounds)? == 1)
        }
        _ => Err(Fault(StoreError::Corrupt("an item does not fit its id".to_owned()))),
    }
}

fn insert_revocation(
    connection: &Connection,
    id: Option<i64>,
    revocation: &PendingRevocation,
    (tries, due_at, holder): (u32, Option<i64>, Option<[u8; 16]>),
) -> Result<(), Fault> {
    let (expiry, expires_at) = expiry_columns(revocation.expiry);
    connection.prepare_cached(ADD_REVOCATION)?.execute(params![
        id,
        revocation.session.as_bytes(),
        version_column(revocation.generation)?,
        revocation.provider.0,
        revocation.access.0,
        revocation.refresh.as_ref().map(|refresh| &refresh.0),
        expiry,
        expires_at,
        revocation.pending_since.as_millis(),
        tries,
        due_at,
        holder,
    ])?;
    Ok(())
}

/// Returns all items of a queue in the order of their ids, starting after `after`. Slots come with
/// those of the other sweeps.
pub(crate) fn page(
    connection: &Connection,
    queue: Queue,
    after: Option<ItemId>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let sql = match queue {
        Queue::Revocations => PAGE_OF_REVOCATIONS,
        Queue::Suspicions => PAGE_OF_SUSPICIONS,
        Queue::Slots(_) => return page_of_slots(connection, after, limit),
    };
    page_of(connection, sql, params![after.map(IdColumn), rows(limit)], |columns| {
        let id = codec::item_id(queue, columns)?;
        Ok((Key::Item(id), codec::stored_item(id, columns)))
    })
}

/// Returns the slots of all sweeps that were visited or are leased, starting after `after`.
fn page_of_slots(connection: &Connection, after: Option<ItemId>, limit: usize) -> Result<Vec<Found>, Fault> {
    let (sweep, slot) = match after {
        Some(ItemId::Slot(sweep, slot)) => (sweep_column(sweep), slot.number()),
        _ => (-1, 0),
    };
    page_of(connection, PAGE_OF_SLOTS, params![sweep, slot, rows(limit)], |columns| {
        let id = codec::slot_id(columns)?;
        Ok((Key::Item(id), codec::stored_item(id, columns)))
    })
}

#[cfg(test)]
pub(crate) fn all_statements() -> Vec<&'static str> {
    let of_queue = |queue: &Statements| {
        let Statements { recall, due, lease, extend, reschedule, acknowledge, backlog } = *queue;
        [recall, due, lease, extend, reschedule, backlog].into_iter().chain(acknowledge)
    };
    let mut all: Vec<_> =
        [REVOCATIONS, SUSPICIONS, VALIDATIONS, CONNECTION_CHECKS].iter().flat_map(of_queue).collect();
    all.extend([ADD_REVOCATION, ADD_SUSPICION, FORGET_SUSPICIONS, ADD_SLOT, COUNT_SLOTS]);
    all.extend([PAGE_OF_REVOCATIONS, PAGE_OF_SUSPICIONS, PAGE_OF_SLOTS]);
    all
}
