//! Checks of pending revocations.

use std::{collections::BTreeSet, sync::Arc};

use claviger_core::{AttemptId, Cause, EndReason, Expiry, PendingRevocation, Suspicion};

use super::fixtures::*;
use crate::{Applied, Backlog, Item, ItemId, Lease, Leftover, Queue, RevocationId, Store, SuspicionKey};

const REVOCATIONS: Queue = Queue::Revocations;

fn content(lease: &Lease<Item>) -> &PendingRevocation {
    let Item::Revocation(revocation) = &lease.item else { panic!("an item of another queue: {lease:?}") };
    revocation
}

/// The id after this one, which no revocation has.
fn unknown(id: ItemId) -> ItemId {
    let ItemId::Revocation(RevocationId(id)) = id else { panic!("the id of another queue: {id:?}") };
    ItemId::Revocation(RevocationId(id + 1))
}

pub(super) async fn a_revocation_comes_back_as_it_went_in(store: Arc<dyn Store>) {
    let plain = revocation(1);
    let unknown = PendingRevocation { expiry: Expiry::Unknown, ..revocation(2) };
    let never = PendingRevocation { expiry: Expiry::Never, ..revocation(3) };
    let mut foreign = revocation(4);
    foreign.provider.0 = "anbieter-ß".to_owned();
    let all = vec![plain, unknown, never, foreign];
    for owed in &all {
        add_revocation(&store, owed.clone()).await;
    }
    assert_eq!(all_owed(&store, t(4)).await, all);
}

pub(super) async fn an_end_owes_with_it_or_not_at_all(store: Arc<dyn Store>) {
    let row = session(1, 0);
    put(&store, [row.clone()]).await;
    let end = row.clone().end(EndReason::SignedOut, t(5)).unwrap();
    assert_eq!(store.apply(&end).await, Ok(Applied::Done));
    let late = store.apply(&end).await.unwrap();
    assert!(matches!(late, Applied::Conflict(Some(_))), "ENDED: the row ends once");
    let owed = Vec::from_iter(end.revocation().cloned());
    assert_eq!(all_owed(&store, t(5)).await, owed, "CASCADE: owed once, due at once");

    let other = session(2, 0);
    put(&store, [other.clone()]).await;
    change(&store, other.claim(claim(OURS)).unwrap()).await;
    assert_eq!(backlog(&store).await.count, 1, "a change that owes nothing owes nothing");
}

pub(super) async fn a_lease_keeps_others_away(store: Arc<dyn Store>) {
    add_revocation(&store, revocation(10)).await;
    let take = async |holder, now, until| take(&store, REVOCATIONS, holder, (now, until), 10).await;
    assert_eq!(take(OURS, 9, 40).await, [], "not due yet");
    let first = take(OURS, 10, 40).await;
    assert_eq!(first.len(), 1, "due at that moment");
    assert_eq!(take(THEIRS, 39, 90).await, [], "not twice within the lease");
    assert_eq!(take(OURS, 39, 90).await, [], "not even by its holder");
    let second = take(THEIRS, 40, 90).await;
    assert_eq!(
        second,
        [Lease { holder: THEIRS, due_at: t(40), ..first[0].clone() }],
        "CASCADE: again after the lease, by anybody, its tries not counted"
    );
    assert!(!acknowledge(&store, first[0].id, OURS).await, "the lease went to somebody else");
    assert!(!extend(&store, first[0].id, OURS, t(900)).await, "the lease went to somebody else");
    assert!(extend(&store, first[0].id, THEIRS, t(200)).await);
    assert_eq!(take(OURS, 199, 900).await, [], "an extended lease is in force");
    assert!(acknowledge(&store, first[0].id, THEIRS).await);
}

pub(super) async fn what_a_clock_that_was_ahead_put_off_is_due_at_once(store: Arc<dyn Store>) {
    let ahead = LATEST_DUE.after(std::time::Duration::from_secs(1));
    let suspicions = Queue::Suspicions;
    let suspicion = Suspicion { subject: session(1, 0).subject, at: t(0), cause: Cause::WebhookEvent };
    let item = Item::Suspicion { key: SuspicionKey([1; 32]), suspicion, noted_at: ahead };
    assert!(store.enqueue(&item).await.unwrap());
    add_revocation(&store, PendingRevocation { pending_since: ahead, ..revocation(1) }).await;
    for queue in [REVOCATIONS, suspicions] {
        let first = take(&store, queue, OURS, (10, 40), 9).await;
        assert_eq!(first.iter().map(|lease| lease.due_at).collect::<Vec<_>>(), [t(10)], "CLOCK: {queue:?}");
        assert!(reschedule(&store, first[0].id, OURS, LATEST_DUE).await);
        assert_eq!(take(&store, queue, OURS, (20, 50), 9).await, [], "{queue:?}: as late as can be");
        let year = 365 * 24 * 60 * 60;
        assert_eq!(take(&store, queue, OURS, (year, year + 30), 9).await.len(), 1, "{queue:?}");
        let again = take(&store, queue, THEIRS, (30, 60), 9).await;
        assert_eq!(again.len(), 1, "CLOCK: a lease in the future, {queue:?}");
        assert!(!acknowledge(&store, again[0].id, OURS).await, "{queue:?}: it went to another");
        assert!(acknowledge(&store, again[0].id, THEIRS).await, "{queue:?}");
        assert_eq!(take(&store, queue, OURS, (30, 60), 9).await, [], "{queue:?}: what is done stays done");
    }
}

