//! Values as columns and back.

use std::borrow::Cow;

use claviger_core::{
    ids::{AttemptId, SessionId, Version},
    policy::Custody,
    time::{Expiry, Timestamp},
};
use claviger_store::{StoreError, corrupt};
use tokio_postgres::{Row, types::FromSql};
use uuid::Uuid;

use crate::error::Fault;

/// Reads a row's columns from left to right, the first of which names the row. What does not decode is damage, and
/// the names of column and row say where.
pub(crate) struct Columns<'row> {
    row: &'row Row,
    what: &'static str,
    next: usize,
}

impl<'row> Columns<'row> {
    /// `what` says what a row is, as in "session".
    pub(crate) fn of(row: &'row Row, what: &'static str) -> Self {
        Self { row, what, next: 0 }
    }

    /// The row's last column.
    pub(crate) fn last_of(row: &'row Row, what: &'static str) -> Self {
        Self { row, what, next: row.len().saturating_sub(1) }
    }

    pub(crate) fn take<T: FromSql<'row>>(&mut self) -> Result<T, Fault> {
        let value = self.row.try_get(self.next).map_err(|_| self.damage(self.next))?;
        self.next += 1;
        Ok(value)
    }

    /// Takes a column and reads it with `decode`, which gives none for what it does not know.
    pub(crate) fn read<T: FromSql<'row>, U>(
        &mut self,
        decode: impl FnOnce(T) -> Option<U>,
    ) -> Result<U, Fault> {
        let column = self.next;
        decode(self.take()?).ok_or_else(|| self.damage(column))
    }

    pub(crate) fn session(&mut self) -> Result<SessionId, Fault> {
        Ok(SessionId::from_bytes(self.take::<Uuid>()?.into_bytes()))
    }

    /// Text that [`text_column`] wrote.
    pub(crate) fn text(&mut self) -> Result<String, Fault> {
        self.read(text)
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, Fault> {
        self.take().map(Timestamp::from_millis)
    }

    pub(crate) fn version(&mut self) -> Result<Version, Fault> {
        self.read(version)
    }

    pub(crate) fn count(&mut self) -> Result<u64, Fault> {
        self.read(|count: i64| u64::try_from(count).ok())
    }

    /// So many octets.
    pub(crate) fn octets<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.read(|octets: &[u8]| octets.try_into().ok())
    }

    /// Who holds a lease, if anybody ever did.
    pub(crate) fn holder(&mut self) -> Result<Option<AttemptId>, Fault> {
        Ok(self.take::<Option<Uuid>>()?.map(|attempt| AttemptId(attempt.into_bytes())))
    }

    /// The two columns of a token's expiry.
    pub(crate) fn expiry(&mut self) -> Result<Expiry, Fault> {
        let column = self.next;
        self.maybe_expiry()?.ok_or_else(|| self.damage(column))
    }

    /// The two columns of a token's expiry, where there may be no token.
    pub(crate) fn maybe_expiry(&mut self) -> Result<Option<Expiry>, Fault> {
        let column = self.next;
        let kind: Option<&str> = self.take()?;
        let at: Option<i64> = self.take()?;
        match (kind, at) {
            (None, None) => Ok(None),
            (Some("at"), Some(at)) => Ok(Some(Expiry::At(Timestamp::from_millis(at)))),
            (Some("unknown"), None) => Ok(Some(Expiry::Unknown)),
            (Some("never"), None) => Ok(Some(Expiry::Never)),
            _ => Err(self.damage(column)),
        }
    }

    /// Which column comes next.
    pub(crate) fn position(&self) -> usize {
        self.next
    }

    /// The error that names a column and its row, and tells nothing of what else is in it.
    pub(crate) fn damage(&self, column: usize) -> Fault {
        let name = self.row.columns().get(column).map_or("unknown", |column| column.name());
        let row = self.row.try_get::<_, Uuid>(0).map(|id| format!(" {id}"));
        let row = row.or_else(|_| self.row.try_get::<_, i64>(0).map(|id| format!(" {id}")));
        Fault::Store(corrupt(&format!("column {name} of {}{}", self.what, row.unwrap_or_default())))
    }
}

pub(crate) fn session_column(id: SessionId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

pub(crate) fn attempt_column(attempt: AttemptId) -> Uuid {
    Uuid::from_bytes(attempt.0)
}

/// The hour that a time is in. Times that no clock tells are cut to what fits.
pub(crate) fn hour_column(time: Timestamp) -> i32 {
    let hour = time.as_millis() / 3_600_000;
    i32::try_from(hour).unwrap_or(if hour < 0 { i32::MIN } else { i32::MAX })
}

/// PostgreSQL's texts cannot hold the character NUL, and what providers call their users is not ours to judge. So NUL is
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

/// PostgreSQL's integers have a sign. No row is changed often enough to notice.
pub(crate) fn version_column(version: Version) -> Result<i64, StoreError> {
    i64::try_from(version.0).map_err(|_| StoreError::Unavailable("a version is out of range".to_owned()))
}

/// A limit as PostgreSQL takes it.
pub(crate) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
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
