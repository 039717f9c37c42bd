//! The queues: pending revocations in the table `owed`, suspicions in `suspicion`, and the visits
//! of the sweeps in `slot`.
//!
//! A statement gets the item's id first: `id`, `key` or `slot`. The sweep stands in the statement.

use claviger_core::{AttemptId, Timestamp};
use claviger_store::{
    Backlog, Item, ItemId, Lease, LeaseTerms, LeaseUpdate, Queue, RevocationId, StoreError, SuspicionKey,
    SweepKind,
    archive::{Found, Key, StoredItem},
    codec::{self, sweep_column},
    corrupt,
};
use tokio_postgres::types::{ToSql, Type};

use crate::{
    database::{Bound, PooledConnection, bounds},
    error::Fault,
    row::{RevocationColumns, page_of},
    values::{Columns, attempt_column, rows, slot_column, text_column},
};

/// The statements of one queue.
struct Statements {
    /// Makes items due at $1 that are due after $2, and slots that are leased for longer than $3.
    recall: &'static str,
    /// Leases items that are due at $1, at most $2, until $3 to $4. It skips rows that another
    /// instance is taking.
    take: &'static str,
    /// Extends the lease of $1 until $3, if $2 has it.
    extend: &'static str,
    /// Puts $1 off until $3, if $2 has it.
    reschedule: &'static str,
    /// Removes or closes $1, if $2 has it.
    acknowledge: Option<&'static str>,
    backlog: &'static str,
}

const REVOCATIONS: Statements = Statements {
    recall: "UPDATE claviger.owed SET due_at = $1, holder = NULL WHERE due_at > $2",
    take: "WITH due AS MATERIALIZED (
            SELECT id, due_at FROM claviger.owed WHERE due_at <= $1 ORDER BY due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
        UPDATE claviger.owed AS o SET due_at = $3, holder = $4 FROM due WHERE o.id = due.id
        RETURNING o.id, o.session, o.generation, o.provider, o.access, o.refresh, o.expiry, o.expires_at, o.owed_at,
            o.tries, due.due_at",
    extend: "UPDATE claviger.owed SET due_at = $3 WHERE id = $1 AND holder = $2",
    reschedule: "UPDATE claviger.owed SET due_at = $3, holder = NULL, tries = tries + 1
        WHERE id = $1 AND holder = $2",
    acknowledge: Some("DELETE FROM claviger.owed WHERE id = $1 AND holder = $2"),
    backlog: "SELECT count(*), min(owed_at) FROM claviger.owed",
};

const SUSPICIONS: Statements = Statements {
    recall: "UPDATE claviger.suspicion SET due_at = $1, holder = NULL WHERE due_at > $2",
    take: "WITH due AS MATERIALIZED (
            SELECT key, due_at FROM claviger.suspicion WHERE due_at <= $1
            ORDER BY due_at, key LIMIT $2 FOR UPDATE SKIP LOCKED)
        UPDATE claviger.suspicion AS s SET due_at = $3, holder = $4 FROM due WHERE s.key = due.key
        RETURNING s.key, s.provider, s.subject_id, s.at, s.cause, s.noted_at, s.tries, due.due_at",
    extend: "UPDATE claviger.suspicion SET due_at = $3 WHERE key = $1 AND holder = $2",
    reschedule: "UPDATE claviger.suspicion SET due_at = $3, holder = NULL, tries = tries + 1
        WHERE key = $1 AND holder = $2",
    acknowledge: Some(
        "UPDATE claviger.suspicion SET due_at = NULL, holder = NULL WHERE key = $1 AND holder = $2",
    ),
    backlog: "SELECT count(*), min(noted_at) FROM claviger.suspicion WHERE due_at IS NOT NULL",
};

