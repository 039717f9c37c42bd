//! A session as columns, and back.

use std::borrow::Cow;

use claviger_core::{
    device::DeviceLabel,
    ids::{AttemptId, ProviderName, Subject},
    secret::{Fingerprint, SecretHash},
    session::{Claim, EndReason, Holding, SealedBlob, SealedPair, Session, State},
    time::Timestamp,
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    database::{Bound, bounds},
    error::Fault,
    values::{
        Columns, attempt_column, custody, custody_column, expiry_columns, session_column, text_column,
        version, version_column,
    },
};

const LIVE: i16 = 0;
const PARKED: i16 = 1;
const SUSPECT: i16 = 2;
const ENDED: i16 = 3;

/// The columns of `pulse` that a change writes.
pub(crate) struct Pulse {
    pub(crate) id: Uuid,
    /// 0 where it is out of range, which no row has: a change to it is a conflict.
    pub(crate) version: i64,
    pub(crate) state: i16,
    pub(crate) proven_at: Option<i64>,
    // The claim, all or none.
    pub(crate) attempt: Option<Uuid>,
    pub(crate) fingerprint: Option<Uuid>,
    pub(crate) taken_at: Option<i64>,
    pub(crate) lease_until: Option<i64>,
    pub(crate) replay: Option<bool>,
    pub(crate) answer_lost: Option<bool>,
}

impl Pulse {
    pub(crate) fn of(session: &Session) -> Self {
        let state = match &session.state {
            State::Live(_) => LIVE,
            State::Parked(_) => PARKED,
            State::Suspect(_) => SUSPECT,
            State::Ended { .. } => ENDED,
        };
        let (holding, claim) = (session.holding(), session.holding().and_then(|holding| holding.claim));
        Self {
            id: session_column(session.id),
            version: version_column(session.version).unwrap_or(0),
            state,
            proven_at: holding.map(|holding| holding.proven_at.as_millis()),
            attempt: claim.map(|claim| attempt_column(claim.attempt)),
            fingerprint: claim.map(|claim| Uuid::from_bytes(claim.fingerprint.0)),
            taken_at: claim.map(|claim| claim.taken_at.as_millis()),
            lease_until: claim.map(|claim| claim.lease_until.as_millis()),
            replay: claim.map(|claim| claim.replay),
            answer_lost: claim.map(|claim| claim.answer_lost),
        }
    }

    pub(crate) fn bounds(&self) -> [Bound<'_>; 10] {
        bounds![
            UUID: self.id,
            INT8: self.version,
            INT2: self.state,
            INT8: self.proven_at,
            UUID: self.attempt,
            UUID: self.fingerprint,
            INT8: self.taken_at,
            INT8: self.lease_until,
            BOOL: self.replay,
            BOOL: self.answer_lost,
        ]
    }
}

/// The columns of `session` that a change may write.
pub(crate) struct Body<'a> {
    pub(crate) display_name: Cow<'a, str>,
    pub(crate) secret_hash: &'a [u8],
    pub(crate) custody: &'static str,
    pub(crate) device: Cow<'a, str>,
    pub(crate) generation: Option<i64>,
    pub(crate) access: Option<&'a Vec<u8>>,
    pub(crate) refresh: Option<&'a Vec<u8>>,
    pub(crate) expiry: Option<&'static str>,
    pub(crate) expires_at: Option<i64>,
    pub(crate) end_reason: Option<&'static str>,
    pub(crate) ended_at: Option<i64>,
}

impl<'a> Body<'a> {
    pub(crate) fn of(session: &'a Session) -> Result<Self, Fault> {
        let ended = match session.state {
            State::Ended { reason, at } => Some((reason.name(), at.as_millis())),
            State::Live(_) | State::Parked(_) | State::Suspect(_) => None,
        };
        let (end_reason, ended_at) = ended.unzip();
        let pair = session.pair();
        let (expiry, expires_at) = pair.map(|pair| expiry_columns(pair.expiry)).unzip();
        Ok(Self {
            display_name: text_column(&session.display_name),
            secret_hash: &session.secret_hash.0,
            custody: custody_column(session.custody),
            device: text_column(session.device.as_str()),
            generation: pair.map(|pair| version_column(pair.generation)).transpose()?,
            access: pair.map(|pair| &pair.access.0),
            refresh: pair.and_then(|pair| pair.refresh.as_ref()).map(|refresh| &refresh.0),
            expiry,
            expires_at: expires_at.flatten(),
            end_reason,
            ended_at,
        })
    }

