//! All that the database holds, row by row, and how gateways and other copies are kept away meanwhile.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use claviger_store::{
    Store as _, StoreError,
    archive::{Archive, Count, Found, Keeper, Key, Record, Reservation, ReserveError, Side, Table},
};
use futures_util::future::try_join_all;

use crate::{
    PostgresStore,
    database::{Database, LOOK_AGAIN, Link, Work, bounds, gateways},
    error::Fault,
    logins, memos, owed, sessions, slots,
    store::joined,
    suspicions,
    values::Columns,
};

const COUNT_OWED: &str = "SELECT count(*), 0::bigint FROM claviger.owed";
const COUNT_LOGINS: &str = "SELECT count(*), 0::bigint FROM claviger.spent_login";
const COUNT_SUSPICIONS: &str = "SELECT count(*), 0::bigint FROM claviger.suspicion";
const COUNT_MEMOS: &str = "SELECT count(*), 0::bigint FROM claviger.memo";

/// Held by who copies. A number of our own: "Clav" and a 2.
const LOCK: i64 = 0x436c_6176_0000_0002;
/// Shared by the transactions that add rows. A number of our own: "Clav" and a 3.
const ADDING: i64 = 0x436c_6176_0000_0003;
/// A copy takes no longer than this.
const LONGEST_COPY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

// Nothing is asked on this connection while the copy goes on, and the locks must last for so long.
const HOLD: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL lock_timeout = '5s'";
/// Whoever would write waits, and who reads does not.
const KEEP_STILL: &str =
    "LOCK TABLE claviger.session, claviger.pulse, claviger.owed, claviger.spent_login, claviger.slot,
    claviger.suspicion, claviger.memo IN SHARE MODE";
/// Else the first minutes would be planned for empty tables.
const ANALYZE: &str =
    "ANALYZE claviger.session, claviger.pulse, claviger.owed, claviger.spent_login, claviger.slot,
    claviger.suspicion, claviger.memo";

#[async_trait]
impl Archive for PostgresStore {
    /// No other copy comes near the database until the reservation ends, and the source is not changed by anybody. A gateway that is
    /// connected is noticed now: by the name of its connections, and as far as the database shows them to our role.
    async fn reserve(&self, side: Side) -> Result<Reservation, ReserveError> {
        let database = patient(self)?;
        let link = database.link(Work::Read).await.map_err(StoreError::from)?;
        reserve(&link, side).await?;
        Ok(Reservation::by(Held { link, _database: database }))
    }

    async fn count(&self, table: Table) -> Result<Count, StoreError> {
        patient(self)?.read("count", |link| count(link, table)).await
    }

    async fn page(&self, table: Table, after: Option<&Key>, limit: usize) -> Result<Vec<Found>, StoreError> {
        self.survey().read("page", |link| page(link, table, after, limit)).await
    }

    async fn add(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let (database, records) = (self.survey().clone(), Arc::new(records));
        let opening = format!("BEGIN; SELECT pg_advisory_xact_lock_shared({ADDING})");
        let transaction = async move {
            database.transact("add", &opening, |link| add_all(link, Arc::clone(&records))).await
        };
        joined(tokio::spawn(transaction).await)
    }

    async fn prepare_to_serve(&self) -> Result<(), StoreError> {
        patient(self)?.write("analyze", async |link: Link| link.run(ANALYZE).await).await?;
        self.check().await
    }
}

/// For what goes through a whole table, however large it is.
fn patient(store: &PostgresStore) -> Result<Database, StoreError> {
    Database::new(store.address(), 1, store.is_pooled(), LONGEST_COPY)
}

/// The transaction whose locks keep others away.
struct Held {
    link: Link,
    _database: Database,
}

#[async_trait]
impl Keeper for Held {
    async fn has_kept(&self) -> Result<(), ReserveError> {
        self.link.run(LOOK_AGAIN).await.map_err(|fault| ReserveError::Lost(fault.into()))
    }

    async fn is_alone(&self) -> Result<(), ReserveError> {
        self.has_kept().await?;
        refuse_gateways(&self.link).await
    }
}

