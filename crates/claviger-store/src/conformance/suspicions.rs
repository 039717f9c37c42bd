//! Checks of the suspicions that a user disconnected the app.

use std::{collections::BTreeSet, sync::Arc};

use claviger_core::{
    ids::AttemptId,
    suspicion::{Cause, Suspicion},
};

use super::fixtures::*;
use crate::{Store, Suspected, SuspicionKey};

fn key(tag: u8) -> SuspicionKey {
    SuspicionKey([tag; 32])
}

fn suspicion(owner: &str) -> Suspicion {
    Suspicion { subject: subject(owner), at: t(7), cause: Cause::Notice }
}

async fn take(store: &Arc<dyn Store>, attempt: AttemptId, now: i64, limit: usize) -> Vec<Suspected> {
    store.take_suspicions(attempt, t(now), t(now + 60), limit).await.unwrap()
}

fn keys(taken: &[Suspected]) -> Vec<u8> {
    taken.iter().map(|suspected| suspected.key.0[0]).collect()
}

pub(super) async fn a_suspicion_comes_back_as_it_went_in(store: Arc<dyn Store>) {
    for (tag, (cause, _)) in (1..).zip(Cause::NAMES) {
        let noted = Suspicion { cause, ..suspicion("ada") };
        assert_eq!(store.suspect(key(tag), &noted, t(i64::from(tag))).await, Ok(true));
        let taken = take(&store, OURS, i64::from(tag), 10).await;
        assert_eq!(taken, [Suspected { key: key(tag), suspicion: noted, tries: 0 }]);
        assert_eq!(store.settle_suspicion(key(tag), OURS).await, Ok(true));
    }
}

pub(super) async fn the_same_word_is_noted_once(store: Arc<dyn Store>) {
    assert_eq!(store.suspect(key(1), &suspicion("ada"), t(0)).await, Ok(true));
    assert_eq!(store.suspect(key(1), &suspicion("eve"), t(1)).await, Ok(false));
    assert_eq!(take(&store, OURS, 5, 10).await[0].suspicion, suspicion("ada"), "the first stays");
    assert_eq!(store.settle_suspicion(key(1), OURS).await, Ok(true));
    assert_eq!(store.suspect(key(1), &suspicion("ada"), t(2)).await, Ok(false), "also after it was closed");
    assert_eq!(take(&store, OURS, 500, 10).await, []);
    let writers = (0..RACERS).map(|_| {
        let store = Arc::clone(&store);
        async move { store.suspect(key(2), &suspicion("ada"), t(0)).await.unwrap() }
    });
    assert_eq!(race(writers).await.into_iter().filter(|first| *first).count(), 1);
}

pub(super) async fn suspicions_are_leased(store: Arc<dyn Store>) {
    for (tag, noted_at) in [(1, 30), (2, 10), (3, 20)] {
        assert_eq!(store.suspect(key(tag), &suspicion("ada"), t(noted_at)).await, Ok(true));
    }
    assert_eq!(keys(&take(&store, OURS, 25, 1).await), [2], "the longest due first");
    assert_eq!(keys(&take(&store, THEIRS, 25, 9).await), [3], "what is leased is nobody else's");
    assert_eq!(store.settle_suspicion(key(2), THEIRS).await, Ok(false), "only the holder settles");
    assert_eq!(store.postpone_suspicion(key(2), THEIRS, t(26)).await, Ok(false), "or postpones");
    assert_eq!(store.postpone_suspicion(key(2), OURS, t(40)).await, Ok(true));
    assert_eq!(store.postpone_suspicion(key(2), OURS, t(41)).await, Ok(false), "once");
    assert_eq!(keys(&take(&store, OURS, 39, 9).await), [1]);
    let again = take(&store, OURS, 40, 9).await;
    assert_eq!((keys(&again), again[0].tries), (vec![2], 1), "due again, with one more try");
    assert_eq!(keys(&take(&store, OURS, 85, 9).await), [3], "a lease that is over holds nothing");
    assert_eq!(store.settle_suspicion(key(3), THEIRS).await, Ok(false));
}

pub(super) async fn many_takers_of_suspicions_share_without_overlap(store: Arc<dyn Store>) {
    for tag in 1..=40 {
        store.suspect(key(tag), &suspicion("ada"), t(0)).await.unwrap();
    }
    let takers = (0..RACERS).map(|n| {
        let store = Arc::clone(&store);
        async move { take(&store, AttemptId([n; 16]), 0, 5).await }
    });
    let taken: Vec<_> = race(takers).await.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = taken.iter().map(|suspected| suspected.key).collect();
    assert_eq!((taken.len(), distinct.len()), (40, 40), "each went to one taker");
}

pub(super) async fn closed_suspicions_are_forgotten(store: Arc<dyn Store>) {
    for (tag, noted_at) in [(1, 12), (2, 10), (3, 11), (4, 10)] {
        store.suspect(key(tag), &suspicion("ada"), t(noted_at)).await.unwrap();
    }
    take(&store, OURS, 20, 9).await;
    for tag in 1..=3 {
        store.settle_suspicion(key(tag), OURS).await.unwrap();
    }
    assert_eq!(store.forget_suspicions(t(9), 10).await, Ok(0));
    assert_eq!(store.forget_suspicions(t(12), 1).await, Ok(1), "at most the limit");
    assert_eq!(store.suspect(key(2), &suspicion("ada"), t(90)).await, Ok(true), "the oldest went");
    assert_eq!(store.forget_suspicions(t(11), 10).await, Ok(1), "noted at that moment");
    assert_eq!(store.forget_suspicions(t(80), 10).await, Ok(1));
    assert_eq!(keys(&take(&store, THEIRS, 95, 9).await), [4, 2], "an open one is never forgotten");
}
