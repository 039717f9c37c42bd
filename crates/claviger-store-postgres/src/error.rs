//! Errors by PostgreSQL's codes, never by its messages: those may hold secrets or personal data.

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
    /// It is not an address.
    #[error("is not the address of a PostgreSQL database, such as postgres://claviger@db.example/claviger")]
    Malformed,
    /// It sets an option that would weaken the protection of the connection.
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
    /// Whether the certificates are at fault rather than the address.
    pub fn is_of_certificates(&self) -> bool {
        matches!(self, Self::Certificates(_))
    }
}

/// Why the store could not be opened. The operator can solve each.
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
    /// Migrating would break gateways that are more than one release old.
    #[error(
        "the session store has schema {found}, and a release was skipped: this version breaks gateways that do not know \
         schema {needs}. Nothing was changed. Stop all gateways, then run `claviger migrate`"
    )]
    LeavesOut {
        /// Its schema.
        found: i32,
        /// The schema that a program has to know after the migration.
        needs: i32,
    },
    /// Such gateways may be running.
    #[error(
        "the session store has schema {found}, and a release was skipped: this version breaks gateways that do not know \
         schema {needs}, and gateways are connected to the database ({connected} connections). Nothing was changed. \
         Stop all of them first"
    )]
    GatewaysConnected {
        /// Its schema.
        found: i32,
        /// The schema that a program has to know after the migration.
        needs: i32,
        /// Their connections.
        connected: u64,
    },
    /// The role may use the tables but not change them.
    #[error(
        "the session store needs a newer schema, and only the owner of its tables can change it; nothing was changed: \
         run `claviger migrate` with an address of that role"
    )]
    NotOwner,
    /// The database is older than the oldest supported version.
    #[error("the database is PostgreSQL {found}; at least 13 is needed")]
    OldPostgres {
        /// Its version.
        found: i32,
    },
    /// A schema named `claviger` exists without our tables.
    #[error("the database has a schema named claviger that is no session store; nothing was changed in it")]
    Foreign,
    /// The schema is too old to be read without a migration.
    #[error(
        "the session store has schema {found}, and this version reads a newer one; nothing was changed in it: bring it to the \
         newest with `claviger migrate`"
    )]
    Older {
        /// Its schema; 0 is none.
        found: i32,
    },
    /// A copy into it was not finished. It lacks sessions, so a gateway would sign their users out.
    #[error(
        "a copy into the database was not finished; run `claviger store copy` again, which goes on where it stood"
    )]
    Unfinished,
    /// The connections go through a pooler, and the settings do not say so.
    #[error(
        "the connections go through a pooler that gives one for a transaction at a time; say so in the settings, or \
         connect to the database itself"
    )]
    Pooler,
    /// Any failure that may also happen later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether it may pass without the operator ([`StoreError::may_pass`]).
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Store(error) if error.may_pass())
    }
}

/// What stops a piece of work on the database.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The database or the connection failed.
    Sql(SqlError),
    /// No connection became available.
    NoConnection(String),
    /// The database refuses connections until the operator has acted.
    Refused(String),
    /// It took too long.
    TooLong,
    /// The stored row or the request is at fault.
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
            PoolError::Backend(error) if is_of_operator(&error) => Self::Refused(words(&error)),
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
            Fault::NoConnection(why) => Self::Unreachable(why),
            Fault::Refused(why) => Self::Refused(why),
            Fault::TooLong => Self::Unavailable("the database did not answer in time".to_owned()),
            Fault::Store(error) => error,
        }
    }
}

impl Fault {
    /// Adds where the database is to a failure that concerns the whole of it.
    pub(crate) fn at(self, place: &str) -> StoreError {
        let concerns_all = matches!(self, Self::Sql(_) | Self::TooLong);
        match StoreError::from(self) {
            StoreError::Unavailable(why) if concerns_all => {
                StoreError::Unavailable(format!("{why} [{place}]"))
            }
            StoreError::Unreachable(why) => StoreError::Unreachable(format!("{why} [{place}]")),
            StoreError::Refused(why) => StoreError::Refused(format!("{why} [{place}]")),
            StoreError::ReadOnly(why) => StoreError::ReadOnly(format!("{why} [{place}]")),
            StoreError::Full(why) => StoreError::Full(format!("{why} [{place}]")),
            error => error,
        }
    }

