//! Random calls of a store, and their answers: to compare two stores that should not differ.
#![allow(unreachable_pub, reason = "the tests of each store use it")]

use std::collections::BTreeSet;

use claviger_core::{
    ids::{AttemptId, SessionId, Subject, Version},
    secret::Fingerprint,
    session::{Claim, EndReason, Holding, OwedRevocation, SealedPair, Session, State},
    suspicion::{Cause, Suspicion},
    sweep::Slot,
    time::{Expiry, Timestamp},
};
use claviger_store::{
    Backlog, Census, Memo, Owed, OwedId, Placement, Replaced, Selection, Store, StoreError, Suspected,
    SuspicionKey, Visit, Wheel,
};
use proptest::{collection::vec, option, prelude::*};

use crate::common::{self, t};

/// So many sessions there are at most, of three users, and so many moments at which things happen.
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
    /// Changes a row that was read at some time, so that the change may come too late.
    Replace {
        read: usize,
        change: Change,
        owe: bool,
    },
    Devices {
        owner: u32,
        limit: usize,
    },
    EndAll {
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
        until: i64,
        limit: usize,
    },
    SpendLogin {
        which: u8,
        expires: i64,
    },
    ForgetLogins {
        now: i64,
        limit: usize,
    },
    Owe {
        which: u32,
        at: i64,
    },
    TakeOwed {
        attempt: u8,
        now: i64,
        lease: i64,
        limit: usize,
    },
    SettleOwed {
        id: i64,
        attempt: u8,
    },
    PostponeOwed {
        id: i64,
        attempt: u8,
        due: i64,
    },
    Backlog,
    TakeSlots {
        probe: bool,
        attempt: u8,
        now: i64,
        lease: i64,
        limit: usize,
    },
    HoldSlot {
        probe: bool,
        attempt: u8,
        lease: i64,
    },
    LeaveSlot {
        probe: bool,
        attempt: u8,
        due: i64,
    },
    InSlot {
        probe: bool,
        after: Option<u32>,
        limit: usize,
    },
    LongestDue {
        probe: bool,
    },
    /// Changes rows that were read at some time, each once.
    ReplaceAll(Vec<(usize, u8)>),
    Census(i64),
    Suspect {
        key: u8,
        owner: u32,
        noted: i64,
    },
    TakeSuspicions {
        attempt: u8,
        now: i64,
        lease: i64,
        limit: usize,
    },
    SettleSuspicion {
        key: u8,
        attempt: u8,
    },
    PostponeSuspicion {
        key: u8,
        attempt: u8,
        due: i64,
    },
    ForgetSuspicions {
        until: i64,
        limit: usize,
    },
    Memo(bool),
    PutMemo {
        one: bool,
        version: u64,
        value: u8,
    },
}

#[derive(Clone, Copy, Debug)]
pub enum Change {
    Claim(u8),
    LoseAnswer(u8),
    Release(u8),
    Rotate(u8),
    Prove,
    Suspect,
    Park,
    End,
    Rename,
    Forge(u64),
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
    Replaced(Result<Replaced, StoreError>),
    Owed(Result<Vec<Owed>, StoreError>),
    Backlog(Result<Backlog, StoreError>),
    Visits(Result<Vec<Visit>, StoreError>),
    Time(Result<Option<Timestamp>, StoreError>),
    Truths(Result<Vec<bool>, StoreError>),
    Census(Result<Census, StoreError>),
    Suspected(Result<Vec<Suspected>, StoreError>),
    Memo(Result<Option<Memo>, StoreError>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..2u8).prop_map(Change::Claim),
        (0..2u8).prop_map(Change::LoseAnswer),
        (0..2u8).prop_map(Change::Release),
        (0..2u8).prop_map(Change::Rotate),
        Just(Change::Prove),
        Just(Change::Suspect),
        Just(Change::Park),
        Just(Change::End),
        Just(Change::Rename),
        prop_oneof![0..6u64, Just(u64::MAX)].prop_map(Change::Forge),
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
        9 => (any::<prop::sample::Index>(), change(), any::<bool>())
            .prop_map(|(read, change, owe)| Call::Replace { read: read.index(64), change, owe }),
        2 => (0..3u32, limit()).prop_map(|(owner, limit)| Call::Devices { owner, limit }),
        1 => (0..3u32, option::of(which()), moment(), 0..13usize)
            .prop_map(|(owner, except, before, reason)| Call::EndAll { owner, except, before, reason }),
        3 => vec((which(), moment()), 0..4).prop_map(Call::Touch),
        2 => (moment(), moment(), limit())
            .prop_map(|(idle_since, created_until, limit)| Call::Overdue { idle_since, created_until, limit }),
        2 => limit().prop_map(Call::Distrusted),
        1 => (moment(), limit()).prop_map(|(until, limit)| Call::Purge { until, limit }),
        2 => (0..4u8, moment()).prop_map(|(which, expires)| Call::SpendLogin { which, expires }),
        1 => (moment(), limit()).prop_map(|(now, limit)| Call::ForgetLogins { now, limit }),
        2 => (which(), moment()).prop_map(|(which, at)| Call::Owe { which, at }),
        3 => (attempt(), moment(), moment(), limit())
            .prop_map(|(attempt, now, lease, limit)| Call::TakeOwed { attempt, now, lease, limit }),
        2 => (1..9i64, attempt()).prop_map(|(id, attempt)| Call::SettleOwed { id, attempt }),
        2 => (1..9i64, attempt(), moment())
            .prop_map(|(id, attempt, due)| Call::PostponeOwed { id, attempt, due }),
        1 => Just(Call::Backlog),
        10 => rest(),
    ]
}

