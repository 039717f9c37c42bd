//! Checks of what background work needs: uses, overdue and distrusted rows, tombstones.

use std::sync::Arc;

use claviger_core::{EndReason, Session, Version};

use super::fixtures::*;
use crate::{Applied, Claims, Leftover, Store};

pub(super) async fn a_use_moves_forward_only(store: Arc<dyn Store>) {
    let [a, b] = [session(1, 0), session(2, 0)];
    put(&store, [a.clone(), b.clone()]).await;
    for (seen, expected) in [(10, 10), (5, 10), (10, 10), (11, 11), (-10, 11)] {
        store.record_last_seen(&[(a.id, t(seen))]).await.unwrap();
        assert_eq!(get(&store, a.id).await.last_seen_at, t(expected), "a use at {seen} s");
    }
    store.record_last_seen(&[(b.id, t(30)), (b.id, t(20)), (a.id, t(40))]).await.unwrap();
    assert_eq!(get(&store, b.id).await.last_seen_at, t(30), "of two uses the later counts");
    assert_eq!(get(&store, a.id).await.last_seen_at, t(40), "many rows are touched at once");
    store.record_last_seen(&[]).await.unwrap();
}

pub(super) async fn a_use_changes_nothing_else(store: Arc<dyn Store>) {
    let row = suspect(session(1, 0)).claim(claim(OURS)).unwrap().into_next();
    put(&store, [row.clone()]).await;
    store.record_last_seen(&[(row.id, t(10))]).await.unwrap();
    let expected = Session { last_seen_at: t(10), ..row };
    assert_eq!(get(&store, expected.id).await, expected, "MONO: a use is no change of the version");
}

pub(super) async fn a_use_of_an_ended_row_is_passed_over(store: Arc<dyn Store>) {
    let [tombstone, row] = [ended(session(1, 0)), session(2, 0)];
    put(&store, [tombstone.clone(), row.clone()]).await;
    store
        .record_last_seen(&[(session(99, 0).id, t(10)), (tombstone.id, t(10)), (row.id, t(10))])
        .await
        .unwrap();
    assert_eq!(get(&store, tombstone.id).await, tombstone, "ENDED: a use does not change an ended row");
    assert_eq!(store.load(session(99, 0).id).await, Ok(None), "a use makes no row");
    assert_eq!(get(&store, row.id).await.last_seen_at, t(10), "the other rows are touched all the same");
}

pub(super) async fn a_use_and_a_change_lose_nothing_of_each_other(store: Arc<dyn Store>) {
    let mut row = session(1, 0);
    put(&store, [row.clone()]).await;
    for round in 0..ROUNDS {
        let seen = t(100 + i64::from(round));
        let next = row.clone().claim(claim(OURS)).unwrap();
        let using = {
            let (store, id) = (Arc::clone(&store), row.id);
            async move { store.record_last_seen(&[(id, seen)]).await.unwrap() }
        };
        let changing = {
            let (store, next) = (Arc::clone(&store), next.clone());
            async move { store.apply(&next).await.unwrap() }
        };
        let ((), applied) = {
            let (used, applied) = tokio::join!(tokio::spawn(using), tokio::spawn(changing));
            (used.unwrap(), applied.unwrap())
        };
        assert_eq!(applied, Applied::Done, "MONO: a use makes no change lose");
        row = get(&store, row.id).await;
        assert_eq!(row, Session { last_seen_at: seen, ..next.into_next() }, "IDLE: both are kept");
    }
}

pub(super) async fn overdue_rows_are_the_idle_and_the_old(store: Arc<dyn Store>) {
    let [fresh, idle, idler, old, older, tombstone] =
        [session(1, 100), session(2, 101), session(3, 102), session(4, 11), session(5, 10), session(6, 12)];
    put(&store, [&fresh, &idle, &idler, &old, &older].map(Clone::clone)).await;
    put(&store, [ended(tombstone)]).await;
    let uses =
        [(fresh.id, t(900)), (idle.id, t(200)), (idler.id, t(199)), (old.id, t(901)), (older.id, t(900))];
    store.record_last_seen(&uses).await.unwrap();
    change(&store, suspected(old.clone())).await;

    let overdue = async |idle_since, created_until, limit| {
        store.overdue(t(idle_since), t(created_until), limit).await.unwrap()
    };
    assert_eq!(overdue(198, 9, 10).await, [], "nothing is overdue");
    assert_eq!(overdue(199, 9, 10).await, [idler.id], "last seen at that moment is idle");
    assert_eq!(overdue(198, 10, 10).await, [older.id], "created at that moment is too old");
    let all = [idler.id, idle.id, older.id, old.id];
    assert_eq!(overdue(200, 12, 10).await, all, "the idle, then the old, no tombstone");
    assert_eq!(overdue(200, 12, 3).await, all[..3], "at most the limit");
    assert_eq!(
        overdue(200, 102, 10).await,
        [idler.id, idle.id, older.id, old.id, fresh.id],
        "each comes once"
    );
    assert_eq!(overdue(900, 102, 0).await, []);
}

