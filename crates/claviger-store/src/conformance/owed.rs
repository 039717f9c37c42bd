//! Checks of the revocations that providers are owed.

use std::{collections::BTreeSet, sync::Arc};

use claviger_core::{
    ids::AttemptId,
    session::{EndReason, OwedRevocation},
    time::Expiry,
};

use super::fixtures::*;
use crate::{Backlog, OwedId, Replaced, Store};

pub(super) async fn a_revocation_comes_back_as_it_went_in(store: Arc<dyn Store>) {
    let plain = revocation(1);
    let unknown = OwedRevocation { expiry: Expiry::Unknown, ..revocation(2) };
    let never = OwedRevocation { expiry: Expiry::Never, ..revocation(3) };
    let mut foreign = revocation(4);
    foreign.provider.0 = "anbieter-ß".to_owned();
    let all = vec![plain, unknown, never, foreign];
    for owed in &all {
        store.owe(owed).await.unwrap();
    }
    assert_eq!(all_owed(&store, t(4)).await, all);
}

pub(super) async fn a_replacement_owes_with_it_or_not_at_all(store: Arc<dyn Store>) {
    let row = session(1, 0);
    put(&store, [row.clone()]).await;
    let (tombstone, owed) = row.clone().end(EndReason::SignedOut, t(5)).unwrap();
    assert_eq!(store.replace(&tombstone, owed.as_ref()).await, Ok(Replaced::Done));
    let late = store.replace(&tombstone, owed.as_ref()).await.unwrap();
    assert!(matches!(late, Replaced::Conflict(Some(_))), "ENDED: the row ends once");
    assert_eq!(all_owed(&store, t(5)).await, Vec::from_iter(owed), "CASCADE: owed once, due at once");

    let other = session(2, 0);
    put(&store, [other.clone()]).await;
    change(&store, other.claim(claim(OURS)).unwrap()).await;
    assert_eq!(backlog(&store).await.count, 1, "a change that owes nothing owes nothing");
}

pub(super) async fn a_lease_keeps_others_away(store: Arc<dyn Store>) {
    store.owe(&revocation(10)).await.unwrap();
    let take = async |attempt, now, until| store.take_owed(attempt, t(now), t(until), 10).await.unwrap();
    assert_eq!(take(OURS, 9, 40).await, [], "not due yet");
    let first = take(OURS, 10, 40).await;
    assert_eq!(first.len(), 1, "due at that moment");
    assert_eq!(take(THEIRS, 39, 90).await, [], "not twice within the lease");
    assert_eq!(take(OURS, 39, 90).await, [], "not even by its holder");
    let second = take(THEIRS, 40, 90).await;
    assert_eq!(second, first, "CASCADE: again after the lease, by anybody, its tries not counted");
    assert_eq!(store.settle_owed(first[0].id, OURS).await, Ok(false), "the lease went to somebody else");
    assert_eq!(store.settle_owed(first[0].id, THEIRS).await, Ok(true));
}

pub(super) async fn the_longest_due_come_first(store: Arc<dyn Store>) {
    for secs in [30, 10, 20, 10] {
        store.owe(&revocation(secs)).await.unwrap();
    }
    let take = async |now, limit| store.take_owed(OURS, t(now), t(1000), limit).await.unwrap();
    let owed_at =
        |taken: &[crate::Owed]| taken.iter().map(|owed| owed.revocation.owed_at).collect::<Vec<_>>();
    assert_eq!(take(50, 0).await, []);
    let first = take(50, 3).await;
    assert_eq!(owed_at(&first), [t(10), t(10), t(20)], "the oldest first, at most the limit");
    assert!(first[0].id < first[1].id, "of equals the one that was written first");
    assert_eq!(owed_at(&take(50, 3).await), [t(30)], "and then the rest");
}

pub(super) async fn only_the_holder_settles(store: Arc<dyn Store>) {
    store.owe(&revocation(1)).await.unwrap();
    let taken = store.take_owed(OURS, t(1), t(31), 1).await.unwrap();
    let id = taken[0].id;
    assert_eq!(store.settle_owed(id, THEIRS).await, Ok(false), "another attempt holds it");
    assert_eq!(store.settle_owed(OwedId(id.0 + 1), OURS).await, Ok(false), "there is no such revocation");
    assert_eq!(backlog(&store).await.count, 1);
    assert_eq!(store.settle_owed(id, OURS).await, Ok(true));
    assert_eq!(store.settle_owed(id, OURS).await, Ok(false), "settled once");
    assert_eq!(all_owed(&store, t(1000)).await, [], "what is settled does not come back");

    store.owe(&revocation(2)).await.unwrap();
    let id = store.take_owed(OURS, t(2), t(32), 1).await.unwrap()[0].id;
    assert_eq!(
        store.settle_owed(id, OURS).await,
        Ok(true),
        "a lease that nobody took over is still its holder's"
    );
}

