//! Gives connections to work, limits how long it may take, and repeats what may be repeated.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use claviger_store::{StoreError, codec::ColumnReader as _};
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

/// Maximum number of attempts at work that collides with other transactions.
const ATTEMPTS: u32 = 8;
/// Pause before the second attempt. It doubles with each further attempt.
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

/// A pool of connections to the database.
#[derive(Clone)]
pub(crate) struct Database {
    pool: Pool,
    /// At most this many connections are busy with writes. Reads get a connection even while writes
    /// hang: a synchronous standby is lost, or a table is locked.
    for_writes: Arc<Semaphore>,
    named_statements: bool,
    patience: Duration,
    /// Where the database is, for errors.
    place: Arc<str>,
}

/// One connection, for one piece of work.
#[derive(Clone)]
pub(crate) struct PooledConnection {
    client: Arc<PooledClient>,
    named_statements: bool,
}

/// A pooled client that returns to the pool when it is dropped.
struct PooledClient {
    client: Object,
    in_transaction: AtomicBool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Deref for PooledClient {
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
        // A pooler refuses connections that set options.
        let config = if transaction_pooler { address.config.clone() } else { address.bounded(patience) };
        let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match address.tls.clone() {
            Some(tls) => Manager::from_config(config, tls, settings),
            None => Manager::from_config(config, NoTls, settings),
        };
        let connections = connections.max(1);
        // Keeps a quarter for reads, and at least one if there are several.
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
        let place = address.place_and_user().into();
        Ok(Self { pool, for_writes, named_statements: !transaction_pooler, patience, place })
    }

    /// Runs work that changes nothing. Repeats it on another connection if the first is lost.
    pub(crate) async fn read<T, F>(
        &self,
        name: &'static str,
        work: impl Fn(PooledConnection) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.persist(name, Work::Read, &work).await
    }

    /// Runs one statement that changes something. If the connection is lost, its outcome is
    /// unknown.
    pub(crate) async fn write<T, F>(
        &self,
        name: &'static str,
        work: impl Fn(PooledConnection) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.persist(name, Work::Write, &work).await
    }

    /// Runs several statements in one transaction. `opening` begins it. Call this from a task of
    /// its own: the outcome of a transaction that is dropped midway is unknown.
    pub(crate) async fn transact<T, F>(
        &self,
        name: &'static str,
        opening: &str,
        work: impl Fn(PooledConnection) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let whole = |connection: PooledConnection| {
            let work = work(connection.clone());
            async move {
                connection.client.in_transaction.store(true, Ordering::Relaxed);
                let done = async {
                    connection.run(opening).await?;
                    let done = work.await?;
                    connection.run("COMMIT").await?;
                    Ok::<T, Fault>(done)
                };
                let done = done.await;
                // Undo after every failure: an opening that failed halfway has begun, and a refused
                // commit leaves the transaction open.
                let left = done.is_ok() || connection.run(UNDO).await.is_ok();
                connection.client.in_transaction.store(!left, Ordering::Relaxed);
                done
            }
        };
        self.persist(name, Work::Write, &whole).await
    }

    /// Repeats work while collisions with other transactions are its only obstacle.
    async fn persist<T, F>(
        &self,
        name: &'static str,
        kind: Work,
        work: &impl Fn(PooledConnection) -> F,
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
                return Err(fault.at(&self.place));
            }
            tracing::info!(transaction = name, attempt, reason = %StoreError::from(fault), "a transaction is repeated");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(StoreError::Unavailable("tried too often".to_owned()))
    }

    /// Takes a connection until it is dropped.
    pub(crate) async fn connection(&self, kind: Work) -> Result<PooledConnection, Fault> {
        let place = match kind {
            Work::Read => None,
            Work::Write => Some(self.place().await?),
        };
        let (client, in_transaction) = (self.pool.get().await?, AtomicBool::new(false));
        let client = Arc::new(PooledClient { client, in_transaction, _place: place });
        Ok(PooledConnection { client, named_statements: self.named_statements })
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Fault> {
        let place = timeout(self.patience, Arc::clone(&self.for_writes).acquire_owned()).await;
        let none = || Fault::NoConnection("no connection for writes became free in time".to_owned());
        place.ok().and_then(Result::ok).ok_or_else(none)
    }

    async fn attempt<T, F>(&self, kind: Work, work: &impl Fn(PooledConnection) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.on(self.connection(kind).await?, work).await
    }

    /// Runs work on this connection, once.
    pub(crate) async fn on<T, F>(
        &self,
        connection: PooledConnection,
        work: impl FnOnce(PooledConnection) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut guard = ReturnGuard { client: Some(Arc::clone(&connection.client)), patience: self.patience };
        let done = timeout(self.patience, work(connection)).await.unwrap_or(Err(Fault::TooLong));
        if let Some(client) = guard.client.take()
            && (matches!(done, Err(Fault::TooLong)) || client.in_transaction.load(Ordering::Relaxed))
        {
            close(client);
        }
        done
    }
}

