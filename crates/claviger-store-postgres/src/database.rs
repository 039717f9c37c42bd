//! Who gets a connection, how long it may take, and what is tried again.

use std::{sync::Arc, time::Duration};

use claviger_store::StoreError;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
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
    named_statements: bool,
    patience: Duration,
}

/// One connection, for one piece of work.
#[derive(Clone)]
pub(crate) struct Link {
    client: Arc<Object>,
    named_statements: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Changes nothing.
    Read,
    /// One statement.
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
        let pool = Pool::builder(manager)
            .max_size(connections.max(1))
            .wait_timeout(Some(patience))
            .create_timeout(Some(2 * CONNECT))
            .recycle_timeout(Some(CONNECT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| StoreError::Unavailable("connections cannot be made".to_owned()))?;
        Ok(Self { pool, named_statements: !transaction_pooler, patience })
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
        self.persist(name, Work::Read, || self.attempt(&work)).await
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
        self.persist(name, Work::Write, || self.attempt(&work)).await
    }

    /// Has several statements done, all of them or none. `opening` begins the transaction. Run it in a task of its own: a
    /// transaction that is left midway holds its locks until the connection is closed.
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
                let done = async {
                    link.run(opening).await?;
                    let done = work.await?;
                    link.run("COMMIT").await?;
                    Ok::<T, Fault>(done)
                };
                match done.await {
                    Ok(done) => Ok(done),
                    // Whatever failed: also an opening that failed halfway has begun, and a commit that is refused has ended nothing.
                    Err(fault) => match link.run("ROLLBACK").await {
                        Err(_) if !fault.is_lost_connection() => Err(Fault::Adrift),
                        _ => Err(fault),
                    },
                }
            }
        };
        self.persist(name, Work::Write, || self.attempt(&whole)).await
    }

    /// Tries again while the others' work is all that is in the way.
    async fn persist<T, F>(
        &self,
        name: &'static str,
        kind: Work,
        once: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            let fault = match once().await {
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
    pub(crate) async fn link(&self) -> Result<Link, Fault> {
        let client = Arc::new(self.pool.get().await?);
        Ok(Link { client, named_statements: self.named_statements })
    }

    async fn attempt<T, F>(&self, work: &impl Fn(Link) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.on(self.link().await?, work).await
    }

    /// Has work done on this connection, once.
    pub(crate) async fn on<T, F>(&self, link: Link, work: impl FnOnce(Link) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut held = Held { client: Some(Arc::clone(&link.client)), patience: self.patience };
        let done = tokio::time::timeout(self.patience, work(link)).await.unwrap_or(Err(Fault::TooLong));
        let client = held.client.take();
        if let (Err(Fault::TooLong | Fault::Adrift), Some(client)) = (&done, client) {
            close(client);
        }
        done
    }
}

/// The connection of work that may be left midway. Nobody else gets it before the database is done with that work: else they would
/// wait for it, and for whatever it waits for.
struct Held {
    client: Option<Arc<Object>>,
    patience: Duration,
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return close(client) };
        let patience = self.patience;
        runtime.spawn(async move {
            let settled = tokio::time::timeout(patience, client.batch_execute("")).await;
            if !matches!(settled, Ok(Ok(()))) {
                close(client);
            }
        });
    }
}

/// Closes a connection whose work is at an unknown point, so that nobody else gets it.
fn close(client: Arc<Object>) {
    if let Ok(client) = Arc::try_unwrap(client) {
        drop(Object::take(client));
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
    let compare = compare(asking.link().await?, holding.link().await?);
    tokio::time::timeout(2 * CONNECT, compare).await.unwrap_or(Err(Fault::TooLong))
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
