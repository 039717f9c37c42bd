//! Backs a store up while a gateway uses it.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use rusqlite::{Connection, OpenFlags, backup::Backup};

use crate::{
    error::OpenError,
    file,
    pool::{self, Options},
    schema,
};

/// Number of pages that are copied at a time: all, so that one state of the file is copied. Writers
/// go on meanwhile.
const ALL_PAGES: i32 = -1;

/// Why there is no backup. No file is left then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file exists. It is not overwritten, since it may be the last good backup.
    #[error("{0} exists already; name another file")]
    Exists(String),
    /// The file cannot be written.
    #[error("the backup cannot be written to {0}")]
    Destination(String, #[source] io::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Source(#[from] OpenError),
    /// The pages cannot be copied, or the copy is damaged.
    #[error("the backup {0} failed ({1})")]
    Copy(String, String),
}

/// Copies the store at `from` into a new file, by SQLite's online backup. Blocks the thread.
///
/// A gateway may use the store meanwhile. The backup holds the state of one moment, and only its
/// owner can read it.
///
/// # Errors
/// [`BackupError`].
pub fn back_up(from: &Path, to: &Path) -> Result<(), BackupError> {
    if !from.is_file() {
        return Err(OpenError::NoFile(from.to_owned()).into());
    }
    let from = &file::real(from)?;
    let source = pool::connect(from, &Options::default(), OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| OpenError::sql(from, &error))?;
    schema::inspect(&source, from)?;
    create_new(to)?;
    copy(&source, to).inspect_err(|_| {
        // What was copied is of no use. That it is left is only untidy.
        let _untidy = fs::remove_file(to);
    })
}

fn create_new(to: &Path) -> Result<(), BackupError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(to) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(BackupError::Exists(to.display().to_string()))
        }
        Err(error) => Err(BackupError::Destination(to.display().to_string(), error)),
    }
}

fn copy(source: &Connection, to: &Path) -> Result<(), BackupError> {
    let failed = |why: String| BackupError::Copy(to.display().to_string(), why);
    let copied = || -> rusqlite::Result<String> {
        let mut destination = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Backup::new(source, &mut destination)?.step(ALL_PAGES)?;
        destination.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    match copied().map_err(|error| failed(crate::error::of_sql(&error).to_string()))?.as_str() {
        "ok" => {}
        _ => return Err(failed("the copy is damaged; is the store?".to_owned())),
    }
    let synced = fs::File::open(to).and_then(|file| file.sync_all());
    synced.map_err(|error| BackupError::Destination(to.display().to_string(), error))
}