pub(super) async fn distrusted_rows_come_youngest_first(store: Arc<dyn Store>) {
    let [live, doubted, over, parked, doubted_later] =
        [session(1, 10), session(2, 20), session(3, 30), session(4, 40), session(5, 50)];
    // The order of insertion is not the order of age.
    put(&store, [&doubted_later, &over, &live, &parked, &doubted].map(Clone::clone)).await;
    assert_eq!(store.denylist(10).await, Ok(vec![]));
    change(&store, suspected(doubted.clone())).await;
    change(&store, suspected(doubted_later.clone())).await;
    change(&store, end(over.clone())).await;
    change(&store, parked.park(Version::FIRST).unwrap()).await;

    let all = vec![doubted_later.id, over.id, doubted.id];
    assert_eq!(store.denylist(10).await, Ok(all.clone()), "suspect and ended, the youngest sign-in first");
    assert_eq!(store.denylist(2).await, Ok(all[..2].to_vec()), "at most the limit");
    change(&store, suspect(doubted).prove(Version::FIRST, t(60)).unwrap()).await;
    assert_eq!(store.denylist(10).await, Ok(all[..2].to_vec()), "a proven row is trusted again");
}

pub(super) async fn a_purge_takes_tombstones_only(store: Arc<dyn Store>) {
    let open = session(1, 0);
    let tombstones = [session(2, 12), session(3, 10), session(4, 11), session(5, 20)];
    put(&store, [open.clone()]).await;
    put(&store, tombstones.clone()).await;
    for row in &tombstones {
        change(&store, row.clone().end(EndReason::TooOld, t(500)).unwrap()).await;
    }
    assert_eq!(store.purge(Leftover::Tombstones, t(9), 10).await, Ok(0), "younger tombstones stay");
    assert_eq!(store.purge(Leftover::Tombstones, t(12), 2).await, Ok(2), "no more than asked for");
    assert!(store.load(tombstones[0].id).await.unwrap().is_some(), "the oldest go first");
    assert_eq!(
        store.purge(Leftover::Tombstones, t(12), 10).await,
        Ok(1),
        "created at that moment is old enough"
    );
    for (row, left) in tombstones.iter().zip([false, false, false, true]) {
        assert_eq!(store.load(row.id).await.unwrap().is_some(), left, "{:?}", row.created_at);
    }
    assert_eq!(store.purge(Leftover::Tombstones, t(100_000), 10).await, Ok(1));
    assert_eq!(get(&store, open.id).await, open, "a row that has not ended is never purged");
    assert_eq!(store.devices(&subject("ada"), 10).await.unwrap(), [open]);
}

pub(super) async fn a_store_that_works_says_so(store: Arc<dyn Store>) {
    assert_eq!(store.check().await, Ok(()));
    assert_eq!(store.check().await, Ok(()));
}

pub(super) async fn claims_are_counted_by_whether_their_outcome_is_known(store: Arc<dyn Store>) {
    for n in 1..=4 {
        let row = session(n, 0);
        put(&store, [row.clone()]).await;
        let claimed = change(&store, row.claim(claim(OURS)).unwrap()).await;
        match n {
            1 => drop(change(&store, claimed.lose_answer(OURS, true).unwrap()).await),
            2 => drop(change(&store, claimed.end(EndReason::SignedOut, t(5)).unwrap()).await),
            _ => {}
        }
    }
    let lease_until = claim(OURS).lease_until;
    let before = lease_until.before(std::time::Duration::from_millis(1));
    let counted = async |now| store.session_counts(now).await.unwrap().claims;
    assert_eq!(counted(before).await, Claims { in_flight: 2, ambiguous: 1 });
    assert_eq!(counted(lease_until).await, Claims { in_flight: 0, ambiguous: 3 });
    let set_back = lease_until.before(std::time::Duration::from_secs(3600));
    assert_eq!(counted(set_back).await, Claims { in_flight: 0, ambiguous: 3 }, "CLOCK: no such lease holds");
}
