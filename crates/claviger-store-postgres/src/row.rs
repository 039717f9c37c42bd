//! Rows: sessions and pending revocations as PostgreSQL's column values, and rows as they are
//! found.

use std::borrow::Cow;

use claviger_core::{PendingRevocation, Session};
use claviger_store::{
    StoreError,
    archive::{Count, Found, Key, Record},
    codec::{self, ClaimColumns, PairColumns, expiry_columns, state_columns, version_column},
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    database::{Bound, PooledConnection, bounds},
    error::Fault,
    values::{Columns, session_column, text_column},
};

/// The columns of `pulse` that a change writes.
pub(crate) struct Pulse {
    pub(crate) id: Uuid,
    /// 0 if it is out of range. No row has version 0, so a change to it is a conflict.
    pub(crate) version: i64,
    pub(crate) state: i16,
    pub(crate) proven_at: Option<i64>,
    pub(crate) claim: ClaimColumns,
    pub(crate) attempt: Option<Uuid>,
    pub(crate) fingerprint: Option<Uuid>,
}

impl Pulse {
    pub(crate) fn of(session: &Session) -> Self {
        let ((state, proven_at), claim) = (state_columns(&session.state), ClaimColumns::of(session));
        Self {
            id: session_column(session.id),
            version: version_column(session.version).unwrap_or(0),
            state,
            proven_at,
            attempt: claim.attempt.map(Uuid::from_bytes),
            fingerprint: claim.fingerprint.map(Uuid::from_bytes),
            claim,
        }
    }

    pub(crate) fn version(&self) -> [Bound<'_>; 2] {
        bounds![UUID: self.id, INT8: self.version]
    }

    pub(crate) fn claim(&self) -> [Bound<'_>; 6] {
        bounds![
            UUID: self.attempt,
            UUID: self.fingerprint,
            INT8: self.claim.taken_at,
            INT8: self.claim.lease_until,
            BOOL: self.claim.replay,
            BOOL: self.claim.answer_lost,
        ]
    }

    pub(crate) fn state(&self) -> [Bound<'_>; 2] {
        bounds![INT2: self.state, INT8: self.proven_at]
    }
}

pub(crate) fn pair_bounds<'a>(pair: &'a PairColumns<'_>) -> [Bound<'a>; 5] {
    bounds![
        INT8: pair.generation,
        BYTEA: pair.access,
        BYTEA: pair.refresh,
        TEXT: pair.expiry,
        INT8: pair.expires_at,
    ]
}

/// The columns of a pending revocation. All are NULL if there is none.
pub(crate) struct RevocationColumns<'a> {
    session: Option<Uuid>,
    generation: Option<i64>,
    provider: Option<Cow<'a, str>>,
    access: Option<&'a [u8]>,
    refresh: Option<&'a [u8]>,
    expiry: Option<&'static str>,
    expires_at: Option<i64>,
    pending_since: Option<i64>,
}

impl<'a> RevocationColumns<'a> {
    pub(crate) fn of(revocation: Option<&'a PendingRevocation>) -> Result<Self, StoreError> {
        let (expiry, expires_at) = revocation.map(|pending| expiry_columns(pending.expiry)).unzip();
        Ok(Self {
            session: revocation.map(|pending| session_column(pending.session)),
            generation: revocation.map(|pending| version_column(pending.generation)).transpose()?,
            provider: revocation.map(|pending| text_column(&pending.provider.0)),
            access: revocation.map(|pending| pending.access.0.as_slice()),
            refresh: revocation
                .and_then(|pending| pending.refresh.as_ref())
                .map(|refresh| refresh.0.as_slice()),
            expiry,
            expires_at: expires_at.flatten(),
            pending_since: revocation.map(|pending| pending.pending_since.as_millis()),
        })
    }

    pub(crate) fn bounds(&self) -> [Bound<'_>; 8] {
        bounds![
            UUID: self.session,
            INT8: self.generation,
            TEXT: self.provider,
            BYTEA: self.access,
            BYTEA: self.refresh,
            TEXT: self.expiry,
            INT8: self.expires_at,
            INT8: self.pending_since,
        ]
    }
}

pub(crate) fn decode(row: &Row) -> Result<Session, StoreError> {
    codec::session(&mut Columns::of(row, "session"))
}

/// Runs a statement that counts rows, and parts of rows that belong to no row.
pub(crate) async fn count_by(connection: &PooledConnection, sql: &str) -> Result<Count, Fault> {
    let row = connection.query_one(sql, &bounds![]).await?;
    Ok(codec::table_count(&mut Columns::of(&row, "a count"))?)
}

/// Runs a statement that returns a page of rows. `decode` returns the key of each and the result of
/// reading it. `what` names the kind of row.
pub(crate) async fn page_of(
    connection: &PooledConnection,
    sql: &str,
    bounds: &[Bound<'_>],
    what: &'static str,
    decode: impl Fn(&mut Columns<'_>) -> Result<(Key, Result<Record, StoreError>), StoreError>,
) -> Result<Vec<Found>, Fault> {
    let found = connection.query(sql, bounds).await?;
    let whole = |row: &Row| {
        let (key, record) = decode(&mut Columns::of(row, what))?;
        Ok(Found::of(key, record)?)
    };
    found.iter().map(whole).collect()
}