/// The slots of a sweep ($sweep) that hold a session that it is for, by its state. LIMIT makes
/// PostgreSQL look up each slot in the index instead of scanning all sessions.
macro_rules! slots_in_use {
    ($sweep:literal, $state:literal) => {
        concat!(
            " FROM claviger.slot AS v CROSS JOIN LATERAL
                (SELECT FROM claviger.pulse AS p WHERE p.slot = v.slot AND p.state ",
            $state,
            " LIMIT 1) AS used WHERE v.wheel = ",
            $sweep
        )
    };
}

macro_rules! slots {
    ($sweep:literal, $state:literal) => {
        Statements {
            recall: concat!(
                "UPDATE claviger.slot SET due_at = least(due_at, $1), lease_until = 0, holder = NULL WHERE wheel = ",
                $sweep,
                " AND (due_at > $2 OR lease_until > $3)"
            ),
            take: concat!(
                "WITH due AS MATERIALIZED (SELECT v.slot",
                slots_in_use!($sweep, $state),
                " AND v.due_at <= $1 AND v.lease_until <= $1
                    ORDER BY v.due_at, v.slot LIMIT $2 FOR UPDATE OF v SKIP LOCKED)
                UPDATE claviger.slot AS v SET lease_until = $3, holder = $4 FROM due
                WHERE v.wheel = ",
                $sweep,
                " AND v.slot = due.slot RETURNING v.slot, v.due_at"
            ),
            extend: concat!(
                "UPDATE claviger.slot SET lease_until = $3 WHERE wheel = ",
                $sweep,
                " AND slot = $1 AND holder = $2"
            ),
            reschedule: concat!(
                "UPDATE claviger.slot SET due_at = $3, lease_until = 0, holder = NULL WHERE wheel = ",
                $sweep,
                " AND slot = $1 AND holder = $2"
            ),
            acknowledge: None,
            backlog: concat!("SELECT count(*), min(v.due_at)", slots_in_use!($sweep, $state)),
        }
    };
}

const VALIDATIONS: Statements = slots!("0", "= 0");
const CONNECTION_CHECKS: Statements = slots!("1", "< 3");

const fn statements(queue: Queue) -> &'static Statements {
    match queue {
        Queue::Revocations => &REVOCATIONS,
        Queue::Suspicions => &SUSPICIONS,
        Queue::Slots(SweepKind::Validation) => &VALIDATIONS,
        Queue::Slots(SweepKind::Connections) => &CONNECTION_CHECKS,
    }
}

const ADD_NEW_REVOCATION: &str = "INSERT INTO claviger.owed
    (session, generation, provider, access, refresh, expiry, expires_at, owed_at, due_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)";
const ADD_REVOCATION: &str = "INSERT INTO claviger.owed
    (session, generation, provider, access, refresh, expiry, expires_at, owed_at, id, tries, due_at, holder)
    OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
// A rollback does not undo setval, and need not: gaps between ids are harmless. It never goes back.
const RESERVE_REVOCATION_IDS: &str =
    "SELECT setval(pg_get_serial_sequence('claviger.owed', 'id'), greatest($1,
    (SELECT last_value FROM pg_sequences WHERE schemaname = 'claviger'
        AND format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('claviger.owed', 'id'))))";
const ADD_SUSPICION: &str =
    "INSERT INTO claviger.suspicion (key, provider, subject_id, at, cause, noted_at, tries, due_at, holder)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
// MATERIALIZED for the same reason as in `logins`.
const FORGET_SUSPICIONS: &str = "WITH old AS MATERIALIZED (
        SELECT key FROM claviger.suspicion WHERE due_at IS NULL AND noted_at <= $1
        ORDER BY noted_at, key LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM claviger.suspicion WHERE key IN (SELECT key FROM old)";

/// Slots that were never visited and are not leased are as they were created.
macro_rules! is_new {
    () => {
        "due_at = 0 AND lease_until = 0 AND holder IS NULL"
    };
}

const ADD_SLOT: &str = concat!(
    "UPDATE claviger.slot SET due_at = $3, lease_until = $4, holder = $5 WHERE wheel = $1 AND slot = $2 AND ",
    is_new!()
);
const PAGE_OF_REVOCATIONS: &str =
    "SELECT id, session, generation, provider, access, refresh, expiry, expires_at, owed_at, tries, due_at, holder
    FROM claviger.owed WHERE id > $1 ORDER BY id LIMIT $2";
const PAGE_OF_SUSPICIONS: &str =
    "SELECT key, provider, subject_id, at, cause, noted_at, tries, due_at, holder
    FROM claviger.suspicion WHERE key > $1 ORDER BY key LIMIT $2";
