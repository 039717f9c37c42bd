//! Checks of the visits to slots.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use claviger_core::{
    ids::{AttemptId, SessionId, Version},
    session::{BlobHead, EndReason, Holding, SealedBlob, SealedPair, Session, State},
    sweep::Slot,
    time::Timestamp,
};

use super::fixtures::*;
use crate::{Census, HeadCount, Replaced, Store, Visit, Wheel};

/// A session of Ada's in this slot. `tag` tells apart those of one slot.
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

async fn take(store: &Arc<dyn Store>, attempt: AttemptId, now: i64, limit: usize) -> Vec<Visit> {
    store.take_slots(Wheel::Validation, attempt, t(now), t(now + 60), limit).await.unwrap()
}

fn visits<const N: usize>(slots: [(u16, Timestamp); N]) -> Vec<Visit> {
    slots.map(|(number, due_at)| Visit { slot: slot(number), due_at }).to_vec()
}

const NEVER_VISITED: Timestamp = Timestamp::EPOCH;

pub(super) async fn slots_without_sessions_are_passed_over(store: Arc<dyn Store>) {
    assert_eq!(take(&store, OURS, 0, 10).await, []);
    assert_eq!(store.longest_due(Wheel::Validation).await, Ok(None));
    put(&store, [in_slot(3, 1), in_slot(1023, 2), in_slot(3, 3), in_slot(0, 4)]).await;
    change(&store, ended(in_slot(0, 4))).await;
    let parked = in_slot(7, 5);
    put(&store, [parked.clone()]).await;
    change(&store, parked.park(Version::FIRST).unwrap()).await;

    assert_eq!(store.longest_due(Wheel::Validation).await, Ok(Some(NEVER_VISITED)));
    let both = visits([(3, NEVER_VISITED), (1023, NEVER_VISITED)]);
    assert_eq!(take(&store, OURS, 0, 10).await, both, "only slots with a live session");
    let probed = store.take_slots(Wheel::Probe, OURS, t(0), t(60), 10).await.unwrap();
    let open = visits([(3, NEVER_VISITED), (7, NEVER_VISITED), (1023, NEVER_VISITED)]);
    assert_eq!(probed, open, "a wheel of its own, for all that have not ended");
}

pub(super) async fn the_slots_due_longest_come_first(store: Arc<dyn Store>) {
    put(&store, (0..4).map(|n| in_slot(u16::from(n), n + 1))).await;
    assert_eq!(take(&store, OURS, 0, 4).await.len(), 4);
    for (number, due) in [(0, 130), (1, 110), (2, 120), (3, 300)] {
        assert_eq!(store.leave_slot(Wheel::Validation, slot(number), OURS, t(due)).await, Ok(true));
    }
    assert_eq!(store.longest_due(Wheel::Validation).await, Ok(Some(t(110))));
    assert_eq!(take(&store, OURS, 109, 9).await, [], "none is due");
    assert_eq!(take(&store, OURS, 110, 9).await, visits([(1, t(110))]), "due at that moment");
    assert_eq!(take(&store, OURS, 200, 2).await, visits([(1, t(110)), (2, t(120))]), "at most the limit");
    assert_eq!(store.longest_due(Wheel::Validation).await, Ok(Some(t(110))), "a lease is no visit");
}

pub(super) async fn a_leased_slot_is_nobody_elses(store: Arc<dyn Store>) {
    put(&store, [in_slot(5, 1)]).await;
    let due = visits([(5, NEVER_VISITED)]);
    assert_eq!(take(&store, OURS, 0, 9).await, due);
    assert_eq!(take(&store, THEIRS, 59, 9).await, []);
    assert_eq!(store.hold_slot(Wheel::Validation, slot(5), THEIRS, t(900)).await, Ok(false));
    assert_eq!(store.leave_slot(Wheel::Validation, slot(5), THEIRS, t(900)).await, Ok(false));
    assert_eq!(store.hold_slot(Wheel::Probe, slot(5), OURS, t(900)).await, Ok(false), "another wheel");
    assert_eq!(store.hold_slot(Wheel::Validation, slot(5), OURS, t(100)).await, Ok(true));
    assert_eq!(take(&store, THEIRS, 99, 9).await, [], "the lease was prolonged");
    assert_eq!(take(&store, THEIRS, 100, 9).await, due, "as due as before, when it is over");
    assert_eq!(store.hold_slot(Wheel::Validation, slot(5), OURS, t(900)).await, Ok(false));
    assert_eq!(store.leave_slot(Wheel::Validation, slot(5), OURS, t(900)).await, Ok(false));
    assert_eq!(store.leave_slot(Wheel::Validation, slot(5), THEIRS, t(200)).await, Ok(true));
    assert_eq!(store.leave_slot(Wheel::Validation, slot(5), THEIRS, t(900)).await, Ok(false), "once");
    assert_eq!(
        take(&store, OURS, 200, 9).await,
        visits([(5, t(200))]),
        "no lease is left of the visit before"
    );
}

