//! Errors, classified by SQLite's codes. SQLite's own messages are dropped: they may hold secrets
//! that must not be logged.

use std::{
    io,
    path::{Path, PathBuf},
};

use claviger_store::{StoreError, corrupt};
use rusqlite::{Error as SqlError, ffi, ffi::ErrorCode};

/// Why the store could not be opened. The operator must act on each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory does not exist. It is not created, since a mistyped path would start an empty
    /// store.
    #[error("the directory {} of the session store does not exist; create it or correct the path", .0.display())]
    NoDirectory(PathBuf),
    /// The file does not exist. It is not created, since an empty source is a mistake.
    #[error("there is no session store at {}; correct the path", .0.display())]
    NoFile(PathBuf),
    /// A copy into the file is not finished. It lacks sessions, so serving from it would sign their
    /// users out.
    #[error(
        "a copy into the session store {} was not finished; run `claviger store copy` again, which goes on where it stood",
        .0.display()
    )]
    Unfinished(PathBuf),
    /// A file serves one process at a time.
    #[error("the session store {} is in use by {holder}; one file serves one process at a time", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// The process that uses it, if known.
        holder: String,
    },
    /// The file has several names. Each name would have a lock and a log of its own, so two
    /// processes could open the file.
    #[error(
        "the session store {} is one file with several names (hard links), and could be opened under each of them at once; \
         delete the other names, or use a copy of the file",
        .0.display()
    )]
    SeveralNames(PathBuf),
    /// The file has an older schema, and must be upgraded before it can be read.
    #[error(
        "the session store {} has schema {found}, and {known} is the newest; nothing was changed in it: start a gateway on it \
         once, or copy it, and it has the newest",
        .path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its schema; 0 if it has none.
        found: usize,
        /// The newest schema.
        known: i64,
    },
    /// A newer version of this program wrote the file.
    #[error(
        "the session store {} has schema {found}, and this version knows schemas up to {known}; use the newer version",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
    /// The file is a database of another program.
    #[error("{} is a database, but no session store; nothing was changed in it", .0.display())]
    Foreign(PathBuf),
    /// The linked SQLite may damage files: its WAL-reset bug was fixed in 3.51.3
    /// (sqlite.org/wal.html).
    #[error("SQLite {0} may damage its files; at least 3.51.3 is needed")]
    OldSqlite(&'static str),
    /// An error that can also happen after opening.
    #[error("the session store {} cannot be opened", .path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: StoreError,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self::Store { path: path.to_owned(), source: of_io(error) }
    }

    pub(crate) fn sql(path: &Path, error: &SqlError) -> Self {
        Self::Store { path: path.to_owned(), source: of_sql(error) }
    }
}

/// A [`StoreError`] that `?` makes from SQLite's errors.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) StoreError);

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        Self(of_sql(&error))
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

pub(crate) fn of_sql(error: &SqlError) -> StoreError {
    match error {
        SqlError::SqliteFailure(code, _) | SqlError::SqlInputError { error: code, .. } => of_code(*code),
        SqlError::FromSqlConversionFailure(column, ..)
        | SqlError::IntegralValueOutOfRange(column, _)
        | SqlError::InvalidColumnType(column, ..)
        | SqlError::InvalidColumnIndex(column) => corrupt(&format!("column {column} of a result")),
        SqlError::Utf8Error(..) => corrupt("a text that is not UTF-8"),
        SqlError::QueryReturnedNoRows => corrupt("a result without a row"),
        _ => StoreError::Unavailable("an unexpected answer of SQLite".to_owned()),
    }
}

fn of_code(code: ffi::Error) -> StoreError {
    let text = format!("{}, SQLite's code {}", ffi::code_to_str(code.extended_code), code.extended_code);
    match code.code {
        ErrorCode::DiskFull => StoreError::Full(text),
        ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            StoreError::ReadOnly(format!("{text}; {MAKE_WRITABLE}"))
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(text),
        _ => StoreError::Unavailable(text),
    }
}

fn of_io(error: &io::Error) -> StoreError {
    let text = error.kind().to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(text),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::IsADirectory => {
            StoreError::ReadOnly(format!("{text}; {MAKE_WRITABLE}"))
        }
        _ => StoreError::Unavailable(text),
    }
}

/// SQLite needs the directory, too: it keeps two files beside the database.
const MAKE_WRITABLE: &str =
    "the operator must make the file and its directory writable for the user of the gateway";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_from_codes() {
        type Kind = fn(String) -> StoreError;
        let table: [(i32, Kind); 9] = [
            (ffi::SQLITE_FULL, StoreError::Full),
            (ffi::SQLITE_READONLY, StoreError::ReadOnly),
            (ffi::SQLITE_CANTOPEN, StoreError::ReadOnly),
            (ffi::SQLITE_PERM, StoreError::ReadOnly),
            (ffi::SQLITE_CORRUPT, StoreError::Corrupt),
            (ffi::SQLITE_NOTADB, StoreError::Corrupt),
            (ffi::SQLITE_BUSY, StoreError::Unavailable),
            (ffi::SQLITE_IOERR_WRITE, StoreError::Unavailable),
            (ffi::SQLITE_CONSTRAINT, StoreError::Unavailable),
        ];
        for (code, kind) in table {
            let error = SqlError::SqliteFailure(ffi::Error::new(code), Some("canary".to_owned()));
            let told = of_sql(&error);
            let empty = kind(String::new());
            assert_eq!(std::mem::discriminant(&told), std::mem::discriminant(&empty), "code {code}: {told}");
            assert!(!told.to_string().contains("canary"), "SECRET: SQLite's own words stay inside: {told}");
        }
    }
}
