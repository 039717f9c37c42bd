//! Opens the connections, and holds those that read.
//!
//! Reads run inside the async task that asks. A read takes about ten microseconds, and handing it
//! to another thread takes several times that. While the disk does not answer writes, they do run
//! in other threads, and the tasks wait for limited time.

use std::{
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use claviger_core::{SessionId, Slot};
use claviger_store::StoreError;
use rusqlite::{Connection, OpenFlags, config::DbConfig, functions::FunctionFlags};

use crate::error::{Fault, OpenError};

/// How the store uses the machine. The defaults suit most deployments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of reads that run at a time, at least one.
    pub readers: usize,
    /// KiB of the file that each connection caches. There is one connection more than readers.
    pub cache_kib: u32,
    /// How long a call waits for the disk.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 4, cache_kib: 2048, patience: PATIENCE }
    }
}

/// Default of how long a call waits for the disk: longer than SQLite waits for a lock.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long SQLite waits for a lock that another program holds, such as a backup.
const BUSY: Duration = Duration::from_secs(5);
/// Number of 4 KiB pages at which the log is copied into the file: 40 MiB. This is ten times
/// SQLite's default, and made updates of scattered rows 1.6 times as fast.
const CHECKPOINT_PAGES: i64 = 10_000;
/// Number of bytes to which the log's file is truncated after a burst.
const LOG_BYTES: i64 = 64 * 1024 * 1024;
/// Number of prepared statements that a connection keeps: more than there are.
const STATEMENTS: usize = 96;

/// Opens the connection that writes. Changes nothing in the file yet.
pub(crate) fn writing_connection(path: &Path, options: &Options) -> Result<Connection, OpenError> {
    let connect = || -> rusqlite::Result<_> {
        let connection = connect(path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let read_only = connection.is_readonly("main")?;
        Ok((connection, read_only))
    };
    match connect().map_err(|error| OpenError::sql(path, &error))? {
        (connection, false) => Ok(connection),
        (_, true) => Err(OpenError::Store {
            path: path.to_owned(),
            source: StoreError::ReadOnly("the file may not be written".to_owned()),
        }),
    }
}

/// Makes each commit durable, keeps readers and the writer from blocking each other, and overwrites
/// deleted data.
pub(crate) fn make_durable(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let set = || -> rusqlite::Result<String> {
        let mode = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        Ok(mode)
    };
    match set().map_err(|error| OpenError::sql(path, &error))?.as_str() {
        "wal" => Ok(()),
        _ => Err(OpenError::Store {
            path: path.to_owned(),
            source: StoreError::Unavailable("its file system allows no write-ahead log".to_owned()),
        }),
    }
}

/// Refuses every change. The connection still removes the log that a killed process left.
pub(crate) fn make_unchangeable(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    connection.pragma_update(None, "query_only", true).map_err(|error| OpenError::sql(path, &error))
}

pub(crate) fn connect(path: &Path, options: &Options, mode: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    // A negative size is in KiB.
    connection.pragma_update(None, "cache_size", -i64::from(options.cache_kib))?;
    // A damaged schema may not call functions with side effects.
    connection.pragma_update(None, "trusted_schema", false)?;
    // Otherwise SQLite re-plans statements with partial indexes whenever a parameter changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("slot", 1, flags, |context| slot_of(context.get(0)?))?;
    Ok(connection)
}

/// Adds the SQL function `slot(id)`. The slot follows from the id, so no row can be in a wrong
/// slot.
fn slot_of(id: [u8; 16]) -> rusqlite::Result<u16> {
    Ok(Slot::of(SessionId::from_bytes(id)).number())
}

/// The connections that only read.
pub(crate) struct Pool {
    readers: Vec<Mutex<Connection>>,
    turn: AtomicUsize,
}

impl Pool {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let one = |_| connect(path, options, OpenFlags::SQLITE_OPEN_READ_ONLY).map(Mutex::new);
        let readers: Result<_, _> = (0..options.readers.max(1)).map(one).collect();
        let readers = readers.map_err(|error| OpenError::sql(path, &error))?;
        Ok(Self { readers, turn: AtomicUsize::new(0) })
    }

    /// Runs `work` on a free connection, or waits for the next one in turn.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let connection = self.reader().ok_or_else(|| StoreError::Unavailable("closed".to_owned()))?;
        work(&connection).map_err(|Fault(error)| error)
    }

    /// A connection that is free now.
    pub(crate) fn free(&self) -> Option<MutexGuard<'_, Connection>> {
        let turn = self.turn();
        let (before, after) = self.readers.split_at_checked(turn)?;
        after.iter().chain(before).find_map(|reader| match reader.try_lock() {
            Ok(free) => Some(free),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    fn reader(&self) -> Option<MutexGuard<'_, Connection>> {
        self.free().or_else(|| {
            let next = self.readers.get(self.turn())?;
            Some(next.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(self.readers.len()).unwrap_or_default()
    }

    /// Closes the connections. No reads are possible after this.
    pub(crate) fn close(&mut self) {
        self.readers.clear();
    }
}