    /// Whether the database rolled the work back because of concurrent transactions, so it may be
    /// repeated.
    pub(crate) fn is_collision(&self) -> bool {
        let collisions = [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED];
        self.code().is_some_and(|code| collisions.contains(&code)) && !self.is_lost_connection()
    }

    /// Whether the connection was lost, as opposed to a refusal by the database.
    pub(crate) fn is_lost_connection(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        error.is_closed() || error.code().is_none() || ends_connection(error)
    }

    /// Whether the database refused the statement, without any effect, because of one of its values
    /// or of a row.
    pub(crate) fn is_refusal_of_values(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        error.code().is_some_and(|code| is_of_values(code) && !ends_connection(error))
    }

    /// Whether a lock was not free in time.
    pub(crate) fn is_kept_waiting(&self) -> bool {
        self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether a row with this key exists already.
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

/// Whether this error ends the connection, so the outcome of the running statement is unknown. A
/// server that cannot write its log stops with the code of a full disk, even during a commit.
fn ends_connection(error: &SqlError) -> bool {
    // Servers send the severity twice. Poolers leave out the one that is the same in each language.
    let is_last = |error: &DbError| match error.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        None => matches!(error.severity(), "FATAL" | "PANIC"),
    };
    error.as_db_error().is_some_and(is_last) || error.code().is_some_and(is_of_connection)
}

/// Class 08: the connection. 57P01 to 57P05: the server stops, starts, or ends our connection.
fn is_of_connection(code: &SqlState) -> bool {
    code.code().starts_with("08") || code.code().starts_with("57P")
}

/// Classes 22 and 23: values and constraints. 40: collisions. P0: a trigger of the operator's. XX:
/// a damaged row. Excluded is what concerns the whole statement: a missing right, a time limit, a
/// full disk. Excluded too are unknown outcomes.
fn is_of_values(code: &SqlState) -> bool {
    const UNKNOWN: [SqlState; 2] = [SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN, SqlState::INTERNAL_ERROR];
    let classes = ["22", "23", "40", "P0", "XX"];
    !UNKNOWN.contains(code) && classes.iter().any(|class| code.code().starts_with(class))
}

/// Whether a connection fails because of what the operator configured, here or in the database:
/// user, password, name of the database, rights, TLS.
fn is_of_operator(error: &SqlError) -> bool {
    match error.code() {
        Some(code) => is_code_of_operator(code),
        None => match cause(error) {
            Some(Cause::Tls(tls)) => matches!(tls, rustls::Error::InvalidCertificate(_)),
            Some(Cause::Io(_)) => false,
            None => words(error).ends_with(NO_TLS),
        },
    }
}

/// Class 28: user and password. 3D000: the database. 42501: the right to connect.
fn is_code_of_operator(code: &SqlState) -> bool {
    code.code().starts_with("28") || ["3D000", "42501"].contains(&code.code())
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
        // A standby.
        "25006" => StoreError::ReadOnly(told),
        // A role without the right.
        "42501" => StoreError::Refused(told),
        // Damaged pages, or missing tables, columns or functions.
        "XX001" | "XX002" | "3F000" | "42P01" | "42703" | "42883" => StoreError::Corrupt(told),
        _ => StoreError::Unavailable(told),
    }
}

