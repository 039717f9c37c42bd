//! Random calls of a store and their answers, to compare two stores that must not differ.
#![allow(unreachable_pub, reason = "the tests of each store use it")]

use std::collections::BTreeSet;

use claviger_core::{
    ActiveState, AttemptId, Cause, Change, ChangeKind, Claim, EndReason, Expiry, Fingerprint,
    PendingRevocation, SealedPair, Session, SessionId, Slot, State, Subject, Suspicion, Timestamp, Version,
};
use claviger_store::{
    Applied, Backlog, Item, ItemId, Lease, LeaseTerms, LeaseUpdate, Leftover, Placement, Queue, RevocationId,
    Selection, SessionCounts, SharedEntry, Store, StoreError, SuspicionKey, SweepKind,
};
use proptest::{collection::vec, option, prelude::*};

use crate::common::{self, t};

/// Number of sessions at most, of three users, and number of moments at which things happen.
pub const SESSIONS: u32 = 8;
const MOMENTS: i64 = 12;

#[derive(Clone, Debug)]
pub enum Call {
    Check,
    Insert {
        which: u32,
        shape: u8,
        limit: u32,
        replaces: Option<u32>,
    },
    Load(u32),
    /// Changes a row that was read earlier, so that the change may be too late.
    Apply {
        read: usize,
        transition: Transition,
        owe: bool,
    },
    Devices {
        owner: u32,
        limit: usize,
    },
    EndSessions {
        owner: u32,
        except: Option<u32>,
        before: i64,
        reason: usize,
    },
    Touch(Vec<(u32, i64)>),
    Overdue {
        idle_since: i64,
        created_until: i64,
        limit: usize,
    },
    Distrusted(usize),
    Purge {
        what: Leftover,
        until: i64,
        limit: usize,
    },
    SpendLogin {
        which: u8,
        expires: i64,
    },
    AddRevocation {
        which: u32,
        at: i64,
    },
    Suspect {
        key: u8,
        owner: u32,
        noted: i64,
    },
    Take {
        queue: Queue,
        attempt: u8,
        now: i64,
        until: i64,
        limit: usize,
    },
    UpdateLease {
        item: ItemId,
        attempt: u8,
        update: LeaseUpdate,
    },
    Backlog(Queue),
    InSlot {
        sweep: SweepKind,
        after: Option<u32>,
        limit: usize,
    },
    /// Changes rows that were read earlier, each once.
    ApplyAll(Vec<(usize, u8)>),
    SessionCounts(i64),
    SharedEntry(bool),
    PutSharedEntry {
        one: bool,
        version: u64,
        value: u8,
    },
}

#[derive(Clone, Copy, Debug)]
pub enum Transition {
    Claim(u8),
    LoseAnswer(u8),
    Release(u8),
    Rotate(u8),
    Prove,
    Suspect,
    Park,
    End,
    Rename,
    /// A change that no rule makes, of this version and of any kind except an end.
    Forge(u64, u8),
}

#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time is made and compared")]
pub enum Answer {
    Nothing(Result<(), StoreError>),
    Truth(Result<bool, StoreError>),
    Number(Result<usize, StoreError>),
    Row(Result<Option<Session>, StoreError>),
    Rows(Result<Vec<Session>, StoreError>),
    Ids(Result<Vec<SessionId>, StoreError>),
    Applied(Result<Applied, StoreError>),
    Taken(Result<Vec<Lease<Item>>, StoreError>),
    Backlog(Result<Backlog, StoreError>),
    Truths(Result<Vec<bool>, StoreError>),
    SessionCounts(Result<SessionCounts, StoreError>),
    SharedEntry(Result<Option<SharedEntry>, StoreError>),
}

fn transition() -> impl Strategy<Value = Transition> {
    prop_oneof![
        (0..2u8).prop_map(Transition::Claim),
        (0..2u8).prop_map(Transition::LoseAnswer),
        (0..2u8).prop_map(Transition::Release),
        (0..2u8).prop_map(Transition::Rotate),
        Just(Transition::Prove),
        Just(Transition::Suspect),
        Just(Transition::Park),
        Just(Transition::End),
        Just(Transition::Rename),
        (prop_oneof![0..6u64, Just(u64::MAX)], 0..5u8)
            .prop_map(|(version, kind)| Transition::Forge(version, kind)),
    ]
}

