//! The connections: how they are made, and those that read.
//!
//! Reads run inside the async task that asks: one takes some ten microseconds, and handing it to another thread takes
//! several times that.

use std::{
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use claviger_core::{ids::SessionId, sweep::Slot};
use claviger_store::StoreError;
use rusqlite::{Connection, OpenFlags, config::DbConfig, functions::FunctionFlags};

use crate::{
    Options,
    error::{Fault, OpenError},
};

/// SQLite waits so long for a lock that another program holds, such as a backup.
const BUSY: Duration = Duration::from_secs(5);
/// The log is copied into the file when it has so many pages of 4 KiB: 40 MiB. Ten times SQLite's default, which made
/// updates of scattered rows 1.6 times as fast.
const CHECKPOINT_PAGES: i64 = 10_000;
/// After a burst the log's file is cut back to so many bytes.
const LOG_BYTES: i64 = 64 * 1024 * 1024;
/// A connection keeps so many statements prepared: more than there are.
const STATEMENTS: usize = 64;

/// The connection that writes, with nothing in the file changed yet.
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

/// Lets each commit be durable, readers and the writer not wait for each other, and what is deleted be overwritten.
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

/// Refuses every change. The connection still tidies away the log that a killed process left.
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
    // Else statements with partial indices are planned anew whenever a parameter has another value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("slot", 1, flags, |context| slot_of(context.get(0)?))?;
    Ok(connection)
}

/// The function `slot(id)` of our statements. It follows from the id, so no row can stand in a wrong place.
fn slot_of(id: [u8; 16]) -> rusqlite::Result<u16> {
    Ok(Slot::of(SessionId::from_bytes(id)).number())
}

/// Connections that only read.
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

    /// Runs `work` on a connection that is free, or waits for the one whose turn it is.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let connection = self.reader().ok_or_else(|| StoreError::Unavailable("closed".to_owned()))?;
        work(&connection).map_err(|Fault(error)| error)
    }

    fn reader(&self) -> Option<MutexGuard<'_, Connection>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(self.readers.len())?;
        let (before, after) = self.readers.split_at_checked(turn)?;
        for reader in after.iter().chain(before) {
            match reader.try_lock() {
                Ok(free) => return Some(free),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let reader = after.first()?;
        Some(reader.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes the connections. After this nothing can be read.
    pub(crate) fn close(&mut self) {
        self.readers.clear();
    }
}
