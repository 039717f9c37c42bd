//! Who gets a connection, how long it may take, and what is tried again.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use claviger_store::StoreError;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_postgres::{
    NoTls, Row,
    types::{ToSql, Type},
};

use crate::{
    address::{Address, CONNECT, GATEWAY},
    error::Fault,
    values::Columns,
};

/// Work that others' work undid is done so often before that is told.
const ATTEMPTS: u32 = 8;
/// And after so long at first, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// A value for a statement, with the type that the statement expects.
pub(crate) type Bound<'a> = (&'a (dyn ToSql + Sync), Type);

/// The values of a statement in the order of their numbers, each with its type.
macro_rules! bounds {
    ($($type:ident: $value:expr),* $(,)?) => {
        [$((&$value as &(dyn ::tokio_postgres::types::ToSql + Sync), ::tokio_postgres::types::Type::$type)),*]
    };
}
pub(crate) use bounds;

/// A few connections to the database.
#[derive(Clone)]
pub(crate) struct Database {
    pool: Pool,
    /// So many connections may be busy with writes, so that reads get one also while no write gets an answer: a standby that
    /// commits wait for is lost, or a table is locked.
    for_writes: Arc<Semaphore>,
    named_statements: bool,
    patience: Duration,
}

/// One connection, for one piece of work.
#[derive(Clone)]
pub(crate) struct Link {
    client: Arc<Lent>,
    named_statements: bool,
}