    /// All but the end.
    pub(crate) fn bounds(&self) -> [Bound<'_>; 9] {
        bounds![
            TEXT: self.display_name,
            BYTEA: self.secret_hash,
            TEXT: self.custody,
            TEXT: self.device,
            INT8: self.generation,
            BYTEA: self.access,
            BYTEA: self.refresh,
            TEXT: self.expiry,
            INT8: self.expires_at,
        ]
    }
}

pub(crate) fn decode(row: &Row) -> Result<Session, Fault> {
    let mut columns = Columns::of(row, "session");
    Ok(Session {
        id: columns.session()?,
        version: columns.version()?,
        subject: Subject { provider: ProviderName(columns.text()?), id: columns.text()? },
        display_name: columns.text()?,
        secret_hash: SecretHash(columns.octets()?),
        custody: columns.read(custody)?,
        device: DeviceLabel::new(&columns.text()?),
        created_at: columns.time()?,
        last_seen_at: columns.time()?,
        state: decode_state(&mut columns)?,
    })
}

fn decode_state(columns: &mut Columns<'_>) -> Result<State, Fault> {
    type Wrap = fn(Holding) -> State;
    let open: Option<Wrap> = columns.read(|number| match number {
        LIVE => Some(Some(State::Live as Wrap)),
        PARKED => Some(Some(State::Parked as Wrap)),
        SUSPECT => Some(Some(State::Suspect as Wrap)),
        ENDED => Some(None),
        _ => None,
    })?;
    let proven = columns.position();
    let proven_at: Option<i64> = columns.take()?;
    let pair = decode_pair(columns)?;
    let claim = decode_claim(columns)?;
    let end = columns.position();
    let reason = columns.read(|name: Option<&str>| match name {
        None => Some(None),
        Some(name) => EndReason::from_name(name).map(Some),
    })?;
    let at: Option<i64> = columns.take()?;
    match (open, proven_at, reason, at) {
        (Some(wrap), Some(proven_at), None, None) => {
            Ok(wrap(Holding { pair, proven_at: Timestamp::from_millis(proven_at), claim }))
        }
        (None, None, Some(reason), Some(at)) => Ok(State::Ended { reason, at: Timestamp::from_millis(at) }),
        (Some(_), None, ..) | (None, Some(_), ..) => Err(columns.damage(proven)),
        _ => Err(columns.damage(end)),
    }
}

fn decode_pair(columns: &mut Columns<'_>) -> Result<Option<SealedPair>, Fault> {
    let first = columns.position();
    let generation = columns.read(|number: Option<i64>| match number {
        None => Some(None),
        Some(number) => version(number).map(Some),
    })?;
    let access: Option<Vec<u8>> = columns.take()?;
    let refresh: Option<Vec<u8>> = columns.take()?;
    let expiry = columns.maybe_expiry()?;
    match (generation, access, expiry) {
        (Some(generation), Some(access), Some(expiry)) => Ok(Some(SealedPair {
            generation,
            access: SealedBlob(access),
            refresh: refresh.map(SealedBlob),
            expiry,
        })),
        (None, None, None) if refresh.is_none() => Ok(None),
        _ => Err(columns.damage(first)),
    }
}

/// The columns are all there or all missing.
fn decode_claim(columns: &mut Columns<'_>) -> Result<Option<Claim>, Fault> {
    let first = columns.position();
    let attempt: Option<Uuid> = columns.take()?;
    let taken_at: Option<i64> = columns.take()?;
    let lease_until: Option<i64> = columns.take()?;
    let fingerprint: Option<Uuid> = columns.take()?;
    let replay: Option<bool> = columns.take()?;
    let answer_lost: Option<bool> = columns.take()?;
    match (attempt, taken_at, lease_until, fingerprint, replay, answer_lost) {
        (Some(attempt), Some(taken_at), Some(lease_until), Some(fingerprint), Some(replay), Some(lost)) => {
            Ok(Some(Claim {
                attempt: AttemptId(attempt.into_bytes()),
                taken_at: Timestamp::from_millis(taken_at),
                lease_until: Timestamp::from_millis(lease_until),
                fingerprint: Fingerprint(fingerprint.into_bytes()),
                replay,
                answer_lost: lost,
            }))
        }
        (None, None, None, None, None, None) => Ok(None),
        _ => Err(columns.damage(first)),
    }
}