/// Ends a transaction in any state.
const UNDO: &str = "ROLLBACK";

/// The connection of work that may be dropped midway. It returns to the pool only after the
/// database has finished that work. Otherwise its next user would wait for that work, or write into
/// its transaction.
struct ReturnGuard {
    client: Option<Arc<PooledClient>>,
    patience: Duration,
}

impl Drop for ReturnGuard {
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

/// Closes a connection whose work is in an unknown state, so that nobody reuses it.
fn close(client: Arc<PooledClient>) {
    if let Some(lent) = Arc::into_inner(client) {
        drop(Object::take(lent.client));
    }
}

impl PooledConnection {
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

    /// Runs a statement and counts the rows that it changed.
    pub(crate) async fn execute(&self, sql: &str, bounds: &[Bound<'_>]) -> Result<u64, Fault> {
        if !self.named_statements {
            return Ok(self.client.execute_typed(sql, bounds).await?);
        }
        let types: Vec<Type> = bounds.iter().map(|(_, kind)| kind.clone()).collect();
        let statement = self.client.prepare_typed_cached(sql, &types).await?;
        let values: Vec<_> = bounds.iter().map(|(value, _)| *value).collect();
        Ok(self.client.execute(&statement, &values).await?)
    }

    /// Runs statements that take no values.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), Fault> {
        Ok(self.client.batch_execute(sql).await?)
    }
}

/// Without this, the database repeats its first answer within a transaction.
pub(crate) const LOOK_AGAIN: &str = "SELECT pg_stat_clear_snapshot()";
const GATEWAYS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1";

/// Number of connections that gateways have to the database, as far as it shows them to our role.
pub(crate) async fn gateways(connection: &PooledConnection) -> Result<u64, Fault> {
    connection.run(LOOK_AGAIN).await?;
    Ok(Columns::of(&connection.query_one(GATEWAYS, &bounds![TEXT: GATEWAY]).await?, "a count").count()?)
}

const WHO: &str = "SELECT pg_backend_pid()";

/// Whether an address leads to a pooler in transaction mode. There, a query outside a transaction
/// runs on a free server connection, not on the one that a transaction holds.
pub(crate) async fn is_pooled(address: &Address) -> Result<bool, Fault> {
    let connect = || Database::new(address, 1, true, 2 * CONNECT);
    let (asking, active) = (connect()?, connect()?);
    let compare = compare(asking.connection(Work::Read).await?, active.connection(Work::Read).await?);
    timeout(2 * CONNECT, compare).await.unwrap_or(Err(Fault::TooLong))
}

/// The error of that question, with the place of the database.
pub(crate) fn not_asked(address: &Address, fault: Fault) -> StoreError {
    fault.at(&address.place_and_user())
}

async fn compare(asking: PooledConnection, active: PooledConnection) -> Result<bool, Fault> {
    let first = who(&asking).await?;
    active.run("BEGIN").await?;
    let active_server = who(&active).await?;
    let second = who(&asking).await?;
    active.run("ROLLBACK").await?;
    Ok(first == active_server || first != second)
}

async fn who(connection: &PooledConnection) -> Result<i32, Fault> {
    Ok(Columns::of(&connection.query_one(WHO, &bounds![]).await?, "a connection").take()?)
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

    /// Otherwise the connection's next user writes into the open transaction and believes that it
    /// was committed.
    #[tokio::test]
    async fn a_transaction_that_is_left_midway_is_ended_before_anybody_else_gets_its_connection() {
        let server = Server::start("");
        let address = server.address(&server.database().await);
        let database = Database::new(&address, 1, false, Duration::from_secs(10)).unwrap();
        database
            .write("make", async |connection: PooledConnection| {
                connection.run("CREATE TABLE t (n integer)").await
            })
            .await
            .unwrap();
        let leaving = {
            let database = database.clone();
            let work = async |connection: PooledConnection| -> Result<(), Fault> {
                connection.run("INSERT INTO t VALUES (1)").await?;
                panic!("a defect")
            };
            tokio::spawn(async move { database.transact("leave", "BEGIN", work).await })
        };
        assert!(leaving.await.unwrap_err().is_panic());
        database
            .write("write", async |connection: PooledConnection| {
                connection.run("INSERT INTO t VALUES (2)").await
            })
            .await
            .unwrap();
        drop(database);
        let beside = Database::new(&address, 1, false, Duration::from_secs(10)).unwrap();
        let row = beside
            .read("read", async |connection: PooledConnection| {
                connection.query_one("SELECT sum(n) FROM t", &[]).await
            })
            .await;
        assert_eq!(row.unwrap().get::<_, i64>(0), 2, "the one is undone, and the other is there");
    }
}
