use super::*;
use crate::corrupt;

/// A column as a database has it.
#[derive(Clone, Debug)]
enum Value {
    Null,
    Integer(i64),
    Code(i16),
    Flag(bool),
    Octets(Vec<u8>),
    Text(String),
}

use Value::{Code, Flag, Integer, Null, Octets, Text};

struct Row {
    values: Vec<Value>,
    next: usize,
}

impl Row {
    fn take<T>(&mut self, read: impl FnOnce(&Value) -> Option<T>) -> Result<Option<T>, StoreError> {
        let column = self.next;
        self.next += 1;
        match &self.values[column] {
            Null => Ok(None),
            value => read(value).map(Some).ok_or_else(|| self.damage(column)),
        }
    }
}

impl ColumnReader for Row {
    fn position(&self) -> usize {
        self.next
    }

    fn damage(&self, column: usize) -> StoreError {
        corrupt(&column.to_string())
    }

    fn integer(&mut self) -> Result<Option<i64>, StoreError> {
        self.take(|value| if let Integer(value) = value { Some(*value) } else { None })
    }

    fn code(&mut self) -> Result<i16, StoreError> {
        self.required(|row| row.take(|value| if let Code(value) = value { Some(*value) } else { None }))
    }

    fn flag(&mut self) -> Result<Option<bool>, StoreError> {
        self.take(|value| if let Flag(value) = value { Some(*value) } else { None })
    }

    fn id(&mut self) -> Result<Option<[u8; 16]>, StoreError> {
        Ok(self.blob()?.map(|octets| octets.try_into().unwrap()))
    }

    fn octets<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let column = self.next;
        self.required(Self::blob)?.try_into().map_err(|_| self.damage(column))
    }

    fn blob(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        self.take(|value| if let Octets(value) = value { Some(value.clone()) } else { None })
    }

    fn text(&mut self) -> Result<String, StoreError> {
        self.required(|row| row.name(|text| Some(text.to_owned())))
    }

    fn name<T>(&mut self, known: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        self.take(|value| if let Text(value) = value { known(value) } else { None })
    }
}

fn maybe<T>(value: Option<T>, of: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Null, of)
}

fn text(text: &str) -> Value {
    Text(text.to_owned())
}

const T0: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const ATTEMPT: AttemptId = AttemptId([1; 16]);

fn open_session(state: fn(ActiveState) -> State, pair: Option<SealedPair>, claim: Option<Claim>) -> Session {
    Session {
        id: SessionId::new(T0, [1; 10]),
        version: Version(7),
        subject: Subject { provider: ProviderName("twitch".to_owned()), id: "141981764".to_owned() },
        display_name: "Ada".to_owned(),
        secret_hash: SecretHash([9; 32]),
        custody: Custody::Device,
        device: DeviceLabel::new("Firefox on Linux"),
        created_at: T0,
        last_seen_at: Timestamp::from_millis(1_790_000_000_001),
        state: state(ActiveState { pair, proven_at: Timestamp::from_millis(-1), claim }),
    }
}

fn pair_of(refresh: Option<Vec<u8>>, expiry: Expiry) -> SealedPair {
    SealedPair {
        generation: Version(3),
        access: SealedBlob(vec![1, 2]),
        refresh: refresh.map(SealedBlob),
        expiry,
    }
}

fn claim_of(replay: bool, answer_lost: bool) -> Claim {
    let (taken_at, lease_until) = (T0, Timestamp::from_millis(1_790_000_030_000));
    Claim { attempt: ATTEMPT, taken_at, lease_until, fingerprint: Fingerprint([3; 16]), replay, answer_lost }
}

fn full() -> Session {
    open_session(State::Live, Some(pair_of(Some(vec![3]), Expiry::At(T0))), Some(claim_of(false, true)))
}

fn row_of(session: &Session) -> Vec<Value> {
    let (state, proven_at) = state_columns(&session.state);
    let (pair, claim) = (PairColumns::of(session).unwrap(), ClaimColumns::of(session));
    let (end_reason, ended_at) = end_columns(&session.state);
    vec![
        Octets(session.id.as_bytes().to_vec()),
        Integer(version_column(session.version).unwrap()),
        text(&session.subject.provider.0),
        text(&session.subject.id),
        text(&session.display_name),
        Octets(session.secret_hash.0.to_vec()),
        text(session.custody.name()),
        text(session.device.as_str()),
        Integer(session.created_at.as_millis()),
        Integer(session.last_seen_at.as_millis()),
        Code(state),
        maybe(proven_at, Integer),
        maybe(pair.generation, Integer),
        maybe(pair.access, |access| Octets(access.to_vec())),
        maybe(pair.refresh, |refresh| Octets(refresh.to_vec())),
        maybe(pair.expiry, text),
        maybe(pair.expires_at, Integer),
        maybe(claim.attempt, |attempt| Octets(attempt.to_vec())),
        maybe(claim.taken_at, Integer),
        maybe(claim.lease_until, Integer),
        maybe(claim.fingerprint, |fingerprint| Octets(fingerprint.to_vec())),
        maybe(claim.replay, Flag),
        maybe(claim.answer_lost, Flag),
        maybe(end_reason, text),
        maybe(ended_at, Integer),
    ]
}

