//! Creates and upgrades the tables of a file.
//!
//! There is no crate for migrations here: a list and SQLite's `user_version` are shorter.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::OpenError;

/// The steps of the schema, in order. A released step never changes. The schema's number is their
/// count.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_sessions.sql"),
    include_str!("../migrations/0002_claims.sql"),
    include_str!("../migrations/0003_slots.sql"),
];

/// Marks the file as ours (`PRAGMA application_id`): "Clav".
const APPLICATION_ID: i64 = 0x436c_6176;

/// Upgrades a file that has the first `found` migrations to the newest schema, in one transaction.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, found: usize) -> Result<(), OpenError> {
    let pending = MIGRATIONS.get(found..).unwrap_or_default();
    if pending.is_empty() {
        return Ok(());
    }
    apply(connection, pending).map_err(|error| OpenError::sql(path, &error))?;
    tracing::info!(from = found, to = MIGRATIONS.len(), "the session store has a new schema");
    Ok(())
}

/// Returns the number of migrations that the file has. Refuses files of other programs and of newer
/// versions.
pub(crate) fn inspect(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let ask = |sql| {
        let answer = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        answer.map_err(|error| OpenError::sql(path, &error))
    };
    let version = ask("PRAGMA user_version")?;
    let new = version == 0 && ask("SELECT count(*) FROM sqlite_schema")? == 0;
    let ours = ask("PRAGMA application_id")? == APPLICATION_ID;
    if !new && !ours {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    match usize::try_from(version) {
        Ok(found) if found <= MIGRATIONS.len() => Ok(found),
        _ => Err(OpenError::Newer { path: path.to_owned(), found: version, known: newest() }),
    }
}

fn apply(connection: &mut Connection, pending: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in pending {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", newest())?;
    transaction.commit()
}

/// Writes a value that is already there, so that a file that cannot be written causes an error.
pub(crate) fn rewrite(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", newest())
}

/// Refuses a file that [`migrate`] would change.
pub(crate) fn require_newest(path: &Path, found: usize) -> Result<(), OpenError> {
    if found == MIGRATIONS.len() {
        return Ok(());
    }
    Err(OpenError::Older { path: path.to_owned(), found, known: newest() })
}

fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}