pub(super) async fn many_takers_of_slots_share_without_overlap(store: Arc<dyn Store>) {
    put(&store, (0..40).map(|n| in_slot(u16::from(n), n + 1))).await;
    let takers = (0..RACERS).map(|n| {
        let store = Arc::clone(&store);
        async move { take(&store, AttemptId([n; 16]), 0, 5).await }
    });
    let taken: Vec<_> = race(takers).await.into_iter().flatten().collect();
    let slots: BTreeSet<_> = taken.iter().map(|visit| visit.slot).collect();
    assert_eq!((taken.len(), slots.len()), (40, 40), "each slot went to one taker");
}

pub(super) async fn a_slot_is_read_page_by_page(store: Arc<dyn Store>) {
    let rows: Vec<_> = (1..=5).map(|tag| in_slot(9, tag)).collect();
    put(&store, rows.iter().rev().cloned()).await;
    put(&store, [in_slot(8, 1), in_slot(10, 1)]).await;
    let parked = rows[1].clone().park(Version::FIRST).unwrap();
    change(&store, parked.clone()).await;
    change(&store, ended(rows[3].clone())).await;

    let page = async |wheel, after, limit| store.in_slot(wheel, slot(9), after, limit).await.unwrap();
    let live = [&rows[0], &rows[2], &rows[4]].map(Clone::clone);
    assert_eq!(page(Wheel::Validation, None, 10).await, live);
    assert_eq!(page(Wheel::Validation, None, 2).await, live[..2]);
    assert_eq!(page(Wheel::Validation, Some(rows[2].id), 2).await, live[2..]);
    assert_eq!(page(Wheel::Validation, Some(rows[4].id), 2).await, []);
    let open = [rows[0].clone(), parked, rows[2].clone(), rows[4].clone()];
    assert_eq!(page(Wheel::Probe, None, 10).await, open);
}

pub(super) async fn many_rows_are_written_each_by_its_own_version(store: Arc<dyn Store>) {
    let rows: Vec<_> = (1..=4).map(|tag| in_slot(9, tag)).collect();
    put(&store, rows.clone()).await;
    let moved = rows[1].clone().claim(claim(OURS)).unwrap();
    change(&store, moved.clone()).await;
    change(&store, ended(rows[2].clone())).await;
    store.touch(&[(rows[0].id, t(50))]).await.unwrap();

    let proven = |row: &Session| row.clone().prove(Version::FIRST, t(400)).unwrap();
    let unknown = in_slot(9, 77);
    let parked = rows[3].clone().park(Version::FIRST).unwrap();
    let next = [proven(&rows[0]), proven(&rows[1]), proven(&rows[2]), proven(&unknown), parked.clone()];
    let written = store.replace_all(&next).await.unwrap();
    assert_eq!(written, [true, false, false, false, true], "MONO: a row that moved on is left alone");
    let first = Session { last_seen_at: t(50), ..next[0].clone() };
    assert_eq!(get(&store, rows[0].id).await, first, "IDLE: a proof is no use");
    assert_eq!(get(&store, rows[1].id).await, moved);
    assert_eq!(get(&store, rows[2].id).await, ended(rows[2].clone()), "ENDED");
    assert_eq!(store.load(unknown.id).await, Ok(None), "a proof makes no row");
    assert_eq!(get(&store, rows[3].id).await, parked);
    assert_eq!(store.replace_all(&next).await.unwrap(), [false; 5], "MONO: no version is written twice");
    assert_eq!(store.replace_all(&[]).await, Ok(vec![]));
}