fn read<T>(
    decode: impl FnOnce(&mut Row) -> Result<T, StoreError>,
    values: &[Value],
) -> Result<T, StoreError> {
    let mut row = Row { values: values.to_vec(), next: 0 };
    let value = decode(&mut row)?;
    assert_eq!(row.next, values.len(), "every column is read");
    Ok(value)
}

#[test]
fn every_session_comes_back() {
    let refresh = || Some(vec![3]);
    let pairs = [
        None,
        Some(pair_of(refresh(), Expiry::At(T0))),
        Some(pair_of(None, Expiry::Unknown)),
        Some(pair_of(refresh(), Expiry::Never)),
    ];
    let claims =
        [None, Some(claim_of(false, false)), Some(claim_of(true, false)), Some(claim_of(true, true))];
    for state in [State::Live, State::Parked, State::Suspect] {
        for (pair, claim) in pairs.iter().flat_map(|pair| claims.map(|claim| (pair.clone(), claim))) {
            let session = open_session(state, pair, claim);
            assert_eq!(read(super::session, &row_of(&session)), Ok(session));
        }
    }
    for (custody, _) in Custody::NAMES {
        let session = Session { custody, ..full() };
        assert_eq!(read(super::session, &row_of(&session)), Ok(session));
    }
    for (reason, _) in EndReason::NAMES {
        let session = Session { state: State::Ended { reason, at: T0 }, ..full() };
        assert_eq!(read(super::session, &row_of(&session)), Ok(session));
    }
}

/// Earlier releases have stored these.
#[test]
fn stored_words_and_numbers_stay() {
    let active = ActiveState { pair: None, proven_at: T0, claim: None };
    let proven_at = Some(1_790_000_000_000);
    assert_eq!(state_columns(&State::Live(active.clone())), (0, proven_at));
    assert_eq!(state_columns(&State::Parked(active.clone())), (1, proven_at));
    assert_eq!(state_columns(&State::Suspect(active.clone())), (2, proven_at));
    let ended = State::Ended { reason: EndReason::SignedOut, at: T0 };
    assert_eq!(state_columns(&ended), (3, None));
    assert_eq!(end_columns(&ended), (Some("signed_out"), proven_at));
    assert_eq!(end_columns(&State::Live(active)), (None, None));
    assert_eq!(expiry_columns(Expiry::At(T0)), ("at", proven_at));
    assert_eq!(expiry_columns(Expiry::Unknown), ("unknown", None));
    assert_eq!(expiry_columns(Expiry::Never), ("never", None));
    let custodies = [Custody::Device, Custody::Server, Custody::None].map(Custody::name);
    assert_eq!(custodies, ["device", "server", "none"]);
    assert_eq!(version_column(Version(u64::MAX >> 1)), Ok(i64::MAX));
    assert!(matches!(version_column(Version(1 << 63)), Err(StoreError::Unavailable(_))));
}

#[test]
fn damage_names_its_column() {
    let open = row_of(&full());
    let ended = row_of(&Session { state: State::Ended { reason: EndReason::Idle, at: T0 }, ..full() });
    let table: [(&[Value], usize, Value, usize); 30] = [
        (&open, 0, Null, 0),
        (&open, 1, Null, 1),
        (&open, 1, Integer(-1), 1),
        (&open, 2, Null, 2),
        (&open, 3, Integer(5), 3),
        (&open, 5, Octets(vec![9; 31]), 5),
        (&open, 6, text("nobody"), 6),
        (&open, 6, Null, 6),
        (&open, 8, Null, 8),
        (&open, 10, Null, 10),
        (&open, 10, Code(4), 10),
        (&open, 10, Code(-1), 10),
        (&open, 10, Code(3), 11),
        (&open, 11, Null, 11),
        (&open, 12, Null, 12),
        (&open, 12, Integer(-1), 12),
        (&open, 13, Null, 12),
        (&open, 15, Null, 15),
        (&open, 15, text("later"), 15),
        (&open, 15, text("never"), 15),
        (&open, 16, Null, 15),
        (&open, 17, Null, 17),
        (&open, 18, Null, 17),
        (&open, 22, Null, 17),
        (&open, 23, text("idle"), 23),
        (&open, 23, text("bored"), 23),
        (&open, 24, Integer(0), 23),
        (&ended, 10, Code(0), 11),
        (&ended, 14, Octets(vec![3]), 12),
        (&ended, 24, Null, 23),
    ];
    for (row, column, value, expected) in table {
        let mut damaged = row.to_vec();
        damaged[column] = value.clone();
        let read = read(super::session, &damaged);
        assert_eq!(read, Err(corrupt(&expected.to_string())), "column {column} is {value:?}");
    }
}