/// Any call.
pub fn call() -> impl Strategy<Value = Call> {
    let (which, moment, limit, attempt) = (|| 0..SESSIONS, || 0..MOMENTS, || 0..5usize, || 0..2u8);
    prop_oneof![
        1 => Just(Call::Check),
        6 => (which(), any::<u8>(), 0..4u32, option::of(which()))
            .prop_map(|(which, shape, limit, replaces)| Call::Insert { which, shape, limit, replaces }),
        3 => which().prop_map(Call::Load),
        9 => (any::<prop::sample::Index>(), transition(), any::<bool>())
            .prop_map(|(read, transition, owe)| Call::Apply { read: read.index(64), transition, owe }),
        2 => (0..3u32, limit()).prop_map(|(owner, limit)| Call::Devices { owner, limit }),
        1 => (0..3u32, option::of(which()), moment(), 0..13usize)
            .prop_map(|(owner, except, before, reason)| Call::EndSessions { owner, except, before, reason }),
        3 => vec((which(), moment()), 0..4).prop_map(Call::Touch),
        2 => (moment(), moment(), limit())
            .prop_map(|(idle_since, created_until, limit)| Call::Overdue { idle_since, created_until, limit }),
        2 => limit().prop_map(Call::Distrusted),
        3 => (leftover(), moment(), limit())
            .prop_map(|(what, until, limit)| Call::Purge { what, until, limit }),
        2 => (0..4u8, moment()).prop_map(|(which, expires)| Call::SpendLogin { which, expires }),
        2 => (which(), moment()).prop_map(|(which, at)| Call::AddRevocation { which, at }),
        1 => (0..4u8, 0..3u32, moment()).prop_map(|(key, owner, noted)| Call::Suspect { key, owner, noted }),
        6 => (queue(), attempt(), moment(), moment(), limit())
            .prop_map(|(queue, attempt, now, until, limit)| Call::Take { queue, attempt, now, until, limit }),
        9 => (item(), attempt(), update())
            .prop_map(|(item, attempt, update)| Call::UpdateLease { item, attempt, update }),
        2 => queue().prop_map(Call::Backlog),
        4 => rest(),
    ]
}

fn sweep() -> impl Strategy<Value = SweepKind> {
    prop::sample::select(SweepKind::ALL.to_vec())
}

fn queue() -> impl Strategy<Value = Queue> {
    prop_oneof![
        2 => Just(Queue::Revocations),
        2 => Just(Queue::Suspicions),
        1 => sweep().prop_map(Queue::Slots),
    ]
}

fn leftover() -> impl Strategy<Value = Leftover> {
    prop::sample::select(vec![Leftover::Tombstones, Leftover::SpentLogins, Leftover::ClosedSuspicions])
}

/// Items that there may be. The ids of all sessions here end in the same octets, so all are in one
/// slot.
fn item() -> impl Strategy<Value = ItemId> {
    prop_oneof![
        2 => (1..9i64).prop_map(|id| ItemId::Revocation(RevocationId(id))),
        1 => (0..4u8).prop_map(|key| ItemId::Suspicion(SuspicionKey([key; 32]))),
        1 => sweep().prop_map(|sweep| ItemId::Slot(sweep, Slot::of(id(0)))),
    ]
}

fn update() -> impl Strategy<Value = LeaseUpdate> {
    let at = || (0..MOMENTS).prop_map(t);
    prop_oneof![
        Just(LeaseUpdate::Acknowledge),
        at().prop_map(LeaseUpdate::Reschedule),
        at().prop_map(LeaseUpdate::Extend),
    ]
}

/// Calls that concern slots, many rows and shared entries.
fn rest() -> impl Strategy<Value = Call> {
    let entry = any::<bool>;
    prop_oneof![
        (sweep(), option::of(0..SESSIONS), 0..5usize).prop_map(|(sweep, after, limit)| Call::InSlot {
            sweep,
            after,
            limit
        }),
        vec((any::<prop::sample::Index>(), 0..4u8), 0..4).prop_map(|rows| {
            Call::ApplyAll(rows.into_iter().map(|(read, change)| (read.index(64), change)).collect())
        }),
        (0..MOMENTS).prop_map(Call::SessionCounts),
        entry().prop_map(Call::SharedEntry),
        (entry(), 0..4u64, any::<u8>()).prop_map(|(one, version, value)| Call::PutSharedEntry {
            one,
            version,
            value
        }),
    ]
}

pub fn id(which: u32) -> SessionId {
    common::session(which).id
}

fn owner(which: u32) -> Subject {
    Subject { id: (which % 3).to_string(), ..common::session(0).subject }
}

fn attempt(which: u8) -> AttemptId {
    AttemptId([which; 16])
}

