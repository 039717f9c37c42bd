//! What went wrong, told by PostgreSQL's codes and never by its words: those may hold what a log must not.

use std::path::PathBuf;

use claviger_store::StoreError;
use deadpool_postgres::PoolError;
use tokio_postgres::{
    Error as SqlError,
    error::{DbError, Severity, SqlState},
};

/// Why an address of a database cannot be used. No address is shown, since it may hold a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is no address.
    #[error("is not the address of a PostgreSQL database, such as postgres://claviger@db.example/claviger")]
    Malformed,
    /// It says something that would weaken the protection of the way there.
    #[error(
        "must not say sslmode: TLS is always used, unless the database is on a socket in the file system, or plain text \
         is allowed by its own setting"
    )]
    SslMode,
    /// Some of its hosts are sockets in the file system and others are not.
    #[error("names both sockets in the file system and other hosts; give one kind")]
    Mixed,
    /// The certificates cannot be read.
    #[error("{}: no certificates can be read from it", .0.display())]
    Certificates(PathBuf),
    /// TLS cannot be set up.
    #[error("TLS towards the database cannot be set up")]
    Tls,
}

impl AddressError {
    /// Whether the certificates are at fault, and not the address.
    pub fn is_of_certificates(&self) -> bool {
        matches!(self, Self::Certificates(_))
    }
}

/// Why the store could not be opened. Each is the operator's to solve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer version of this program changed the tables in a way that this one cannot work with.
    #[error(
        "the session store has schema {found}, which needs a program that knows schema {needs}; this one knows up to {known}: \
         use the newer version"
    )]
    Newer {
        /// Its schema.
        found: i32,
        /// The schema that a program has to know.
        needs: i32,
        /// The newest schema that this version knows.
        known: i32,
    },
    /// It would be changed in a way that gateways of a release before the last cannot work with.
    #[error(
        "the session store has schema {found}, and this version takes away what gateways use that know no schema {needs}: a \
         release was left out. Nothing was changed. Stop all gateways, then run `claviger migrate`"
    )]
    LeavesOut {
        /// Its schema.
        found: i32,
        /// The schema that a program has to know from then on.
        needs: i32,
    },
    /// And such gateways may be running.
    #[error(
        "the session store has schema {found}, and a release was left out: gateways that know no schema {needs} cannot work with \
         what this version makes of it, and gateways are connected to the database ({connected} connections). Nothing was \
         changed. Stop all of them first"
    )]
    GatewaysConnected {
        /// Its schema.
        found: i32,
        /// The schema that a program has to know from then on.
        needs: i32,
        /// Their connections.
        connected: u64,
    },
    /// The role may use the tables and not change them.
    #[error(
        "the session store has to be brought to a newer schema, which only the role can do that owns its tables; nothing was \
         changed: run `claviger migrate` with an address of that role"
    )]
    NotOwner,
    /// The database is older than any that is tried.
    #[error("the database is PostgreSQL {found}; at least 13 is needed")]
    OldPostgres {
        /// Its version.
        found: i32,
    },
    /// A schema of our name is there without our tables.
    #[error("the database has a schema named claviger that is no session store; nothing was changed in it")]
    Foreign,
    /// It would have to be changed before it can be read.
    #[error(
        "the session store has schema {found}, and this version reads a newer one; nothing was changed in it: bring it to the \
         newest with `claviger migrate`"
    )]
    Older {
        /// Its schema; 0 is none.
        found: i32,
    },
    /// It lacks sessions, so whoever served from it would sign their users out.
    #[error(
        "a copy into the database was not finished; run `claviger store copy` again, which goes on where it stood"
    )]
    Unfinished,
    /// A pooler stands in the way, and nobody said so.
    #[error(
        "the connections go through a pooler that gives one for a transaction at a time; say so in the settings, or \
         connect to the database itself"
    )]
    Pooler,
    /// The database would not have us, or cannot be reached.
    #[error("the database cannot be used ({0})")]
    Refused(String),
    /// Anything that may also happen later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What stops a piece of work on the database.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The database, or the way there.
    Sql(SqlError),
    /// No connection was to be had.
    NoConnection(String),
    /// It took too long.
    TooLong,
    /// What was found, or what was asked for.
    Store(StoreError),
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<PoolError> for Fault {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::NoConnection(words(&error)),
            PoolError::Timeout(_) => Self::NoConnection("no connection became free in time".to_owned()),
            PoolError::Closed => Self::NoConnection("the store is closed".to_owned()),
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Self::NoConnection("no connection could be made".to_owned())
            }
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sql(error) => of_sql(&error),
            Fault::NoConnection(why) => Self::Unavailable(why),
            Fault::TooLong => Self::Unavailable("the database did not answer in time".to_owned()),
            Fault::Store(error) => error,
        }
    }
}

impl Fault {
    /// Whether the database undid the work because of others at the same time, so that it may be done again.
    pub(crate) fn is_collision(&self) -> bool {
        let collisions = [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED];
        self.code().is_some_and(|code| collisions.contains(&code)) && !self.is_lost_connection()
    }

    /// Whether the connection was lost, and not the database's own no.
    pub(crate) fn is_lost_connection(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        error.is_closed() || error.code().is_none() || ends_connection(error)
    }

    /// Whether the database refused the statement, and so did nothing of it, for something in its values or in a row.
    pub(crate) fn is_refusal_of_values(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        error.code().is_some_and(|code| is_of_values(code) && !ends_connection(error))
    }

    /// Whether a lock was not to be had in time.
    pub(crate) fn is_kept_waiting(&self) -> bool {
        self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether there is a row of this key already.
    pub(crate) fn is_taken(&self) -> bool {
        self.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Sql(error) => error.code(),
            _ => None,
        }
    }
}