fn revocation_row(expiry: &str, expires_at: Value, tries: i64) -> Vec<Value> {
    vec![
        Integer(5),
        Octets(SessionId::new(T0, [1; 10]).as_bytes().to_vec()),
        Integer(3),
        text("twitch"),
        Octets(vec![1]),
        Null,
        text(expiry),
        expires_at,
        Integer(T0.as_millis()),
        Integer(tries),
        Integer(T0.as_millis()),
        Octets(ATTEMPT.0.to_vec()),
    ]
}

fn stored_revocation(columns: &mut Row) -> Result<Record, StoreError> {
    stored_item(item_id(Queue::Revocations, columns)?, columns)
}

#[test]
fn a_pending_revocation_is_read_with_its_lease() {
    let revocation = PendingRevocation {
        session: SessionId::new(T0, [1; 10]),
        generation: Version(3),
        provider: ProviderName("twitch".to_owned()),
        access: SealedBlob(vec![1]),
        refresh: None,
        expiry: Expiry::Never,
        pending_since: T0,
    };
    let id = ItemId::Revocation(RevocationId(5));
    let item = Item::Revocation(revocation);
    let stored =
        StoredItem { tries: 2, due_at: Some(T0), holder: Some(ATTEMPT), ..StoredItem::new(id, item.clone()) };
    let row = revocation_row("never", Null, 2);
    assert_eq!(read(stored_revocation, &row), Ok(Record::Item(stored)));
    let taken = |columns: &mut Row| lease(item_id(Queue::Revocations, columns)?, ATTEMPT, columns);
    assert_eq!(read(taken, &row[..11]), Ok(Lease { id, item, holder: ATTEMPT, due_at: T0, tries: 2 }));
    let damaged = [
        (revocation_row("at", Null, 2), "6"),
        (revocation_row("never", Integer(0), 2), "6"),
        (revocation_row("never", Null, -1), "9"),
        (revocation_row("never", Null, 1 << 32), "9"),
    ];
    for (row, column) in damaged {
        assert_eq!(read(stored_revocation, &row), Err(corrupt(column)));
    }
}

#[test]
fn a_suspicion_is_read_with_its_lease() {
    let subject = Subject { provider: ProviderName("twitch".to_owned()), id: "141981764".to_owned() };
    for (cause, name) in Cause::NAMES {
        let row = |name: &str| {
            [
                Octets(vec![4; 32]),
                text("twitch"),
                text("141981764"),
                Integer(T0.as_millis()),
                text(name),
                Integer(T0.as_millis()),
                Integer(0),
                Null,
                Null,
            ]
        };
        let suspicion = Suspicion { subject: subject.clone(), at: T0, cause };
        let key = SuspicionKey([4; 32]);
        let item = Item::Suspicion { key, suspicion, noted_at: T0 };
        let stored = StoredItem { due_at: None, ..StoredItem::new(ItemId::Suspicion(key), item) };
        assert_eq!(read(stored_suspicion, &row(name)), Ok(Record::Item(stored)));
        assert_eq!(read(stored_suspicion, &row("nonsense")), Err(corrupt("4")));
    }
}

fn stored_suspicion(columns: &mut Row) -> Result<Record, StoreError> {
    stored_item(item_id(Queue::Suspicions, columns)?, columns)
}

#[test]
fn a_slot_is_read_with_its_lease() {
    let row = |sweep, slot| {
        [Code(sweep), Code(slot), Integer(7), Octets(ATTEMPT.0.to_vec()), Integer(T0.as_millis())]
    };
    let read_slot = |row: &[Value]| read(|columns| stored_item(slot_id(columns)?, columns), row);
    for sweep in SweepKind::ALL {
        let slot = Slot::new(1023).unwrap();
        let stored = StoredItem {
            due_at: Some(Timestamp::from_millis(7)),
            lease_until: T0,
            holder: Some(ATTEMPT),
            ..StoredItem::new(ItemId::Slot(sweep, slot), Item::Slot(slot))
        };
        assert_eq!(read_slot(&row(sweep_column(sweep), 1023)), Ok(Record::Item(stored)));
    }
    assert_eq!(read_slot(&row(2, 0)), Err(corrupt("0")));
    assert_eq!(read_slot(&row(0, 1024)), Err(corrupt("1")));
    assert_eq!(read_slot(&row(0, -1)), Err(corrupt("1")));
}
