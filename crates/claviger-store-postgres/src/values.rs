//! Conversion of values to and from PostgreSQL's column types.

use std::borrow::Cow;

use claviger_core::{AttemptId, SessionId, Slot, Timestamp};
use claviger_store::{StoreError, codec::ColumnReader, corrupt};
use tokio_postgres::{Row, types::FromSql};
use uuid::Uuid;

/// Reads a row's columns from left to right. The first column names the row.
pub(crate) struct Columns<'row> {
    row: &'row Row,
    what: &'static str,
    next: usize,
}

impl<'row> Columns<'row> {
    /// `what` names the kind of row, as in "session".
    pub(crate) fn of(row: &'row Row, what: &'static str) -> Self {
        Self { row, what, next: 0 }
    }

    pub(crate) fn take<T: FromSql<'row>>(&mut self) -> Result<T, StoreError> {
        let value = self.peek()?;
        self.next += 1;
        Ok(value)
    }

    /// The next column, without taking it.
    pub(crate) fn peek<T: FromSql<'row>>(&self) -> Result<T, StoreError> {
        self.row.try_get(self.next).map_err(|_| self.damage(self.next))
    }

    /// Takes a column and decodes it. `decode` returns None for an unknown value.
    pub(crate) fn read<T: FromSql<'row>, U>(
        &mut self,
        decode: impl FnOnce(T) -> Option<U>,
    ) -> Result<U, StoreError> {
        let column = self.next;
        decode(self.take()?).ok_or_else(|| self.damage(column))
    }
}

impl ColumnReader for Columns<'_> {
    fn position(&self) -> usize {
        self.next
    }

    /// Describes a damaged column, and its row if that has an id.
    fn damage(&self, column: usize) -> StoreError {
        let name = self.row.columns().get(column).map_or("unknown", |column| column.name());
        let row = self.row.try_get::<_, Uuid>(0).map(|id| format!(" {id}"));
        let row = row.or_else(|_| self.row.try_get::<_, i64>(0).map(|id| format!(" {id}")));
        corrupt(&format!("column {name} of {}{}", self.what, row.unwrap_or_default()))
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
        Ok(self.take::<Option<Uuid>>()?.map(Uuid::into_bytes))
    }

    fn octets<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.read(|octets: &[u8]| octets.try_into().ok())
    }

    fn blob(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        self.take()
    }

    /// A text written by [`text_column`].
    fn text(&mut self) -> Result<String, StoreError> {
        self.read(text)
    }

    fn name<T>(&mut self, known: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        self.read(|name: Option<&str>| match name {
            Some(name) => known(name).map(Some),
            None => Some(None),
        })
    }
}

pub(crate) fn session_column(id: SessionId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

pub(crate) fn attempt_column(attempt: AttemptId) -> Uuid {
    Uuid::from_bytes(attempt.0)
}

/// The hour of a time, clamped to the column's range.
pub(crate) fn hour_column(time: Timestamp) -> i32 {
    let hour = time.as_millis() / 3_600_000;
    i32::try_from(hour).unwrap_or(if hour < 0 { i32::MIN } else { i32::MAX })
}

/// Escapes a text. PostgreSQL's texts cannot hold NUL, which a provider's user name may. So NUL is
/// written as `\0`, and a backslash as two.
pub(crate) fn text_column(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', '\\']) {
        Cow::Owned(text.replace('\\', "\\\\").replace('\0', "\\0"))
    } else {
        Cow::Borrowed(text)
    }
}

fn text(column: &str) -> Option<String> {
    let mut text = String::with_capacity(column.len());
    let mut rest = column.chars();
    while let Some(letter) = rest.next() {
        text.push(match letter {
            '\\' => match rest.next()? {
                '0' => '\0',
                '\\' => '\\',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(text)
}

/// Slots count to 1023.
pub(crate) fn slot_column(slot: Slot) -> i16 {
    i16::try_from(slot.number()).unwrap_or(i16::MAX)
}

/// A limit as PostgreSQL takes it.
pub(crate) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        for plain in ["", "Ada", "ß 🦀", "\0", "a\0b\\0\\", "\\"] {
            let column = text_column(plain);
            assert!(!column.contains('\0'), "{plain:?}");
            assert_eq!(text(&column).as_deref(), Some(plain));
        }
        for damaged in ["\\", "\\x", "a\\"] {
            assert_eq!(text(damaged), None, "{damaged:?}");
        }
    }
}