/// Whether the database said its last word on this connection. Of what it was at nobody knows how far it came: a server whose log
/// finds no room on the disk stops with the code of a full disk, also at a commit.
fn ends_connection(error: &SqlError) -> bool {
    // Servers say it in two ways, of which poolers leave out the one that is the same in each language.
    let is_last = |error: &DbError| match error.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        None => matches!(error.severity(), "FATAL" | "PANIC"),
    };
    error.as_db_error().is_some_and(is_last) || error.code().is_some_and(is_of_connection)
}

/// Class 08: the connection; 57P01 to 57P05: the server stops, starts, or cut us off.
fn is_of_connection(code: &SqlState) -> bool {
    code.code().starts_with("08") || code.code().starts_with("57P")
}

/// Classes 22 and 23: values and constraints; 40: others' work; P0: a trigger of the operator's; XX: a damaged row. Not what concerns
/// the statement as a whole: a right that is missing, a time that is over, a disk that is full. And not where nobody knows.
fn is_of_values(code: &SqlState) -> bool {
    const UNKNOWN: [SqlState; 2] = [SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN, SqlState::INTERNAL_ERROR];
    let classes = ["22", "23", "40", "P0", "XX"];
    !UNKNOWN.contains(code) && classes.iter().any(|class| code.code().starts_with(class))
}

pub(crate) fn of_sql(error: &SqlError) -> StoreError {
    let told = words(error);
    match error.code() {
        Some(code) if !ends_connection(error) => of_code(code, told),
        _ => StoreError::Unavailable(told),
    }
}

fn of_code(code: &SqlState, told: String) -> StoreError {
    match code.code() {
        "53100" => StoreError::Full(told),
        // A standby, or a role without the right.
        "25006" | "42501" => StoreError::ReadOnly(told),
        // Damaged pages, and tables, columns or functions that are not there.
        "XX001" | "XX002" | "3F000" | "42P01" | "42703" | "42883" => StoreError::Corrupt(told),
        _ => StoreError::Unavailable(told),
    }
}

/// The error by its code. PostgreSQL's own words may quote a row.
pub(crate) fn words(error: &SqlError) -> String {
    if let Some(code) = error.code() {
        let plain = match code.code() {
            "28P01" | "28000" => "the name or the password is refused, ",
            "3D000" => "there is no such database, ",
            "53300" => "all connections that the database allows are in use, ",
            "55P03" => "somebody else holds a table or a row that is needed, ",
            _ => "",
        };
        return format!("{plain}PostgreSQL's code {}", code.code());
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.get_ref().is_none()
        {
            return format!("the connection to the database: {}", io.kind());
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return format!("the connection to the database: TLS: {tls}");
        }
        cause = match error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    if error.is_closed() {
        return "the connection to the database is closed".to_owned();
    }
    // These words are tokio-postgres's own and hold no value.
    let told = error.to_string();
    let kind = told.split(':').next().unwrap_or_default();
    format!("the connection to the database: {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_from_codes() {
        type Told = fn(String) -> StoreError;
        let table: [(&SqlState, Told); 10] = [
            (&SqlState::DISK_FULL, StoreError::Full),
            (&SqlState::READ_ONLY_SQL_TRANSACTION, StoreError::ReadOnly),
            (&SqlState::INSUFFICIENT_PRIVILEGE, StoreError::ReadOnly),
            (&SqlState::DATA_CORRUPTED, StoreError::Corrupt),
            (&SqlState::INDEX_CORRUPTED, StoreError::Corrupt),
            (&SqlState::UNDEFINED_TABLE, StoreError::Corrupt),
            (&SqlState::TOO_MANY_CONNECTIONS, StoreError::Unavailable),
            (&SqlState::ADMIN_SHUTDOWN, StoreError::Unavailable),
            (&SqlState::CHECK_VIOLATION, StoreError::Unavailable),
            (&SqlState::T_R_DEADLOCK_DETECTED, StoreError::Unavailable),
        ];
        for (code, kind) in table {
            let told = of_code(code, String::new());
            assert_eq!(told, kind(String::new()), "{}", code.code());
        }
    }

    #[test]
    fn a_server_that_goes_away_is_a_lost_connection() {
        let table = [
            (&SqlState::ADMIN_SHUTDOWN, true),
            (&SqlState::CRASH_SHUTDOWN, true),
            (&SqlState::CANNOT_CONNECT_NOW, true),
            (&SqlState::CONNECTION_FAILURE, true),
            (&SqlState::QUERY_CANCELED, false),
            (&SqlState::UNIQUE_VIOLATION, false),
        ];
        for (code, lost) in table {
            assert_eq!(is_of_connection(code), lost, "{}", code.code());
        }
    }

    #[test]
    fn what_concerns_the_whole_statement_is_no_refusal_of_a_row() {
        let table = [
            (&SqlState::CHECK_VIOLATION, true),
            (&SqlState::RAISE_EXCEPTION, true),
            (&SqlState::DATA_CORRUPTED, true),
            (&SqlState::T_R_DEADLOCK_DETECTED, true),
            (&SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN, false),
            (&SqlState::INTERNAL_ERROR, false),
            (&SqlState::QUERY_CANCELED, false),
            (&SqlState::LOCK_NOT_AVAILABLE, false),
            (&SqlState::DISK_FULL, false),
            (&SqlState::INSUFFICIENT_PRIVILEGE, false),
            (&SqlState::ADMIN_SHUTDOWN, false),
        ];
        for (code, of_values) in table {
            assert_eq!(is_of_values(code), of_values, "{}", code.code());
        }
    }
}