async fn reserve(link: &Link, side: Side) -> Result<(), ReserveError> {
    let of = |fault: Fault| ReserveError::from(StoreError::from(fault));
    link.run(HOLD).await.map_err(of)?;
    // The database takes a moment to notice that a copy is gone, and what that has just sent may still be on its way into the
    // tables.
    let alone = format!(
        "SELECT pg_advisory_xact_lock({LOCK}); SAVEPOINT adding; SELECT pg_advisory_xact_lock({ADDING});
         ROLLBACK TO SAVEPOINT adding"
    );
    link.run(&alone).await.map_err(|fault| match fault.is_kept_waiting() {
        true => ReserveError::InUse(
            "another copy is at it, or it is both the source and the destination".to_owned(),
        ),
        false => of(fault),
    })?;
    refuse_gateways(link).await?;
    if side == Side::Source {
        link.run(KEEP_STILL).await.map_err(of)?;
    }
    Ok(())
}

async fn refuse_gateways(link: &Link) -> Result<(), ReserveError> {
    let of = |fault: Fault| ReserveError::from(StoreError::from(fault));
    match gateways(link).await.map_err(of)? {
        0 => Ok(()),
        connected => Err(ReserveError::InUse(format!(
            "a gateway is connected to the database ({connected} connections); stop the gateway first, every instance of it"
        ))),
    }
}

async fn count(link: Link, table: Table) -> Result<Count, Fault> {
    let sql = match table {
        Table::Sessions => return sessions::count(link).await,
        Table::Slots => return slots::count(link).await,
        Table::Owed => COUNT_OWED,
        Table::Logins => COUNT_LOGINS,
        Table::Suspicions => COUNT_SUSPICIONS,
        Table::Memos => COUNT_MEMOS,
    };
    count_by(&link, sql).await
}

/// The answer of a statement that counts rows, and parts of rows that belong to none.
pub(crate) async fn count_by(link: &Link, sql: &str) -> Result<Count, Fault> {
    let row = link.query_one(sql, &bounds![]).await?;
    let mut columns = Columns::of(&row, "a count");
    Ok(Count { rows: columns.count()?, strays: columns.count()? })
}

async fn page(link: Link, table: Table, after: Option<&Key>, limit: usize) -> Result<Vec<Found>, Fault> {
    match table {
        Table::Sessions => sessions::page(link, after.and_then(Key::session), limit).await,
        Table::Owed => owed::page(link, after.and_then(Key::owed), limit).await,
        Table::Logins => logins::page(link, after.and_then(Key::login), limit).await,
        Table::Suspicions => suspicions::page(link, after.and_then(Key::suspicion), limit).await,
        Table::Slots => slots::page(link, after.and_then(Key::slot), limit).await,
        Table::Memos => memos::page(link, after.and_then(Key::memo), limit).await,
    }
}

/// One step of a transaction.
async fn add_all(link: Link, records: Arc<Vec<Record>>) -> Result<(), Fault> {
    // The first alone, so that its statement is prepared once; the others are sent one behind the other, without waiting
    // for the answers in between.
    let Some((first, others)) = records.split_first() else { return Ok(()) };
    add(&link, first).await?;
    try_join_all(others.iter().map(|record| add(&link, record))).await?;
    let names = records.iter().filter_map(|record| record.key().owed());
    match names.max() {
        Some(highest) => owed::keep_names(&link, highest).await,
        None => Ok(()),
    }
}

async fn add(link: &Link, record: &Record) -> Result<(), Fault> {
    let added = match record {
        Record::Session(session) => sessions::add(link, session).await.map(|()| true),
        Record::Owed { owed, due_at, holder } => owed::add(link, owed, *due_at, *holder).await.map(|()| true),
        Record::Login { state_hash, expires_at } => logins::add(link, state_hash, *expires_at).await,
        Record::Suspicion { suspected, noted_at, due_at, holder } => {
            suspicions::add(link, suspected, *noted_at, *due_at, *holder).await.map(|()| true)
        }
        Record::Slot { wheel, slot, due_at, lease_until, holder } => {
            slots::add(link, (*wheel, *slot), *due_at, *lease_until, *holder).await
        }
        Record::Memo { name, memo } => memos::add(link, name, memo).await,
    }?;
    let taken = || StoreError::Unavailable("a row of this key is there already".to_owned());
    added.then_some(()).ok_or_else(|| taken().into())
}