const PAGE_OF_SLOTS: &str = concat!(
    "SELECT wheel, slot, due_at, holder, lease_until FROM claviger.slot
    WHERE (wheel, slot) > ($1, $2) AND NOT (",
    is_new!(),
    ") ORDER BY wheel, slot LIMIT $3"
);
pub(crate) const COUNT_SLOTS: &str =
    concat!("SELECT count(*), 0::bigint FROM claviger.slot WHERE NOT (", is_new!(), ")");

/// The id as the column that finds the item in its queue, with the column's type.
fn id_column(id: ItemId) -> (Box<dyn ToSql + Sync + Send>, Type) {
    match id {
        ItemId::Revocation(RevocationId(id)) => (Box::new(id), Type::INT8),
        ItemId::Suspicion(SuspicionKey(key)) => (Box::new(key.to_vec()), Type::BYTEA),
        ItemId::Slot(_, slot) => (Box::new(slot_column(slot)), Type::INT2),
    }
}

pub(crate) async fn take(
    connection: PooledConnection,
    queue: Queue,
    terms: LeaseTerms,
    limit: usize,
) -> Result<Vec<Lease<Item>>, Fault> {
    let LeaseTerms { holder, now, until, .. } = terms;
    recall(&connection, queue, terms).await?;
    let bounds = bounds![
        INT8: now.as_millis(),
        INT8: rows(limit),
        INT8: until.as_millis(),
        UUID: attempt_column(holder),
    ];
    let mut taken = Vec::new();
    for row in connection.query(statements(queue).take, &bounds).await? {
        let mut columns = Columns::of(&row, name(queue));
        let id = codec::item_id(queue, &mut columns);
        match id.clone().and_then(|id| codec::lease(id, holder, &mut columns)) {
            Ok(lease) => taken.push(lease),
            // It is skipped until its lease ends, so it delays no other.
            Err(error @ StoreError::Corrupt(_)) => {
                let item = id.map_or_else(|_| "unknown".to_owned(), |id| Key::Item(id).to_string());
                tracing::error!(%error, item, "an item of a queue cannot be read");
            }
            Err(error) => return Err(error.into()),
        }
    }
    taken.sort_by_key(|lease| (lease.due_at, lease.id));
    Ok(taken)
}

/// Makes due what a clock that was ahead put off or leased.
async fn recall(connection: &PooledConnection, queue: Queue, terms: LeaseTerms) -> Result<(), Fault> {
    let (now, due) = (terms.now.as_millis(), terms.latest_due.as_millis());
    let recall = statements(queue).recall;
    if matches!(queue, Queue::Slots(_)) {
        let lease = terms.latest_lease().as_millis();
        connection.execute(recall, &bounds![INT8: now, INT8: due, INT8: lease]).await?;
    } else {
        connection.execute(recall, &bounds![INT8: now, INT8: due]).await?;
    }
    Ok(())
}

/// What a write of this queue is called in the log.
pub(crate) const fn label(queue: Queue) -> &'static str {
    match queue {
        Queue::Revocations => "lease of revocations",
        Queue::Suspicions => "lease of suspicions",
        Queue::Slots(_) => "lease of slots",
    }
}

/// What a damaged item is called.
const fn name(queue: Queue) -> &'static str {
    match queue {
        Queue::Revocations => "a pending revocation",
        Queue::Suspicions => "a suspicion",
        Queue::Slots(_) => "a slot",
    }
}

pub(crate) async fn update_lease(
    connection: PooledConnection,
    id: ItemId,
    holder: AttemptId,
    update: LeaseUpdate,
) -> Result<bool, Fault> {
    let Statements { extend, reschedule, acknowledge, .. } = statements(id.queue());
    let (sql, at) = match update {
        LeaseUpdate::Extend(at) => (Some(extend), Some(at.as_millis())),
        LeaseUpdate::Reschedule(at) => (Some(reschedule), Some(at.as_millis())),
        LeaseUpdate::Acknowledge => (acknowledge.as_ref(), None),
    };
    let Some(sql) = sql else { return Ok(false) };
    let ((id, kind), holder) = (id_column(id), attempt_column(holder));
    let mut bounds: Vec<Bound<'_>> = vec![(&*id, kind), (&holder, Type::UUID)];
    if let Some(at) = &at {
        bounds.push((at, Type::INT8));
    }
    Ok(connection.execute(sql, &bounds).await? == 1)
}

pub(crate) async fn backlog(connection: PooledConnection, queue: Queue) -> Result<Backlog, Fault> {
    let row = connection.query_one(statements(queue).backlog, &bounds![]).await?;
    Ok(codec::backlog(&mut Columns::of(&row, "the backlog"))?)
}

/// Adds a new item. False if it is there already.
pub(crate) async fn enqueue(connection: PooledConnection, item: &Item) -> Result<bool, Fault> {
    match item {
        Item::Revocation(revocation) => {
            let columns = RevocationColumns::of(Some(revocation))?;
            Ok(connection.execute(ADD_NEW_REVOCATION, &columns.bounds()).await? == 1)
        }
        Item::Suspicion { key, .. } => {
            add(&connection, &StoredItem::new(ItemId::Suspicion(*key), item.clone())).await
        }
        Item::Slot(_) => Ok(false),
    }
}