/// A connection of the pool until it goes back there.
struct Lent {
    client: Object,
    in_transaction: AtomicBool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Deref for Lent {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.client
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Changes nothing.
    Read,
    /// Changes something: one statement, or a transaction.
    Write,
}

impl Database {
    pub(crate) fn new(
        address: &Address,
        connections: usize,
        transaction_pooler: bool,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        // A pooler refuses connections that set anything.
        let config = if transaction_pooler { address.config.clone() } else { address.bounded(patience) };
        let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match address.tls.clone() {
            Some(tls) => Manager::from_config(config, tls, settings),
            None => Manager::from_config(config, NoTls, settings),
        };
        let connections = connections.max(1);
        // A quarter is kept for reads, and one at least where there are several.
        let for_writes = connections - (connections / 4).max(1).min(connections - 1);
        let pool = Pool::builder(manager)
            .max_size(connections)
            .wait_timeout(Some(patience))
            .create_timeout(Some(2 * CONNECT))
            .recycle_timeout(Some(CONNECT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| StoreError::Unavailable("connections cannot be made".to_owned()))?;
        let for_writes = Arc::new(Semaphore::new(for_writes));
        Ok(Self { pool, for_writes, named_statements: !transaction_pooler, patience })
    }

    /// Has work done that changes nothing. It is done again on another connection where one was lost.
    pub(crate) async fn read<T, F>(
        &self,
        name: &'static str,
        work: impl Fn(Link) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.persist(name, Work::Read, &work).await
    }

    /// Has one statement done that changes something. Where the connection is lost nobody can say whether it was.
    pub(crate) async fn write<T, F>(
        &self,
        name: &'static str,
        work: impl Fn(Link) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.persist(name, Work::Write, &work).await
    }

    /// Has several statements done, all of them or none. `opening` begins the transaction. Run it in a task of its own: of one that
    /// is left midway nobody can say whether it was committed.
    pub(crate) async fn transact<T, F>(
        &self,
        name: &'static str,
        opening: &str,
        work: impl Fn(Link) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let whole = |link: Link| {
            let work = work(link.clone());
            async move {
                link.client.in_transaction.store(true, Ordering::Relaxed);
                let done = async {
                    link.run(opening).await?;
                    let done = work.await?;
                    link.run("COMMIT").await?;
                    Ok::<T, Fault>(done)
                };
                let done = done.await;
                // Whatever failed: also an opening that failed halfway has begun, and a commit that is refused has ended nothing.
                let left = done.is_ok() || link.run(UNDO).await.is_ok();
                link.client.in_transaction.store(!left, Ordering::Relaxed);
                done
            }
        };
        self.persist(name, Work::Write, &whole).await
    }

    /// Tries again while the others' work is all that is in the way.
    async fn persist<T, F>(
        &self,
        name: &'static str,
        kind: Work,
        work: &impl Fn(Link) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            let fault = match self.attempt(kind, work).await {
                Ok(done) => return Ok(done),
                Err(fault) => fault,
            };
            let again = fault.is_collision() || (kind == Work::Read && fault.is_lost_connection());
            if !again || attempt == ATTEMPTS {
                return Err(fault.into());
            }
            tracing::info!(transaction = name, attempt, reason = %StoreError::from(fault), "a transaction is done again");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(StoreError::Unavailable("tried too often".to_owned()))
    }

    /// One connection, for as long as it is kept.
    pub(crate) async fn link(&self, kind: Work) -> Result<Link, Fault> {
        let place = match kind {
            Work::Read => None,
            Work::Write => Some(self.place().await?),
        };
        let (client, in_transaction) = (self.pool.get().await?, AtomicBool::new(false));
        let client = Arc::new(Lent { client, in_transaction, _place: place });
        Ok(Link { client, named_statements: self.named_statements })
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Fault> {
        let place = timeout(self.patience, Arc::clone(&self.for_writes).acquire_owned()).await;
        let none = || Fault::NoConnection("no connection for writes became free in time".to_owned());
        place.ok().and_then(Result::ok).ok_or_else(none)
    }

    async fn attempt<T, F>(&self, kind: Work, work: &impl Fn(Link) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.on(self.link(kind).await?, work).await
    }

    /// Has work done on this connection, once.
    pub(crate) async fn on<T, F>(&self, link: Link, work: impl FnOnce(Link) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut held = Held { client: Some(Arc::clone(&link.client)), patience: self.patience };
        let done = timeout(self.patience, work(link)).await.unwrap_or(Err(Fault::TooLong));
        if let Some(client) = held.client.take()
            && (matches!(done, Err(Fault::TooLong)) || client.in_transaction.load(Ordering::Relaxed))
        {
            close(client);
        }
        done
    }
}

/// Ends a transaction, whatever it came to.
const UNDO: &str = "ROLLBACK";

/// The connection of work that may be left midway. Nobody else gets it before the database is done with that work: else they would
/// wait for it, and for whatever it waits for, or write into its transaction.
struct Held {
    client: Option<Arc<Lent>>,
    patience: Duration,
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return close(client) };
        let patience = self.patience;
        runtime.spawn(async move {
            let end = if client.in_transaction.load(Ordering::Relaxed) { UNDO } else { "" };
            let settled = timeout(patience, client.batch_execute(end)).await;
            if !matches!(settled, Ok(Ok(()))) {
                close(client);
            }
        });
    }
}

/// Closes a connection whose work is at an unknown point, so that nobody else gets it.
fn close(client: Arc<Lent>) {
    if let Some(lent) = Arc::into_inner(client) {
        drop(Object::take(lent.client));
    }
}

impl Link {
    /// The rows of a statement's answer.
    pub(crate) async fn query(&self, sql: &str, bounds: &[Bound<'_>]) -> Result<Vec<Row>, Fault> {
        if !self.named_statements {
            return Ok(self.client.query_typed(sql, bounds).await?);
        }
        let types: Vec<Type> = bounds.iter().map(|(_, kind)| kind.clone()).collect();
        let statement = self.client.prepare_typed_cached(sql, &types).await?;
        let values: Vec<_> = bounds.iter().map(|(value, _)| *value).collect();
        Ok(self.client.query(&statement, &values).await?)
    }

    /// The one row of a statement's answer.
    pub(crate) async fn query_one(&self, sql: &str, bounds: &[Bound<'_>]) -> Result<Row, Fault> {
        let row = self.query(sql, bounds).await?.pop();
        row.ok_or_else(|| Fault::Store(claviger_store::corrupt("an answer without a row")))
    }

    /// How many rows a statement changed.
    pub(crate) async fn execute(&self, sql: &str, bounds: &[Bound<'_>]) -> Result<u64, Fault> {
        if !self.named_statements {
            return Ok(self.client.execute_typed(sql, bounds).await?);
        }
        let types: Vec<Type> = bounds.iter().map(|(_, kind)| kind.clone()).collect();
        let statement = self.client.prepare_typed_cached(sql, &types).await?;
        let values: Vec<_> = bounds.iter().map(|(value, _)| *value).collect();
        Ok(self.client.execute(&statement, &values).await?)
    }

    /// Runs statements without values.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), Fault> {
        Ok(self.client.batch_execute(sql).await?)
    }
}

/// Else the database goes on saying what it said before in the same transaction.
pub(crate) const LOOK_AGAIN: &str = "SELECT pg_stat_clear_snapshot()";
const GATEWAYS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1";

/// How many connections gateways have to the database, as far as it shows them to our role.
pub(crate) async fn gateways(link: &Link) -> Result<u64, Fault> {
    link.run(LOOK_AGAIN).await?;
    Columns::of(&link.query_one(GATEWAYS, &bounds![TEXT: GATEWAY]).await?, "a count").count()
}

const WHO: &str = "SELECT pg_backend_pid()";

/// Whether an address leads to a pooler that gives a connection for one transaction at a time. Then a question between
/// two transactions is answered by whoever is free: not by the one that is held meanwhile.
pub(crate) async fn is_pooled(address: &Address) -> Result<bool, Fault> {
    let connect = || Database::new(address, 1, true, 2 * CONNECT);
    let (asking, holding) = (connect()?, connect()?);
    let compare = compare(asking.link(Work::Read).await?, holding.link(Work::Read).await?);
    timeout(2 * CONNECT, compare).await.unwrap_or(Err(Fault::TooLong))
}

async fn compare(asking: Link, holding: Link) -> Result<bool, Fault> {
    let first = who(&asking).await?;
    holding.run("BEGIN").await?;
    let held = who(&holding).await?;
    let second = who(&asking).await?;
    holding.run("ROLLBACK").await?;
    Ok(first == held || first != second)
}

async fn who(link: &Link) -> Result<i32, Fault> {
    Columns::of(&link.query_one(WHO, &bounds![]).await?, "a connection").take()
}

#[cfg(test)]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may fail as it likes"
)]
#[path = "../tests/common/server.rs"]
mod server;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::server::Server;

