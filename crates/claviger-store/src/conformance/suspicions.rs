//! Checks of the suspicions that a user disconnected the app.

use std::{collections::BTreeSet, sync::Arc};

use claviger_core::{AttemptId, Cause, Suspicion};

use super::fixtures::*;
use crate::{Backlog, Item, ItemId, Lease, Leftover, Queue, Store, SuspicionKey};

fn key(tag: u8) -> SuspicionKey {
    SuspicionKey([tag; 32])
}

fn id(tag: u8) -> ItemId {
    ItemId::Suspicion(key(tag))
}

fn suspicion(owner: &str) -> Suspicion {
    Suspicion { subject: subject(owner), at: t(7), cause: Cause::WebhookEvent }
}

async fn note(store: &Arc<dyn Store>, tag: u8, suspicion: Suspicion, noted_at: i64) -> bool {
    store.enqueue(&Item::Suspicion { key: key(tag), suspicion, noted_at: t(noted_at) }).await.unwrap()
}

async fn take(store: &Arc<dyn Store>, holder: AttemptId, now: i64, limit: usize) -> Vec<Lease<Item>> {
    super::fixtures::take(store, Queue::Suspicions, holder, (now, now + 60), limit).await
}

async fn forget(store: &Arc<dyn Store>, until: i64, limit: usize) -> usize {
    store.purge(Leftover::ClosedSuspicions, t(until), limit).await.unwrap()
}

fn tags(taken: &[Lease<Item>]) -> Vec<u8> {
    let tag = |lease: &Lease<Item>| match lease.id {
        ItemId::Suspicion(SuspicionKey(key)) => key[0],
        other => panic!("the id of another queue: {other:?}"),
    };
    taken.iter().map(tag).collect()
}

pub(super) async fn a_suspicion_comes_back_as_it_went_in(store: Arc<dyn Store>) {
    for (tag, (cause, _)) in (1..).zip(Cause::NAMES) {
        let noted = Suspicion { cause, ..suspicion("ada") };
        let at = i64::from(tag);
        assert!(note(&store, tag, noted.clone(), at).await);
        let taken = take(&store, OURS, at, 10).await;
        let item = Item::Suspicion { key: key(tag), suspicion: noted, noted_at: t(at) };
        assert_eq!(taken, [Lease { id: id(tag), item, holder: OURS, due_at: t(at), tries: 0 }]);
        assert!(acknowledge(&store, id(tag), OURS).await);
    }
}

pub(super) async fn the_same_word_is_noted_once(store: Arc<dyn Store>) {
    assert!(note(&store, 1, suspicion("ada"), 0).await);
    assert!(!note(&store, 1, suspicion("eve"), 1).await);
    assert_eq!(
        take(&store, OURS, 5, 10).await[0].item.clone().suspicion(),
        Some(suspicion("ada")),
        "the first stays"
    );
    assert!(acknowledge(&store, id(1), OURS).await);
    assert!(!note(&store, 1, suspicion("ada"), 2).await, "also after it was closed");
    assert_eq!(take(&store, OURS, 500, 10).await, []);
    let writers = (0..RACERS).map(|_| {
        let store = Arc::clone(&store);
        async move { note(&store, 2, suspicion("ada"), 0).await }
    });
    assert_eq!(race(writers).await.into_iter().filter(|first| *first).count(), 1);
}

pub(super) async fn suspicions_are_leased(store: Arc<dyn Store>) {
    for (tag, noted_at) in [(1, 30), (2, 10), (3, 20)] {
        assert!(note(&store, tag, suspicion("ada"), noted_at).await);
    }
    assert_eq!(tags(&take(&store, OURS, 25, 1).await), [2], "the longest due first");
    assert_eq!(tags(&take(&store, THEIRS, 25, 9).await), [3], "what is leased is nobody else's");
    assert!(!acknowledge(&store, id(2), THEIRS).await, "only the holder acknowledges");
    assert!(!reschedule(&store, id(2), THEIRS, t(26)).await, "or puts it off");
    assert!(reschedule(&store, id(2), OURS, t(40)).await);
    assert!(!reschedule(&store, id(2), OURS, t(41)).await, "once");
    assert_eq!(tags(&take(&store, OURS, 39, 9).await), [1]);
    let again = take(&store, OURS, 40, 9).await;
    assert_eq!((tags(&again), again[0].tries), (vec![2], 1), "due again, with one more try");
    assert_eq!(tags(&take(&store, OURS, 85, 9).await), [3], "a lease that is over holds nothing");
    assert!(!extend(&store, id(3), THEIRS, t(900)).await, "it went to somebody else");
    assert!(extend(&store, id(3), OURS, t(200)).await);
    assert_eq!(tags(&take(&store, THEIRS, 199, 9).await), [1, 2], "an extended lease is in force");
    assert!(!acknowledge(&store, id(3), THEIRS).await);
}

pub(super) async fn many_takers_of_suspicions_share_without_overlap(store: Arc<dyn Store>) {
    for tag in 1..=40 {
        note(&store, tag, suspicion("ada"), 0).await;
    }
    let takers = (0..RACERS).map(|n| {
        let store = Arc::clone(&store);
        async move { take(&store, AttemptId([n; 16]), 0, 5).await }
    });
    let taken: Vec<_> = race(takers).await.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = taken.iter().map(|lease| lease.id).collect();
    assert_eq!((taken.len(), distinct.len()), (40, 40), "each went to one taker");
}

pub(super) async fn closed_suspicions_are_forgotten(store: Arc<dyn Store>) {
    for (tag, noted_at) in [(1, 12), (2, 10), (3, 11), (4, 10)] {
        note(&store, tag, suspicion("ada"), noted_at).await;
    }
    take(&store, OURS, 20, 9).await;
    for tag in 1..=3 {
        assert!(acknowledge(&store, id(tag), OURS).await);
    }
    assert_eq!(forget(&store, 9, 10).await, 0);
    assert_eq!(forget(&store, 12, 1).await, 1, "at most the limit");
    assert!(note(&store, 2, suspicion("ada"), 90).await, "the oldest went");
    assert_eq!(forget(&store, 11, 10).await, 1, "noted at that moment");
    assert_eq!(forget(&store, 80, 10).await, 1);
    assert_eq!(tags(&take(&store, THEIRS, 95, 9).await), [4, 2], "an open one is never forgotten");
}

pub(super) async fn the_backlog_counts_open_suspicions(store: Arc<dyn Store>) {
    let backlog = async || store.backlog(Queue::Suspicions).await.unwrap();
    assert_eq!(backlog().await, Backlog::default());
    for (tag, noted_at) in [(1, 12), (2, 10)] {
        assert!(note(&store, tag, suspicion("ada"), noted_at).await);
    }
    take(&store, OURS, 20, 9).await;
    assert_eq!(backlog().await, Backlog { count: 2, oldest: Some(t(10)) }, "what is leased counts");
    assert!(acknowledge(&store, id(2), OURS).await);
    assert_eq!(backlog().await, Backlog { count: 1, oldest: Some(t(12)) }, "what is closed does not");
}