/// Describes an error by its code. PostgreSQL's own message may quote a row.
pub(crate) fn words(error: &SqlError) -> String {
    if let Some(code) = error.code() {
        return match meaning(code.code()) {
            Some(plain) => format!("{plain} (PostgreSQL's code {})", code.code()),
            None => format!("PostgreSQL's code {}", code.code()),
        };
    }
    match cause(error) {
        Some(Cause::Io(io)) => return format!("the connection to the database: {}", of_io(io)),
        Some(Cause::Tls(tls)) => {
            return format!("the connection to the database: TLS: {tls}{}", hint_of_tls(tls));
        }
        None => {}
    }
    if error.is_closed() {
        return "the connection to the database is closed".to_owned();
    }
    // This text is tokio-postgres's own and holds no value.
    let told = error.to_string();
    let kind = told.split(':').next().unwrap_or_default();
    let hint = if kind.contains("TLS") { NO_TLS } else { "" };
    format!("the connection to the database: {kind}{hint}")
}

/// What made an error of the connection.
enum Cause<'a> {
    Io(&'a std::io::Error),
    Tls(&'a rustls::Error),
}

fn cause(error: &SqlError) -> Option<Cause<'_>> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        match io.map(|io| (io, io.get_ref())) {
            Some((io, None)) => return Some(Cause::Io(io)),
            Some((_, Some(inner))) => cause = Some(inner),
            None => match error.downcast_ref::<rustls::Error>() {
                Some(tls) => return Some(Cause::Tls(tls)),
                None => cause = error.source(),
            },
        }
    }
    None
}

const NO_TLS: &str = "; turn TLS on at the server, or set store.insecure_plaintext_to_database if nobody else can read \
     the network between";

/// What a code means, and what the operator can do, where both are known.
fn meaning(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" | "28000" => {
            "the database refuses the user or the password; correct them in the address of the store"
        }
        "3D000" => "there is no such database; create it, or correct its name in the address of the store",
        "25006" => "the database is a standby or read-only; name the primary in the address of the store",
        "42501" => {
            "the role lacks a right that it needs; grant it, or run `claviger migrate` as the role that owns the tables"
        }
        "53300" => {
            "all connections that the database allows are in use; raise its max_connections, or lower store.connections"
        }
        "55P03" => "a needed table or row is locked",
        _ => return None,
    })
}

/// What an error of the network means, and what the operator can do, where both are known.
fn of_io(error: &std::io::Error) -> String {
    let hint = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => {
            "; nothing listens there: is the database running, on this port?"
        }
        std::io::ErrorKind::NotFound => "; there is no such socket: is the database running, on this port?",
        std::io::ErrorKind::TimedOut => "; is the address right, and does a firewall let it pass?",
        _ => "",
    };
    format!("{}{hint}", error.kind())
}

fn hint_of_tls(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "; name the authority that signed the server's certificate in store.ca_file"
        }
        rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidForName
            | rustls::CertificateError::NotValidForNameContext { .. },
        ) => "; connect by the name that the certificate is for",
        _ => "",
    }
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
            (&SqlState::INSUFFICIENT_PRIVILEGE, StoreError::Refused),
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
    fn what_the_operator_can_solve_says_what_to_do() {
        for (code, says) in [
            ("28P01", "the user or the password"),
            ("3D000", "create it"),
            ("25006", "name the primary"),
            ("42501", "grant it"),
            ("53300", "store.connections"),
        ] {
            let told = meaning(code).unwrap_or_default();
            assert!(told.contains(says), "{code}: {told}");
        }
        let refused = of_io(&std::io::ErrorKind::ConnectionRefused.into());
        assert!(refused.contains("is the database running"), "{refused}");
        let issuer = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(hint_of_tls(&issuer).contains("store.ca_file"));
    }

    #[test]
    fn who_must_act_on_a_refused_connection_follows_from_its_code() {
        let table = [
            (&SqlState::INVALID_PASSWORD, true),
            (&SqlState::INVALID_AUTHORIZATION_SPECIFICATION, true),
            (&SqlState::INVALID_CATALOG_NAME, true),
            (&SqlState::INSUFFICIENT_PRIVILEGE, true),
            (&SqlState::CANNOT_CONNECT_NOW, false),
            (&SqlState::TOO_MANY_CONNECTIONS, false),
        ];
        for (code, operator) in table {
            assert_eq!(is_code_of_operator(code), operator, "{}", code.code());
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