    /// The next to get the connection would write into the transaction, and be told that it is done.
    #[tokio::test]
    async fn a_transaction_that_is_left_midway_is_ended_before_anybody_else_gets_its_connection() {
        let server = Server::start("");
        let address = server.address(&server.database().await);
        let database = Database::new(&address, 1, false, Duration::from_secs(10)).unwrap();
        database
            .write("make", async |link: Link| link.run("CREATE TABLE t (n integer)").await)
            .await
            .unwrap();
        let leaving = {
            let database = database.clone();
            let work = async |link: Link| -> Result<(), Fault> {
                link.run("INSERT INTO t VALUES (1)").await?;
                panic!("a defect")
            };
            tokio::spawn(async move { database.transact("leave", "BEGIN", work).await })
        };
        assert!(leaving.await.unwrap_err().is_panic());
        database.write("write", async |link: Link| link.run("INSERT INTO t VALUES (2)").await).await.unwrap();
        drop(database);
        let beside = Database::new(&address, 1, false, Duration::from_secs(10)).unwrap();
        let row =
            beside.read("read", async |link: Link| link.query_one("SELECT sum(n) FROM t", &[]).await).await;
        assert_eq!(row.unwrap().get::<_, i64>(0), 2, "the one is undone, and the other is there");
    }
}