pub(super) async fn one_of_many_proofs_wins(store: Arc<dyn Store>) {
    let mut row = in_slot(9, 1);
    put(&store, [row.clone()]).await;
    for round in 0..ROUNDS {
        let writers = (0..RACERS).map(|n| {
            let store = Arc::clone(&store);
            let at = t(1000 * i64::from(round)).after(Duration::from_secs(u64::from(n)));
            let next = row.clone().prove(Version::FIRST, at).unwrap();
            async move { store.replace_all(&[next]).await.unwrap() == [true] }
        });
        assert_eq!(race(writers).await.into_iter().filter(|won| *won).count(), 1, "MONO");
        let next = get(&store, row.id).await;
        assert_eq!(next.version, row.version.next(), "MONO");
        row = next;
    }
}

pub(super) async fn a_census_counts_by_state(store: Arc<dyn Store>) {
    assert_eq!(store.census(t(200)).await, Ok(Census::default()));
    let rows: Vec<_> = (1..=6).map(|tag| in_slot(u16::from(tag), tag)).collect();
    put(&store, rows.clone()).await;
    change(&store, rows[0].clone().prove(Version::FIRST, t(100)).unwrap()).await;
    change(&store, rows[1].clone().park(Version::FIRST).unwrap()).await;
    change(&store, rows[2].clone().park(Version::FIRST).unwrap()).await;
    change(&store, suspect(rows[3].clone())).await;
    change(&store, ended(rows[4].clone())).await;
    let expected = Census { live: 2, parked: 2, suspect: 1, oldest_proof: Some(t(6)), ..Census::default() };
    assert_eq!(store.census(t(200)).await, Ok(expected));
    change(&store, rows[2].clone().park(Version::FIRST).unwrap().prove(Version::FIRST, t(90)).unwrap()).await;
    change(&store, rows[5].clone().prove(Version::FIRST, t(101)).unwrap()).await;
    let expected = Census { live: 3, parked: 1, suspect: 1, oldest_proof: Some(t(90)), ..Census::default() };
    assert_eq!(store.census(t(200)).await, Ok(expected));
}

pub(super) async fn rows_are_counted_by_how_their_blobs_begin(store: Arc<dyn Store>) {
    assert_eq!(store.heads().await, Ok(vec![]));
    let sealed = |tag: u8, access: u8, refresh: Option<u8>| {
        let blob = |first| SealedBlob(vec![first, 0, 0, 0, 255, tag, tag]);
        let pair = SealedPair { access: blob(access), refresh: refresh.map(blob), ..pair(Version::FIRST) };
        let holding = Holding { pair: Some(pair), proven_at: t(1), claim: None };
        Session { state: State::Live(holding), ..in_slot(u16::from(tag), tag) }
    };
    let none = Holding { pair: None, proven_at: t(1), claim: None };
    let without = Session { state: State::Live(none), ..in_slot(6, 6) };
    let rows = [sealed(1, 1, Some(1)), sealed(2, 1, Some(2)), sealed(3, 2, None), sealed(4, 2, Some(2))];
    put(&store, rows.clone().into_iter().chain([without])).await;
    let count = |first, sessions, owed| HeadCount { head: BlobHead([first, 0, 0, 0, 255]), sessions, owed };
    assert_eq!(store.heads().await, Ok(vec![count(1, 2, 0), count(2, 3, 0)]));
    change(&store, rows[1].clone().park(Version::FIRST).unwrap()).await;
    assert_eq!(store.heads().await, Ok(vec![count(1, 2, 0), count(2, 3, 0)]), "a parked row counts");

    let (next, owed) = rows[0].clone().end(EndReason::SignedOut, t(900)).unwrap();
    assert_eq!(store.replace(&next, owed.as_ref()).await, Ok(Replaced::Done));
    assert_eq!(
        store.heads().await,
        Ok(vec![count(1, 1, 1), count(2, 3, 0)]),
        "what is owed counts by itself"
    );

    let pair = rows[2].pair().unwrap();
    let next = rows[2].clone().reseal(pair.generation, rows[0].pair().unwrap().access.clone(), None).unwrap();
    change(&store, next.clone()).await;
    assert_eq!(get(&store, next.id).await, next);
    assert_eq!(store.heads().await, Ok(vec![count(1, 2, 1), count(2, 2, 0)]), "a row that was sealed anew");
}