/// Small numbers make rows with equal times, and pairs of each kind.
fn row(which: u32, shape: u8) -> Session {
    let plain = common::session(which);
    let mut pair = plain.pair().unwrap().clone();
    pair.expiry =
        [Expiry::Unknown, Expiry::Never, Expiry::At(t(5)), Expiry::At(t(99))][usize::from(shape % 4)];
    let pair = (shape < 200).then_some(pair);
    let created_at = t(i64::from(shape) % 4);
    let state = State::Live(ActiveState { pair, proven_at: created_at, claim: None });
    Session { subject: owner(which), created_at, last_seen_at: t(i64::from(shape) % 3), state, ..plain }
}

fn reason(which: usize) -> EndReason {
    EndReason::NAMES[which].0
}

/// `None` if the rules refuse.
fn changed(row: Session, transition: Transition) -> Option<Change> {
    let generation = row.pair().map_or(Version(77), |pair| pair.generation);
    let claim = |whose| Claim {
        attempt: attempt(whose),
        taken_at: t(1),
        lease_until: t(31),
        fingerprint: Fingerprint([whose; 16]),
        replay: whose == 0,
        answer_lost: false,
    };
    let rotated = |generation| SealedPair { generation, ..common::session(1).pair().unwrap().clone() };
    let change = match transition {
        Transition::Claim(whose) => row.claim(claim(whose)),
        Transition::LoseAnswer(whose) => row.lose_answer(attempt(whose), false),
        Transition::Release(whose) => row.release(attempt(whose)),
        Transition::Rotate(whose) => row.rotate(attempt(whose), None, t(4), rotated),
        Transition::Prove => row.prove(generation, t(6)),
        Transition::Suspect => row.suspect(generation),
        Transition::Park => row.park(generation),
        Transition::End => row.end(EndReason::SignedOut, t(7)),
        Transition::Rename => {
            let version = row.version.next();
            let renamed = Session { display_name: "Lovelace".to_owned(), version, ..row };
            Ok(Change::forged(ChangeKind::Claim, renamed))
        }
        Transition::Forge(version, kind) => {
            let kinds =
                [ChangeKind::Claim, ChangeKind::Proof, ChangeKind::State, ChangeKind::Pair, ChangeKind::Name];
            let next = Session { version: Version(version), ..self::row(1, 0).with_id(row.id) };
            Ok(Change::forged(kinds[usize::from(kind)].clone(), next))
        }
    };
    change.ok()
}

trait WithId {
    fn with_id(self, id: SessionId) -> Self;
}

impl WithId for Session {
    fn with_id(self, id: SessionId) -> Self {
        Session { id, ..self }
    }
}

fn revocation(which: u32, at: i64) -> PendingRevocation {
    row(which, 0).end(EndReason::SignedOut, t(at)).unwrap().revocation().unwrap().clone()
}

/// `seen` are the rows that were read so far.
pub async fn answer(store: &dyn Store, call: &Call, seen: &[Session]) -> Answer {
    let at = t;
    match call.clone() {
        Call::Check => Answer::Nothing(store.check().await),
        Call::Insert { which, shape, limit, replaces } => {
            let placement = Placement { limit, replaces: replaces.map(id) };
            Answer::Rows(store.insert(row(which, shape), placement).await)
        }
        Call::Load(which) => Answer::Row(store.load(id(which)).await),
        Call::Apply { read, transition, owe } => {
            let base = seen.get(read % seen.len().max(1)).cloned().unwrap_or_else(|| row(0, 0));
            let Some(change) = changed(base, transition) else { return Answer::Nothing(Ok(())) };
            let change = match change.kind() {
                ChangeKind::End { revocation: None } if owe => {
                    let kind = ChangeKind::End { revocation: Some(revocation(1, 2)) };
                    Change::forged(kind, change.into_next())
                }
                _ => change,
            };
            Answer::Applied(store.apply(&change).await)
        }
        Call::Devices { owner: whose, limit } => Answer::Rows(store.devices(&owner(whose), limit).await),
        Call::EndSessions { owner: whose, except, before, reason: why } => {
            let selection =
                Selection { subject: owner(whose), except: except.map(id), created_before: at(before) };
            Answer::Rows(store.end_sessions(&selection, reason(why), at(8)).await)
        }
        Call::Touch(uses) => {
            let uses: Vec<(SessionId, Timestamp)> =
                uses.into_iter().map(|(which, moment)| (id(which), at(moment))).collect();
            Answer::Nothing(store.record_last_seen(&uses).await)
        }
        Call::Overdue { idle_since, created_until, limit } => {
            Answer::Ids(store.overdue(at(idle_since), at(created_until), limit).await)
        }
        Call::Distrusted(limit) => Answer::Ids(store.denylist(limit).await),
        Call::Purge { what, until, limit } => Answer::Number(store.purge(what, at(until), limit).await),
        Call::SpendLogin { which, expires } => {
            Answer::Truth(store.spend_login([which; 32], at(expires)).await)
        }
        Call::AddRevocation { .. }
        | Call::Suspect { .. }
        | Call::Take { .. }
        | Call::UpdateLease { .. }
        | Call::Backlog(_) => answer_of_a_queue(store, call).await,
        _ => answer_of_the_rest(store, call, seen).await,
    }
}