/// Calls that concern the sweep, suspicions and memos.
fn rest() -> impl Strategy<Value = Call> {
    let (moment, limit, attempt, probe) = (|| 0..MOMENTS, || 0..5usize, || 0..2u8, any::<bool>);
    let (key, memo) = (|| 0..4u8, any::<bool>);
    prop_oneof![
        (probe(), attempt(), moment(), moment(), limit()).prop_map(|(probe, attempt, now, lease, limit)| {
            Call::TakeSlots { probe, attempt, now, lease, limit }
        }),
        (probe(), attempt(), moment()).prop_map(|(probe, attempt, lease)| Call::HoldSlot {
            probe,
            attempt,
            lease
        }),
        (probe(), attempt(), moment()).prop_map(|(probe, attempt, due)| Call::LeaveSlot {
            probe,
            attempt,
            due
        }),
        (probe(), option::of(0..SESSIONS), limit()).prop_map(|(probe, after, limit)| Call::InSlot {
            probe,
            after,
            limit
        }),
        probe().prop_map(|probe| Call::LongestDue { probe }),
        vec((any::<prop::sample::Index>(), 0..3u8), 0..4).prop_map(|rows| {
            Call::ReplaceAll(rows.into_iter().map(|(read, change)| (read.index(64), change)).collect())
        }),
        moment().prop_map(Call::Census),
        (key(), 0..3u32, moment()).prop_map(|(key, owner, noted)| Call::Suspect { key, owner, noted }),
        (attempt(), moment(), moment(), limit())
            .prop_map(|(attempt, now, lease, limit)| Call::TakeSuspicions { attempt, now, lease, limit }),
        (key(), attempt()).prop_map(|(key, attempt)| Call::SettleSuspicion { key, attempt }),
        (key(), attempt(), moment()).prop_map(|(key, attempt, due)| Call::PostponeSuspicion {
            key,
            attempt,
            due
        }),
        (moment(), limit()).prop_map(|(until, limit)| Call::ForgetSuspicions { until, limit }),
        memo().prop_map(Call::Memo),
        (memo(), 0..4u64, any::<u8>()).prop_map(|(one, version, value)| Call::PutMemo {
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

/// Small numbers make rows that share their times, and pairs of each kind.
fn row(which: u32, shape: u8) -> Session {
    let plain = common::session(which);
    let mut pair = plain.pair().unwrap().clone();
    pair.expiry =
        [Expiry::Unknown, Expiry::Never, Expiry::At(t(5)), Expiry::At(t(99))][usize::from(shape % 4)];
    let pair = (shape < 200).then_some(pair);
    let created_at = t(i64::from(shape) % 4);
    let state = State::Live(Holding { pair, proven_at: created_at, claim: None });
    Session { subject: owner(which), created_at, last_seen_at: t(i64::from(shape) % 3), state, ..plain }
}

fn reason(which: usize) -> EndReason {
    EndReason::NAMES[which].0
}

/// The row after the change, and what it owes. None where the rules refuse.
fn changed(row: Session, change: Change) -> Option<(Session, Option<OwedRevocation>)> {
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
    let next = match change {
        Change::Claim(whose) => row.claim(claim(whose)),
        Change::LoseAnswer(whose) => row.lose_answer(attempt(whose), false),
        Change::Release(whose) => row.release(attempt(whose)),
        Change::Rotate(whose) => row.rotate(attempt(whose), None, t(4), rotated),
        Change::Prove => row.prove(generation, t(6)),
        Change::Suspect => row.suspect(generation),
        Change::Park => row.park(generation),
        Change::End => return row.end(EndReason::SignedOut, t(7)).ok(),
        Change::Rename => {
            Ok(Session { display_name: "Lovelace".to_owned(), version: row.version.next(), ..row })
        }
        Change::Forge(version) => {
            Ok(Session { version: Version(version), ..self::row(1, 0).with_id(row.id) })
        }
    };
    next.ok().map(|next| (next, None))
}

trait WithId {
    fn with_id(self, id: SessionId) -> Self;
}

impl WithId for Session {
    fn with_id(self, id: SessionId) -> Self {
        Session { id, ..self }
    }
}

fn revocation(which: u32, at: i64) -> OwedRevocation {
    let (_, owed) = row(which, 0).end(EndReason::SignedOut, t(at)).unwrap();
    owed.unwrap()
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
        Call::Replace { read, change, owe } => {
            let base = seen.get(read % seen.len().max(1)).cloned().unwrap_or_else(|| row(0, 0));
            let Some((next, owed)) = changed(base, change) else { return Answer::Nothing(Ok(())) };
            let owed = owed.or_else(|| owe.then(|| revocation(1, 2)));
            let of_claim = matches!(change, Change::Claim(_) | Change::LoseAnswer(_) | Change::Release(_));
            Answer::Replaced(match owed {
                None if of_claim => store.replace_claim(&next).await,
                owed => store.replace(&next, owed.as_ref()).await,
            })
        }
        Call::Devices { owner: whose, limit } => Answer::Rows(store.devices(&owner(whose), limit).await),
        Call::EndAll { owner: whose, except, before, reason: why } => {
            let selection =
                Selection { subject: owner(whose), except: except.map(id), created_before: at(before) };
            Answer::Rows(store.end_all(&selection, reason(why), at(8)).await)
        }
        Call::Touch(uses) => {
            let uses: Vec<(SessionId, Timestamp)> =
                uses.into_iter().map(|(which, moment)| (id(which), at(moment))).collect();
            Answer::Nothing(store.touch(&uses).await)
        }
        Call::Overdue { idle_since, created_until, limit } => {
            Answer::Ids(store.overdue(at(idle_since), at(created_until), limit).await)
        }
        Call::Distrusted(limit) => Answer::Ids(store.distrusted(limit).await),
        Call::Purge { until, limit } => Answer::Number(store.purge(at(until), limit).await),
        Call::SpendLogin { which, expires } => {
            Answer::Truth(store.spend_login([which; 32], at(expires)).await)
        }
        Call::ForgetLogins { now, limit } => Answer::Number(store.forget_logins(at(now), limit).await),
        Call::Owe { which, at: moment } => Answer::Nothing(store.owe(&revocation(which, moment)).await),
        Call::TakeOwed { attempt: whose, now, lease, limit } => {
            Answer::Owed(store.take_owed(attempt(whose), at(now), at(lease), limit).await)
        }
        Call::SettleOwed { id, attempt: whose } => {
            Answer::Truth(store.settle_owed(OwedId(id), attempt(whose)).await)
        }
        Call::PostponeOwed { id, attempt: whose, due } => {
            Answer::Truth(store.postpone_owed(OwedId(id), attempt(whose), at(due)).await)
        }
        Call::Backlog => Answer::Backlog(store.owed_backlog().await),
        Call::Suspect { .. }
        | Call::TakeSuspicions { .. }
        | Call::SettleSuspicion { .. }
        | Call::PostponeSuspicion { .. }
        | Call::ForgetSuspicions { .. } => answer_of_suspicions(store, call).await,
        _ => answer_of_the_sweep(store, call, seen).await,
    }
}

async fn answer_of_suspicions(store: &dyn Store, call: &Call) -> Answer {
    let key = |key| SuspicionKey([key; 32]);
    match call.clone() {
        Call::Suspect { key: tag, owner: whose, noted } => {
            let suspicion = Suspicion { subject: owner(whose), at: t(3), cause: Cause::Notice };
            Answer::Truth(store.suspect(key(tag), &suspicion, t(noted)).await)
        }
        Call::TakeSuspicions { attempt: whose, now, lease, limit } => {
            Answer::Suspected(store.take_suspicions(attempt(whose), t(now), t(lease), limit).await)
        }
        Call::SettleSuspicion { key: tag, attempt: whose } => {
            Answer::Truth(store.settle_suspicion(key(tag), attempt(whose)).await)
        }
        Call::PostponeSuspicion { key: tag, attempt: whose, due } => {
            Answer::Truth(store.postpone_suspicion(key(tag), attempt(whose), t(due)).await)
        }
        Call::ForgetSuspicions { until, limit } => {
            Answer::Number(store.forget_suspicions(t(until), limit).await)
        }
        _ => Answer::Nothing(Ok(())),
    }
}

async fn answer_of_the_sweep(store: &dyn Store, call: &Call, seen: &[Session]) -> Answer {
    let wheel = |probe| if probe { Wheel::Probe } else { Wheel::Validation };
    // The ids of all sessions here end alike.
    let slot = Slot::of(id(0));
    let name = |one| if one { "one" } else { "other" };
    match call.clone() {
        Call::TakeSlots { probe, attempt: whose, now, lease, limit } => {
            Answer::Visits(store.take_slots(wheel(probe), attempt(whose), t(now), t(lease), limit).await)
        }
        Call::HoldSlot { probe, attempt: whose, lease } => {
            Answer::Truth(store.hold_slot(wheel(probe), slot, attempt(whose), t(lease)).await)
        }
        Call::LeaveSlot { probe, attempt: whose, due } => {
            Answer::Truth(store.leave_slot(wheel(probe), slot, attempt(whose), t(due)).await)
        }
        Call::InSlot { probe, after, limit } => {
            Answer::Rows(store.in_slot(wheel(probe), slot, after.map(id), limit).await)
        }
        Call::LongestDue { probe } => Answer::Time(store.longest_due(wheel(probe)).await),
        Call::ReplaceAll(reads) => {
            let mut once = BTreeSet::new();
            let rows = reads.iter().filter_map(|(read, change)| {
                let base = seen.get(read % seen.len().max(1))?.clone();
                let change = [Change::Prove, Change::Suspect, Change::Park][usize::from(*change)];
                Some(changed(base, change)?.0).filter(|next| once.insert(next.id))
            });
            let next: Vec<_> = rows.collect();
            Answer::Truths(store.replace_all(&next).await)
        }
        Call::Census(now) => Answer::Census(store.census(t(now)).await),
        Call::Memo(one) => Answer::Memo(store.memo(name(one)).await),
        Call::PutMemo { one, version, value } => {
            let memo = Memo { version: Version(version), value: vec![value] };
            Answer::Truth(store.put_memo(name(one), &memo).await)
        }
        _ => Answer::Nothing(Ok(())),
    }
}

/// No session takes the id of one that was purged, but the few ids here come again: nobody holds a row of before.
async fn forget_former_life(store: &dyn Store, call: &Call, seen: &mut Vec<Session>) {
    if let Call::Insert { which, .. } = call
        && store.load(id(*which)).await.unwrap().is_none()
    {
        seen.retain(|row| row.id != id(*which));
    }
}

/// Makes the same calls of both, and fails at the first answer that differs.
pub async fn compare(given: &dyn Store, expected: &dyn Store, calls: Vec<Call>) -> Result<(), TestCaseError> {
    // A change is made from a row that was read, so what is there before the first call is read.
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
        let wanted = expected.owed_backlog().await;
        prop_assert_eq!(given.owed_backlog().await, wanted, "step {}: {:?}", step, call);
    }
    Ok(())
}
