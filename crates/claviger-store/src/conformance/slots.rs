//! Checks of the visits to slots.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use claviger_core::{
    ActiveState, AttemptId, BlobHead, EndReason, SealedBlob, SealedPair, Session, SessionId, Slot, State,
    Timestamp, Version,
};

use super::fixtures::*;
use crate::{Item, ItemId, KeyIdCount, Lease, Queue, SessionCounts, Store, SweepKind};

/// A session of Ada's in this slot. `tag` distinguishes sessions of the same slot.
fn in_slot(slot: u16, tag: u8) -> Session {
    // The slot is the upper ten of the last 32 bits.
    let [a, b] = (slot << 6).to_be_bytes();
    let id = SessionId::new(t(i64::from(tag)), [tag, 0, 0, 0, 0, 0, a, b, 0, tag]);
    assert_eq!(Slot::of(id).number(), slot);
    Session { id, ..session(tag, i64::from(tag)) }
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn id(sweep: SweepKind, number: u16) -> ItemId {
    ItemId::Slot(sweep, slot(number))
}

async fn take(store: &Arc<dyn Store>, holder: AttemptId, now: i64, limit: usize) -> Vec<Lease<Item>> {
    super::fixtures::take(store, VALIDATIONS, holder, (now, now + 60), limit).await
}

fn leases<const N: usize>(holder: AttemptId, slots: [(u16, Timestamp); N]) -> Vec<Lease<Item>> {
    leases_of(SweepKind::Validation, holder, slots)
}

fn leases_of<const N: usize>(
    sweep: SweepKind,
    holder: AttemptId,
    slots: [(u16, Timestamp); N],
) -> Vec<Lease<Item>> {
    let lease = |(number, due_at)| Lease {
        id: id(sweep, number),
        item: Item::Slot(slot(number)),
        holder,
        due_at,
        tries: 0,
    };
    slots.map(lease).to_vec()
}

/// The earliest time at which a validation is due.
async fn longest_due(store: &Arc<dyn Store>) -> Option<Timestamp> {
    store.backlog(VALIDATIONS).await.unwrap().oldest
}

const VALIDATIONS: Queue = Queue::Slots(SweepKind::Validation);
const NEVER_VISITED: Timestamp = Timestamp::EPOCH;

pub(super) async fn slots_without_sessions_are_passed_over(store: Arc<dyn Store>) {
    assert_eq!(take(&store, OURS, 0, 10).await, []);
    assert_eq!(longest_due(&store).await, None);
    put(&store, [in_slot(3, 1), in_slot(1023, 2), in_slot(3, 3), in_slot(0, 4)]).await;
    change(&store, end(in_slot(0, 4))).await;
    let parked = in_slot(7, 5);
    put(&store, [parked.clone()]).await;
    change(&store, parked.park(Version::FIRST).unwrap()).await;

    assert_eq!(longest_due(&store).await, Some(NEVER_VISITED));
    let both = leases(OURS, [(3, NEVER_VISITED), (1023, NEVER_VISITED)]);
    assert_eq!(take(&store, OURS, 0, 10).await, both, "only slots with a live session");
    let connections = Queue::Slots(SweepKind::Connections);
    let checked = super::fixtures::take(&store, connections, OURS, (0, 60), 10).await;
    let open = leases_of(
        SweepKind::Connections,
        OURS,
        [(3, NEVER_VISITED), (7, NEVER_VISITED), (1023, NEVER_VISITED)],
    );
    assert_eq!(checked, open, "a sweep of its own, for all that have not ended");
    assert_eq!(store.backlog(connections).await.unwrap().count, 3, "only slots in use");
}

pub(super) async fn the_slots_due_longest_come_first(store: Arc<dyn Store>) {
    put(&store, (0..4).map(|n| in_slot(u16::from(n), n + 1))).await;
    assert_eq!(take(&store, OURS, 0, 4).await.len(), 4);
    for (number, due) in [(0, 130), (1, 110), (2, 120), (3, 300)] {
        assert!(reschedule(&store, id(SweepKind::Validation, number), OURS, t(due)).await);
    }
    assert_eq!(longest_due(&store).await, Some(t(110)));
    assert_eq!(take(&store, OURS, 109, 9).await, [], "none is due");
    assert_eq!(take(&store, OURS, 110, 9).await, leases(OURS, [(1, t(110))]), "due at that moment");
    assert_eq!(
        take(&store, OURS, 200, 2).await,
        leases(OURS, [(1, t(110)), (2, t(120))]),
        "at most the limit"
    );
    assert_eq!(longest_due(&store).await, Some(t(110)), "a lease is no visit");
}

pub(super) async fn a_leased_slot_is_nobody_elses(store: Arc<dyn Store>) {
    put(&store, [in_slot(5, 1)]).await;
    let due = |holder| leases(holder, [(5, NEVER_VISITED)]);
    assert_eq!(take(&store, OURS, 0, 9).await, due(OURS));
    assert_eq!(take(&store, THEIRS, 59, 9).await, []);
    assert!(!extend(&store, id(SweepKind::Validation, 5), THEIRS, t(900)).await);
    assert!(!reschedule(&store, id(SweepKind::Validation, 5), THEIRS, t(900)).await);
    assert!(!extend(&store, id(SweepKind::Connections, 5), OURS, t(900)).await, "another sweep");
    assert!(!acknowledge(&store, id(SweepKind::Validation, 5), OURS).await, "a slot is never done");
    assert!(extend(&store, id(SweepKind::Validation, 5), OURS, t(100)).await);
    assert_eq!(take(&store, THEIRS, 99, 9).await, [], "the lease was prolonged");
    assert_eq!(take(&store, THEIRS, 100, 9).await, due(THEIRS), "as due as before, when it is over");
    assert!(!extend(&store, id(SweepKind::Validation, 5), OURS, t(900)).await);
    assert!(!reschedule(&store, id(SweepKind::Validation, 5), OURS, t(900)).await);
    assert!(reschedule(&store, id(SweepKind::Validation, 5), THEIRS, t(200)).await);
    assert!(!reschedule(&store, id(SweepKind::Validation, 5), THEIRS, t(900)).await, "once");
    assert_eq!(
        take(&store, OURS, 200, 9).await,
        leases(OURS, [(5, t(200))]),
        "no lease is left of the visit before"
    );
}

pub(super) async fn a_slot_of_a_clock_that_was_ahead_is_due_at_once(store: Arc<dyn Store>) {
    put(&store, [in_slot(1, 1), in_slot(2, 2), in_slot(3, 3)]).await;
    let ahead = 365 * 24 * 60 * 60;
    assert_eq!(take(&store, OURS, ahead, 1).await, leases(OURS, [(1, NEVER_VISITED)]));
    let later = LATEST_DUE.after(Duration::from_millis(1));
    assert_eq!(take(&store, OURS, 100, 1).await, leases(OURS, [(1, NEVER_VISITED)]), "CLOCK: its lease");
    assert!(reschedule(&store, id(SweepKind::Validation, 1), OURS, later).await);
    assert_eq!(take(&store, OURS, 100, 2).await.len(), 2);
    assert!(reschedule(&store, id(SweepKind::Validation, 2), OURS, LATEST_DUE).await);
    assert_eq!(longest_due(&store).await, Some(NEVER_VISITED));
    let due = take(&store, THEIRS, 120, 9).await;
    assert_eq!(due, leases(THEIRS, [(1, t(100))]), "CLOCK: its due time, from the first look on");
    assert!(
        extend(&store, id(SweepKind::Validation, 3), OURS, t(190)).await,
        "a lease in force is left alone"
    );
    assert_eq!(take(&store, THEIRS, 130, 9).await, [], "as is one that its holder extended a little");
    assert!(extend(&store, id(SweepKind::Validation, 3), OURS, t(ahead)).await);
    assert_eq!(take(&store, THEIRS, 140, 9).await, leases(THEIRS, [(3, NEVER_VISITED)]));
    assert!(!extend(&store, id(SweepKind::Validation, 3), OURS, t(200)).await, "it is nobody's before");
}

pub(super) async fn many_takers_of_slots_share_without_overlap(store: Arc<dyn Store>) {
    put(&store, (0..40).map(|n| in_slot(u16::from(n), n + 1))).await;
    let takers = (0..RACERS).map(|n| {
        let store = Arc::clone(&store);
        async move { take(&store, AttemptId([n; 16]), 0, 5).await }
    });
    let taken: Vec<_> = race(takers).await.into_iter().flatten().collect();
    let slots: BTreeSet<_> = taken.iter().map(|lease| lease.id).collect();
    assert_eq!((taken.len(), slots.len()), (40, 40), "each slot went to one taker");
}

pub(super) async fn a_slot_is_read_page_by_page(store: Arc<dyn Store>) {
    let rows: Vec<_> = (1..=5).map(|tag| in_slot(9, tag)).collect();
    put(&store, rows.iter().rev().cloned()).await;
    put(&store, [in_slot(8, 1), in_slot(10, 1)]).await;
    let parked = change(&store, rows[1].clone().park(Version::FIRST).unwrap()).await;
    change(&store, end(rows[3].clone())).await;

    let page = async |sweep, after, limit| store.in_slot(sweep, slot(9), after, limit).await.unwrap();
    let live = [&rows[0], &rows[2], &rows[4]].map(Clone::clone);
    assert_eq!(page(SweepKind::Validation, None, 10).await, live);
    assert_eq!(page(SweepKind::Validation, None, 2).await, live[..2]);
    assert_eq!(page(SweepKind::Validation, Some(rows[2].id), 2).await, live[2..]);
    assert_eq!(page(SweepKind::Validation, Some(rows[4].id), 2).await, []);
    let open = [rows[0].clone(), parked, rows[2].clone(), rows[4].clone()];
    assert_eq!(page(SweepKind::Connections, None, 10).await, open);
}

pub(super) async fn many_rows_are_written_each_by_its_own_version(store: Arc<dyn Store>) {
    let rows: Vec<_> = (1..=4).map(|tag| in_slot(9, tag)).collect();
    put(&store, rows.clone()).await;
    let moved = change(&store, rows[1].clone().claim(claim(OURS)).unwrap()).await;
    change(&store, end(rows[2].clone())).await;
    store.record_last_seen(&[(rows[0].id, t(50))]).await.unwrap();

    let proven = |row: &Session| row.clone().prove(Version::FIRST, t(400)).unwrap();
    let unknown = in_slot(9, 77);
    let parked = rows[3].clone().park(Version::FIRST).unwrap();
    let next = [proven(&rows[0]), proven(&rows[1]), proven(&rows[2]), proven(&unknown), parked.clone()];
    let written = store.apply_all(&next).await.unwrap();
    assert_eq!(written, [true, false, false, false, true], "MONO: a row that moved on is left alone");
    let first = Session { last_seen_at: t(50), ..next[0].next().clone() };
    assert_eq!(get(&store, rows[0].id).await, first, "IDLE: a proof is no use");
    assert_eq!(get(&store, rows[1].id).await, moved);
    assert_eq!(get(&store, rows[2].id).await, ended(rows[2].clone()), "ENDED");
    assert_eq!(store.load(unknown.id).await, Ok(None), "a proof makes no row");
    assert_eq!(get(&store, rows[3].id).await, *parked.next());
    assert_eq!(store.apply_all(&next).await.unwrap(), [false; 5], "MONO: no version is written twice");
    assert_eq!(store.apply_all(&[]).await, Ok(vec![]));
}

pub(super) async fn one_of_many_proofs_wins(store: Arc<dyn Store>) {
    let mut row = in_slot(9, 1);
    put(&store, [row.clone()]).await;
    for round in 0..ROUNDS {
        let writers = (0..RACERS).map(|n| {
            let store = Arc::clone(&store);
            let at = t(1000 * i64::from(round)).after(Duration::from_secs(u64::from(n)));
            let next = row.clone().prove(Version::FIRST, at).unwrap();
            async move { store.apply_all(&[next]).await.unwrap() == [true] }
        });
        assert_eq!(race(writers).await.into_iter().filter(|won| *won).count(), 1, "MONO");
        let next = get(&store, row.id).await;
        assert_eq!(next.version, row.version.next(), "MONO");
        row = next;
    }
}

pub(super) async fn a_census_counts_by_state(store: Arc<dyn Store>) {
    assert_eq!(store.session_counts(t(200)).await, Ok(SessionCounts::default()));
    let rows: Vec<_> = (1..=6).map(|tag| in_slot(u16::from(tag), tag)).collect();
    put(&store, rows.clone()).await;
    change(&store, rows[0].clone().prove(Version::FIRST, t(100)).unwrap()).await;
    change(&store, rows[1].clone().park(Version::FIRST).unwrap()).await;
    change(&store, rows[2].clone().park(Version::FIRST).unwrap()).await;
    change(&store, suspected(rows[3].clone())).await;
    change(&store, end(rows[4].clone())).await;
    let expected = SessionCounts {
        live: 2,
        parked: 2,
        suspect: 1,
        oldest_proof: Some(t(6)),
        ..SessionCounts::default()
    };
    assert_eq!(store.session_counts(t(200)).await, Ok(expected));
    change(
        &store,
        rows[2].clone().park(Version::FIRST).unwrap().into_next().prove(Version::FIRST, t(90)).unwrap(),
    )
    .await;
    change(&store, rows[5].clone().prove(Version::FIRST, t(101)).unwrap()).await;
    let expected = SessionCounts {
        live: 3,
        parked: 1,
        suspect: 1,
        oldest_proof: Some(t(90)),
        ..SessionCounts::default()
    };
    assert_eq!(store.session_counts(t(200)).await, Ok(expected));
}

pub(super) async fn rows_are_counted_by_how_their_blobs_begin(store: Arc<dyn Store>) {
    assert_eq!(store.key_id_counts().await, Ok(vec![]));
    let sealed = |tag: u8, access: u8, refresh: Option<u8>| {
        let blob = |first| SealedBlob(vec![first, 0, 0, 0, 255, tag, tag]);
        let pair = SealedPair { access: blob(access), refresh: refresh.map(blob), ..pair(Version::FIRST) };
        let active = ActiveState { pair: Some(pair), proven_at: t(1), claim: None };
        Session { state: State::Live(active), ..in_slot(u16::from(tag), tag) }
    };
    let none = ActiveState { pair: None, proven_at: t(1), claim: None };
    let without = Session { state: State::Live(none), ..in_slot(6, 6) };
    let rows = [sealed(1, 1, Some(1)), sealed(2, 1, Some(2)), sealed(3, 2, None), sealed(4, 2, Some(2))];
    put(&store, rows.clone().into_iter().chain([without])).await;
    let count = |first, sessions, revocations| KeyIdCount {
        head: BlobHead([first, 0, 0, 0, 255]),
        sessions,
        revocations,
    };
    assert_eq!(store.key_id_counts().await, Ok(vec![count(1, 2, 0), count(2, 3, 0)]));
    change(&store, rows[1].clone().park(Version::FIRST).unwrap()).await;
    assert_eq!(store.key_id_counts().await, Ok(vec![count(1, 2, 0), count(2, 3, 0)]), "a parked row counts");

    change(&store, rows[0].clone().end(EndReason::SignedOut, t(900)).unwrap()).await;
    assert_eq!(
        store.key_id_counts().await,
        Ok(vec![count(1, 1, 1), count(2, 3, 0)]),
        "what is owed counts by itself"
    );

    let pair = rows[2].pair().unwrap();
    let next = rows[2].clone().reseal(pair.generation, rows[0].pair().unwrap().access.clone(), None).unwrap();
    let next = change(&store, next).await;
    assert_eq!(get(&store, next.id).await, next);
    assert_eq!(
        store.key_id_counts().await,
        Ok(vec![count(1, 2, 1), count(2, 2, 0)]),
        "a row that was re-sealed"
    );
}