async fn answer_of_a_queue(store: &dyn Store, call: &Call) -> Answer {
    match call.clone() {
        Call::AddRevocation { which, at } => {
            Answer::Truth(store.enqueue(&Item::Revocation(revocation(which, at))).await)
        }
        Call::Suspect { key, owner: whose, noted } => {
            let suspicion = Suspicion { subject: owner(whose), at: t(3), cause: Cause::WebhookEvent };
            let key = SuspicionKey([key; 32]);
            Answer::Truth(store.enqueue(&Item::Suspicion { key, suspicion, noted_at: t(noted) }).await)
        }
        Call::Take { queue, attempt: whose, now, until, limit } => {
            let latest_due = t(now.max(until));
            let terms = LeaseTerms { holder: attempt(whose), now: t(now), until: t(until), latest_due };
            Answer::Taken(store.take(queue, terms, limit).await)
        }
        Call::UpdateLease { item, attempt: whose, update } => {
            Answer::Truth(store.update_lease(item, attempt(whose), update).await)
        }
        Call::Backlog(queue) => Answer::Backlog(store.backlog(queue).await),
        _ => Answer::Nothing(Ok(())),
    }
}

async fn answer_of_the_rest(store: &dyn Store, call: &Call, seen: &[Session]) -> Answer {
    let name = |one| if one { "one" } else { "other" };
    match call.clone() {
        Call::InSlot { sweep, after, limit } => {
            Answer::Rows(store.in_slot(sweep, Slot::of(id(0)), after.map(id), limit).await)
        }
        Call::ApplyAll(reads) => {
            let mut once = BTreeSet::new();
            let rows = reads.iter().filter_map(|(read, change)| {
                let base = seen.get(read % seen.len().max(1))?.clone();
                let all = [Transition::Prove, Transition::Suspect, Transition::Park, Transition::End];
                let change = changed(base, all[usize::from(*change)])?;
                once.insert(change.next().id).then_some(change)
            });
            let next: Vec<_> = rows.collect();
            Answer::Truths(store.apply_all(&next).await)
        }
        Call::SessionCounts(now) => Answer::SessionCounts(store.session_counts(t(now)).await),
        Call::SharedEntry(one) => Answer::SharedEntry(store.shared_entry(name(one)).await),
        Call::PutSharedEntry { one, version, value } => {
            let entry = SharedEntry { version: Version(version), value: vec![value] };
            Answer::Truth(store.put_shared_entry(name(one), &entry).await)
        }
        _ => Answer::Nothing(Ok(())),
    }
}

/// Forgets the rows that were read of a purged session. Real ids are never reused, but the few ids
/// here are.
async fn forget_former_life(store: &dyn Store, call: &Call, seen: &mut Vec<Session>) {
    if let Call::Insert { which, .. } = call
        && store.load(id(*which)).await.unwrap().is_none()
    {
        seen.retain(|row| row.id != id(*which));
    }
}

/// Makes the same calls to both stores, and fails at the first answer that differs.
pub async fn compare(given: &dyn Store, expected: &dyn Store, calls: Vec<Call>) -> Result<(), TestCaseError> {
    // A change is made from a row that was read, so the rows before the first call are read.
    let mut seen = Vec::new();
    for which in 0..SESSIONS {
        seen.extend(expected.load(id(which)).await.unwrap());
    }
    for (step, call) in calls.iter().enumerate() {
        forget_former_life(expected, call, &mut seen).await;
        let wanted = answer(expected, call, &seen).await;
        prop_assert_eq!(answer(given, call, &seen).await, wanted, "step {}: {:?}", step, call);
        for which in 0..SESSIONS {
            let wanted = expected.load(id(which)).await.unwrap();
            prop_assert_eq!(&given.load(id(which)).await.unwrap(), &wanted, "step {}: {:?}", step, call);
            seen.extend(wanted.filter(|row| !seen.contains(row)));
        }
        let wanted = expected.backlog(Queue::Revocations).await;
        prop_assert_eq!(given.backlog(Queue::Revocations).await, wanted, "step {}: {:?}", step, call);
    }
    Ok(())
}