pub(super) async fn only_the_holder_postpones(store: Arc<dyn Store>) {
    store.owe(&revocation(1)).await.unwrap();
    let take = async |attempt, now| store.take_owed(attempt, t(now), t(now + 30), 1).await.unwrap();
    let id = take(OURS, 1).await[0].id;
    assert_eq!(store.postpone_owed(id, THEIRS, t(2)).await, Ok(false), "another attempt holds it");
    assert_eq!(store.postpone_owed(OwedId(id.0 + 1), OURS, t(2)).await, Ok(false), "there is none");
    assert_eq!(store.postpone_owed(id, OURS, t(100)).await, Ok(true));
    assert_eq!(store.postpone_owed(id, OURS, t(2)).await, Ok(false), "what was given back is held by nobody");
    assert_eq!(store.settle_owed(id, OURS).await, Ok(false), "what was given back is held by nobody");
    assert_eq!(take(THEIRS, 99).await, [], "not due before the time it was put off to");
    for tries in 1..4 {
        let now = 100 * i64::from(tries);
        let taken = take(THEIRS, now).await;
        assert_eq!((taken[0].id, taken[0].tries), (id, tries), "each postponement is one more try");
        assert_eq!(taken[0].revocation, revocation(1), "a postponement changes nothing of it");
        assert_eq!(store.postpone_owed(id, THEIRS, t(now + 100)).await, Ok(true));
    }
    let taken = store.take_owed(OURS, t(1000), t(1001), 1).await.unwrap();
    assert_eq!(taken[0].tries, 4);
    assert_eq!(take(THEIRS, 1001).await.len(), 1);
    assert_eq!(store.postpone_owed(id, OURS, t(9999)).await, Ok(false), "the lease went to somebody else");
}

pub(super) async fn many_takers_share_without_overlap(store: Arc<dyn Store>) {
    const EACH: usize = 5;
    let all = usize::from(RACERS) * EACH;
    for _ in 0..all {
        store.owe(&revocation(1)).await.unwrap();
    }
    let takers = (0..RACERS).map(|racer| {
        let store = Arc::clone(&store);
        async move { store.take_owed(AttemptId([racer; 16]), t(1), t(31), EACH).await.unwrap() }
    });
    let taken = race(takers).await.concat();
    let distinct: BTreeSet<_> = taken.iter().map(|owed| owed.id).collect();
    assert_eq!((taken.len(), distinct.len()), (all, all), "each revocation is leased to one attempt");
}

pub(super) async fn the_backlog_counts_what_is_owed(store: Arc<dyn Store>) {
    assert_eq!(backlog(&store).await, Backlog::default());
    for secs in [20, 10, 30] {
        store.owe(&revocation(secs)).await.unwrap();
    }
    let owed = |count, secs| Backlog { count, oldest: Some(t(secs)) };
    assert_eq!(backlog(&store).await, owed(3, 10));
    let oldest = store.take_owed(OURS, t(10), t(40), 1).await.unwrap()[0].id;
    assert_eq!(backlog(&store).await, owed(3, 10), "what is leased is owed still");
    assert_eq!(store.postpone_owed(oldest, OURS, t(500)).await, Ok(true));
    assert_eq!(backlog(&store).await, owed(3, 10), "what is put off is owed since as long as before");
    store.take_owed(OURS, t(500), t(600), 3).await.unwrap();
    assert_eq!(store.settle_owed(oldest, OURS).await, Ok(true));
    assert_eq!(backlog(&store).await, owed(2, 20));
}

pub(super) async fn what_is_owed_outlives_its_row(store: Arc<dyn Store>) {
    let row = session(1, 0);
    put(&store, [row.clone()]).await;
    let (tombstone, owed) = row.end(EndReason::SignedOut, t(5)).unwrap();
    assert_eq!(store.replace(&tombstone, owed.as_ref()).await, Ok(Replaced::Done));
    assert_eq!(store.purge(t(5), 10).await, Ok(1));
    assert_eq!(all_owed(&store, t(5)).await, Vec::from_iter(owed), "CASCADE: a purge forgets no debt");
}
