//! Reads the values of SQLite's columns.

use claviger_store::{
    StoreError,
    archive::{Count, Found, Key, Record},
    codec::{self, ColumnReader},
    corrupt,
};
use rusqlite::{Connection, Params, Row, types::FromSql};

use crate::error::Fault;

/// Returns a limit as SQLite takes it.
pub(crate) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Reads a row's columns from left to right.
pub(crate) struct Columns<'row> {
    row: &'row Row<'row>,
    next: usize,
}

impl<'row> Columns<'row> {
    pub(crate) fn of(row: &'row Row<'row>) -> Self {
        Self { row, next: 0 }
    }

    pub(crate) fn take<T: FromSql>(&mut self) -> Result<T, StoreError> {
        let value = self.peek()?;
        self.next += 1;
        Ok(value)
    }

    /// Returns the next column without taking it.
    pub(crate) fn peek<T: FromSql>(&self) -> Result<T, StoreError> {
        self.row.get(self.next).map_err(|_| self.damage(self.next))
    }
}

impl ColumnReader for Columns<'_> {
    fn position(&self) -> usize {
        self.next
    }

    fn damage(&self, column: usize) -> StoreError {
        let name = self.row.as_ref().column_name(column).unwrap_or("unknown");
        corrupt(&format!("column {name}"))
    }

    fn integer(&mut self) -> Result<Option<i64>, StoreError> {
        self.take()
    }

    fn code(&mut self) -> Result<i16, StoreError> {
        self.take()
    }

    fn flag(&mut self) -> Result<Option<bool>, StoreError> {
        self.take()
    }

    fn id(&mut self) -> Result<Option<[u8; 16]>, StoreError> {
        self.take()
    }

    fn octets<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.take()
    }

    fn blob(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        self.take()
    }

    fn text(&mut self) -> Result<String, StoreError> {
        self.take()
    }

    fn name<T>(&mut self, known: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        let column = self.next;
        let value = self.row.get_ref(column).map_err(|_| self.damage(column))?;
        self.next += 1;
        match value.as_str_or_null().map_err(|_| self.damage(column))? {
            Some(name) => known(name).map(Some).ok_or_else(|| self.damage(column)),
            None => Ok(None),
        }
    }
}

/// Reads the result of a statement that counts rows, and parts of rows that belong to no row.
pub(crate) fn count_by(connection: &Connection, sql: &str) -> Result<Count, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(codec::table_count(&mut Columns::of(row))?)
}

/// Reads the rows of a statement's result. `decode` returns the key of each and the result of
/// reading it.
pub(crate) fn page_of(
    connection: &Connection,
    sql: &str,
    bounds: impl Params,
    decode: impl Fn(&mut Columns<'_>) -> Result<(Key, Result<Record, StoreError>), Fault>,
) -> Result<Vec<Found>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(bounds)?;
    let mut page = Vec::new();
    while let Some(row) = found.next()? {
        let (key, record) = decode(&mut Columns::of(row))?;
        page.push(Found::of(key, record)?);
    }
    Ok(page)
}