pub(super) async fn the_longest_due_come_first(store: Arc<dyn Store>) {
    for secs in [30, 10, 20, 10] {
        add_revocation(&store, revocation(secs)).await;
    }
    let take = async |now, limit| take(&store, REVOCATIONS, OURS, (now, 1000), limit).await;
    let owed_at =
        |taken: &[Lease<Item>]| taken.iter().map(|lease| content(lease).pending_since).collect::<Vec<_>>();
    assert_eq!(take(50, 0).await, []);
    let first = take(50, 3).await;
    assert_eq!(owed_at(&first), [t(10), t(10), t(20)], "the oldest first, at most the limit");
    assert!(first[0].id < first[1].id, "of equals the one that was written first");
    assert_eq!(owed_at(&take(50, 3).await), [t(30)], "and then the rest");
}

pub(super) async fn only_the_holder_acknowledges(store: Arc<dyn Store>) {
    add_revocation(&store, revocation(1)).await;
    let taken = take(&store, REVOCATIONS, OURS, (1, 31), 1).await;
    let id = taken[0].id;
    assert!(!acknowledge(&store, id, THEIRS).await, "another attempt holds it");
    assert!(!acknowledge(&store, unknown(id), OURS).await, "there is no such revocation");
    assert_eq!(backlog(&store).await.count, 1);
    assert!(acknowledge(&store, id, OURS).await);
    assert!(!acknowledge(&store, id, OURS).await, "acknowledged once");
    assert_eq!(all_owed(&store, t(1000)).await, [], "what is acknowledged does not come back");

    add_revocation(&store, revocation(2)).await;
    let id = take(&store, REVOCATIONS, OURS, (2, 32), 1).await[0].id;
    assert!(acknowledge(&store, id, OURS).await, "a lease that nobody took over is still its holder's");
}

pub(super) async fn only_the_holder_puts_off(store: Arc<dyn Store>) {
    add_revocation(&store, revocation(1)).await;
    let take = async |holder, now| take(&store, REVOCATIONS, holder, (now, now + 30), 1).await;
    let id = take(OURS, 1).await[0].id;
    assert!(!reschedule(&store, id, THEIRS, t(2)).await, "another attempt holds it");
    assert!(!reschedule(&store, unknown(id), OURS, t(2)).await, "there is none");
    assert!(reschedule(&store, id, OURS, t(100)).await);
    assert!(!reschedule(&store, id, OURS, t(2)).await, "what was given back is held by nobody");
    assert!(!acknowledge(&store, id, OURS).await, "what was given back is held by nobody");
    assert_eq!(take(THEIRS, 99).await, [], "not due before the time it was put off to");
    for tries in 1..4 {
        let now = 100 * i64::from(tries);
        let taken = take(THEIRS, now).await;
        assert_eq!((taken[0].id, taken[0].tries), (id, tries), "each postponement is one more try");
        assert_eq!(*content(&taken[0]), revocation(1), "a postponement changes nothing of it");
        assert!(reschedule(&store, id, THEIRS, t(now + 100)).await);
    }
    assert_eq!(take(OURS, 1000).await[0].tries, 4);
    assert_eq!(take(THEIRS, 1030).await.len(), 1);
    assert!(!reschedule(&store, id, OURS, t(9999)).await, "the lease went to somebody else");
}

pub(super) async fn many_takers_share_without_overlap(store: Arc<dyn Store>) {
    const EACH: usize = 5;
    let all = usize::from(RACERS) * EACH;
    for _ in 0..all {
        add_revocation(&store, revocation(1)).await;
    }
    let takers = (0..RACERS).map(|racer| {
        let store = Arc::clone(&store);
        async move { take(&store, REVOCATIONS, AttemptId([racer; 16]), (1, 31), EACH).await }
    });
    let taken = race(takers).await.concat();
    let distinct: BTreeSet<_> = taken.iter().map(|owed| owed.id).collect();
    assert_eq!((taken.len(), distinct.len()), (all, all), "each revocation is leased to one attempt");
}

pub(super) async fn the_backlog_counts_what_is_owed(store: Arc<dyn Store>) {
    assert_eq!(backlog(&store).await, Backlog::default());
    for secs in [20, 10, 30] {
        add_revocation(&store, revocation(secs)).await;
    }
    let owed = |count, secs| Backlog { count, oldest: Some(t(secs)) };
    assert_eq!(backlog(&store).await, owed(3, 10));
    let oldest = take(&store, REVOCATIONS, OURS, (10, 40), 1).await[0].id;
    assert_eq!(backlog(&store).await, owed(3, 10), "what is leased is owed still");
    assert!(reschedule(&store, oldest, OURS, t(500)).await);
    assert_eq!(backlog(&store).await, owed(3, 10), "what is put off is owed since as long as before");
    take(&store, REVOCATIONS, OURS, (500, 600), 3).await;
    assert!(acknowledge(&store, oldest, OURS).await);
    assert_eq!(backlog(&store).await, owed(2, 20));
}

pub(super) async fn what_is_owed_outlives_its_row(store: Arc<dyn Store>) {
    let row = session(1, 0);
    put(&store, [row.clone()]).await;
    let end = row.end(EndReason::SignedOut, t(5)).unwrap();
    assert_eq!(store.apply(&end).await, Ok(Applied::Done));
    assert_eq!(store.purge(Leftover::Tombstones, t(5), 10).await, Ok(1));
    assert_eq!(
        all_owed(&store, t(5)).await,
        Vec::from_iter(end.revocation().cloned()),
        "CASCADE: a purge forgets no debt"
    );
}
