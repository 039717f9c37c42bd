//! Values as columns and back.

use claviger_core::{
    ids::{AttemptId, Version},
    policy::Custody,
    time::{Expiry, Timestamp},
};
use claviger_store::{StoreError, corrupt};
use rusqlite::{Row, types::FromSql};

use crate::error::Fault;

/// Reads a row's columns from left to right. What does not decode is damage, and the column's name says where.
pub(crate) struct Columns<'row> {
    row: &'row Row<'row>,
    next: usize,
}

impl<'row> Columns<'row> {
    pub(crate) fn of(row: &'row Row<'row>) -> Self {
        Self { row, next: 0 }
    }

    pub(crate) fn take<T: FromSql>(&mut self) -> Result<T, Fault> {
        let value = self.row.get(self.next).map_err(|_| self.damage(self.next))?;
        self.next += 1;
        Ok(value)
    }

    /// The column that comes next, without taking it.
    pub(crate) fn peek<T: FromSql>(&self) -> Result<T, Fault> {
        self.row.get(self.next).map_err(|_| self.damage(self.next))
    }

    /// Takes a column and reads it with `decode`, which gives none for what it does not know.
    pub(crate) fn read<T: FromSql, U>(&mut self, decode: impl FnOnce(T) -> Option<U>) -> Result<U, Fault> {
        let column = self.next;
        decode(self.take()?).ok_or_else(|| self.damage(column))
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, Fault> {
        self.take().map(millis)
    }

    pub(crate) fn version(&mut self) -> Result<Version, Fault> {
        self.read(version)
    }

    /// Who holds a lease, if anybody ever did.
    pub(crate) fn holder(&mut self) -> Result<Option<AttemptId>, Fault> {
        Ok(self.take::<Option<[u8; 16]>>()?.map(AttemptId))
    }

    /// The two columns of a token's expiry.
    pub(crate) fn expiry(&mut self) -> Result<Expiry, Fault> {
        let column = self.next;
        self.maybe_expiry()?.ok_or_else(|| self.damage(column))
    }

    /// The two columns of a token's expiry, where there may be no token.
    pub(crate) fn maybe_expiry(&mut self) -> Result<Option<Expiry>, Fault> {
        let column = self.next;
        let kind: Option<String> = self.take()?;
        let at: Option<i64> = self.take()?;
        match (kind.as_deref(), at) {
            (None, None) => Ok(None),
            (Some("at"), Some(at)) => Ok(Some(Expiry::At(millis(at)))),
            (Some("unknown"), None) => Ok(Some(Expiry::Unknown)),
            (Some("never"), None) => Ok(Some(Expiry::Never)),
            _ => Err(self.damage(column)),
        }
    }

    /// Which column comes next.
    pub(crate) fn position(&self) -> usize {
        self.next
    }

    /// The error that names a column, and tells nothing of what is in it.
    pub(crate) fn damage(&self, column: usize) -> Fault {
        let name = self.row.as_ref().column_name(column).unwrap_or("unknown");
        Fault(corrupt(&format!("column {name}")))
    }
}

pub(crate) fn millis(value: i64) -> Timestamp {
    Timestamp::from_millis(value)
}

pub(crate) fn expiry_columns(expiry: Expiry) -> (&'static str, Option<i64>) {
    match expiry {
        Expiry::At(at) => ("at", Some(at.as_millis())),
        Expiry::Unknown => ("unknown", None),
        Expiry::Never => ("never", None),
    }
}

pub(crate) fn version(column: i64) -> Option<Version> {
    u64::try_from(column).ok().map(Version)
}

/// SQLite's integers have a sign. No row is changed often enough to notice.
pub(crate) fn version_column(version: Version) -> Result<i64, StoreError> {
    i64::try_from(version.0).map_err(|_| StoreError::Unavailable("a version is out of range".to_owned()))
}

pub(crate) fn custody_column(custody: Custody) -> &'static str {
    match custody {
        Custody::Device => "device",
        Custody::Server => "server",
        Custody::None => "none",
    }
}

pub(crate) fn custody(column: &str) -> Option<Custody> {
    match column {
        "device" => Some(Custody::Device),
        "server" => Some(Custody::Server),
        "none" => Some(Custody::None),
        _ => None,
    }
}