/// Adds an item unchanged. False if it is there already.
pub(crate) async fn add(connection: &PooledConnection, stored: &StoredItem) -> Result<bool, Fault> {
    let StoredItem { id, item, tries, due_at, lease_until, holder } = stored;
    let tries = i64::from(*tries);
    let (due_at, holder) = (due_at.map(Timestamp::as_millis), holder.map(attempt_column));
    let added = match (id, item) {
        (ItemId::Revocation(RevocationId(id)), Item::Revocation(revocation)) => {
            let columns = RevocationColumns::of(Some(revocation))?;
            let rest = bounds![INT8: *id, INT8: tries, INT8: due_at, UUID: holder];
            connection.execute(ADD_REVOCATION, &[&columns.bounds()[..], &rest].concat()).await?
        }
        (ItemId::Suspicion(SuspicionKey(key)), Item::Suspicion { suspicion, noted_at, .. }) => {
            let bounds = bounds![
                BYTEA: key.as_slice(),
                TEXT: text_column(&suspicion.subject.provider.0),
                TEXT: text_column(&suspicion.subject.id),
                INT8: suspicion.at.as_millis(),
                TEXT: suspicion.cause.name(),
                INT8: noted_at.as_millis(),
                INT8: tries,
                INT8: due_at,
                UUID: holder,
            ];
            connection.execute(ADD_SUSPICION, &bounds).await?
        }
        (ItemId::Slot(sweep, slot), Item::Slot(_)) => {
            let bounds = bounds![
                INT2: sweep_column(*sweep),
                INT2: slot_column(*slot),
                INT8: due_at,
                INT8: lease_until.as_millis(),
                UUID: holder,
            ];
            connection.execute(ADD_SLOT, &bounds).await?
        }
        _ => return Err(corrupt("an item does not fit its id").into()),
    };
    Ok(added == 1)
}

/// Reserves all ids up to this one, so no later revocation gets one of them.
pub(crate) async fn reserve_revocation_ids(
    connection: &PooledConnection,
    RevocationId(highest): RevocationId,
) -> Result<(), Fault> {
    connection.query(RESERVE_REVOCATION_IDS, &bounds![INT8: highest]).await?;
    Ok(())
}

pub(crate) async fn forget_suspicions(
    connection: PooledConnection,
    noted_until: Timestamp,
    limit: usize,
) -> Result<usize, Fault> {
    let bounds = bounds![INT8: noted_until.as_millis(), INT8: rows(limit)];
    let forgotten = connection.execute(FORGET_SUSPICIONS, &bounds).await?;
    Ok(usize::try_from(forgotten).unwrap_or(usize::MAX))
}

/// All items of a queue in the order of their ids, from the one after `after` on. Slots come with
/// those of the other sweeps.
pub(crate) async fn page(
    connection: PooledConnection,
    queue: Queue,
    after: Option<ItemId>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let (sql, before_all): (_, (Box<dyn ToSql + Sync + Send>, Type)) = match queue {
        Queue::Revocations => (PAGE_OF_REVOCATIONS, (Box::new(i64::MIN), Type::INT8)),
        Queue::Suspicions => (PAGE_OF_SUSPICIONS, (Box::new(Vec::<u8>::new()), Type::BYTEA)),
        Queue::Slots(_) => return page_of_slots(connection, after, limit).await,
    };
    let (after, kind) = after.map_or(before_all, id_column);
    let bounds: [Bound<'_>; 2] = [(&*after, kind), (&rows(limit), Type::INT8)];
    page_of(&connection, sql, &bounds, name(queue), |columns| {
        let id = codec::item_id(queue, columns)?;
        Ok((Key::Item(id), codec::stored_item(id, columns)))
    })
    .await
}

/// The slots of all sweeps that differ from a new one, from the one after `after` on.
async fn page_of_slots(
    connection: PooledConnection,
    after: Option<ItemId>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let (sweep, slot) = match after {
        Some(ItemId::Slot(sweep, slot)) => (sweep_column(sweep), slot_column(slot)),
        _ => (-1, 0),
    };
    let bounds = bounds![INT2: sweep, INT2: slot, INT8: rows(limit)];
    page_of(&connection, PAGE_OF_SLOTS, &bounds, "a slot", |columns| {
        let id = codec::slot_id(columns)?;
        Ok((Key::Item(id), codec::stored_item(id, columns)))
    })
    .await
}
