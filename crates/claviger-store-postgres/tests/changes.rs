//! Notifications between instances.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use std::{collections::BTreeSet, time::Duration};

use claviger_core::{AttemptId, Claim, EndReason, Fingerprint, SealedPair, Session, SessionId, Version};
use claviger_store::{FeedEvent, Subscriber as _};
use claviger_store::{Placement, Selection, Store};
use claviger_store_postgres::{Changes, Options, PostgresStore};
use common::{ROOMY, server::Server, session, t};
use tokio::time::timeout;

mod common;

/// Longest wait for an expected notification.
const PATIENCE: Duration = Duration::from_secs(20);

/// The next change, skipping `UpToDate`.
async fn next(changes: &mut Changes) -> FeedEvent {
    loop {
        let change = timeout(PATIENCE, changes.next()).await.expect("a change comes");
        if !matches!(change, FeedEvent::UpToDate { .. }) {
            return change;
        }
    }
}

/// The changes that arrive up to the end of this session, which is ended last.
async fn heard_until(changes: &mut Changes, last: SessionId) -> BTreeSet<SessionId> {
    let mut heard = BTreeSet::new();
    loop {
        match next(changes).await {
            FeedEvent::Session(id) if id == last => return heard,
            FeedEvent::Session(id) => _ = heard.insert(id),
            other => panic!("{other:?}"),
        }
    }
}

async fn two_instances(server: &Server) -> (PostgresStore, PostgresStore) {
    let address = server.address(&server.database().await);
    let options = Options::default();
    let open = || PostgresStore::open(&address, &options);
    (open().await.unwrap(), open().await.unwrap())
}

async fn end(store: &dyn Store, row: Session) -> SessionId {
    let end = row.end(EndReason::SignedOut, t(9000)).unwrap();
    store.apply(&end).await.unwrap();
    end.next().id
}

#[tokio::test]
async fn every_end_on_one_instance_reaches_the_other() {
    let server = Server::start("");
    let (here, there) = two_instances(&server).await;
    let mut changes = there.changes().unwrap();
    assert_eq!(next(&mut changes).await, FeedEvent::Resync, "first of all");

    // The last digit of its number picks the user. 300 ids do not fit into one message.
    let many: Vec<Session> = (0..300).map(|tag| session(10 * tag)).collect();
    for row in &many {
        here.insert(row.clone(), ROOMY).await.unwrap();
    }
    let [alone, last] = [session(1), session(2)];
    for row in [&alone, &last] {
        here.insert(row.clone(), ROOMY).await.unwrap();
    }
    let mut expected: BTreeSet<_> = many.iter().map(|row| row.id).collect();
    let selection = Selection { subject: session(0).subject, except: None, created_before: t(1_000_000) };
    assert_eq!(
        here.end_sessions(&selection, EndReason::SignedOutEverywhere, t(9000)).await.unwrap().len(),
        300
    );
    expected.insert(end(&here, alone).await);
    let last = end(&here, last).await;
    assert_eq!(heard_until(&mut changes, last).await, expected);

    let [old, new] = [session(3), session(13)];
    here.insert(old.clone(), ROOMY).await.unwrap();
    let replaced = Placement { replaces: Some(old.id), ..ROOMY };
    here.insert(new.clone(), replaced).await.unwrap();
    assert_eq!(next(&mut changes).await, FeedEvent::Session(old.id), "a sign-in ends the one before it");
    here.insert(session(23), Placement { limit: 1, ..ROOMY }).await.unwrap();
    assert_eq!(next(&mut changes).await, FeedEvent::Session(new.id), "and what is over the limit");
}

#[tokio::test]
async fn suspicions_new_pairs_and_names_are_notified_and_proofs_and_uses_are_not() {
    let server = Server::start("");
    let (here, there) = two_instances(&server).await;
    let rows: Vec<Session> = (1..=4).map(session).collect();
    for row in &rows {
        here.insert(row.clone(), ROOMY).await.unwrap();
    }
    let mut changes = there.changes().unwrap();
    assert_eq!(next(&mut changes).await, FeedEvent::Resync);

    let [proven, doubted, rotated, last] = [0, 1, 2, 3].map(|which: usize| rows[which].clone());
    let proof = proven.prove(Version::FIRST, t(50)).unwrap();
    let suspect = doubted.clone().suspect(Version::FIRST).unwrap();
    assert_eq!(here.apply_all(&[proof.clone(), suspect]).await, Ok(vec![true, true]));
    let proven = proof.into_next();
    here.record_last_seen(&[(proven.id, t(60))]).await.unwrap();
    here.apply(&proven.prove(Version::FIRST, t(70)).unwrap()).await.unwrap();
    let attempt = AttemptId([1; 16]);
    let claim = Claim {
        attempt,
        taken_at: t(1),
        lease_until: t(31),
        fingerprint: Fingerprint([1; 16]),
        replay: false,
        answer_lost: false,
    };
    let claim = rotated.claim(claim).unwrap();
    here.apply(&claim).await.unwrap();
    let claimed = claim.into_next();
    let pair = claimed.pair().unwrap().clone();
    let rotated =
        claimed.rotate(attempt, None, t(80), |generation| SealedPair { generation, ..pair }).unwrap();
    here.apply(&rotated).await.unwrap();
    let rotated = rotated.into_next();
    assert_eq!(next(&mut changes).await, FeedEvent::Session(doubted.id));
    assert_eq!(next(&mut changes).await, FeedEvent::Session(rotated.id));
    here.apply(&last.clone().rename("Lovelace").unwrap()).await.unwrap();
    assert_eq!(next(&mut changes).await, FeedEvent::Session(last.id));
    let last = here.load(last.id).await.unwrap().unwrap();
    assert_eq!(last.display_name, "Lovelace");
    let last = end(&here, last).await;
    assert_eq!(heard_until(&mut changes, last).await, BTreeSet::new());
}

#[tokio::test]
async fn an_uncommitted_change_is_not_notified() {
    let server = Server::start("");
    let (here, there) = two_instances(&server).await;
    let [row, last] = [session(1), session(2)];
    for row in [&row, &last] {
        here.insert(row.clone(), ROOMY).await.unwrap();
    }
    let mut changes = there.changes().unwrap();
    assert_eq!(next(&mut changes).await, FeedEvent::Resync);
    here.apply(&row.clone().prove(Version::FIRST, t(9)).unwrap()).await.unwrap();
    end(&here, row).await;
    let last = end(&here, last).await;
    assert_eq!(heard_until(&mut changes, last).await, BTreeSet::new(), "MONO: the end came too late");
}

/// By the shared clock. An instance that reads it late finds it out of date.
#[tokio::test]
async fn a_live_connection_keeps_reporting_that_it_is_up_to_date() {
    let server = Server::start("");
    let database = server.database().await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let mut changes = store.changes().unwrap();
    let mut heard = async || timeout(PATIENCE, changes.next()).await.expect("a change comes");
    assert_eq!(heard().await, FeedEvent::Resync);
    let mut before = None;
    for _ in 0..3 {
        let FeedEvent::UpToDate { until } = heard().await else { panic!("nothing changed") };
        let left = until.since(store.clock().now());
        assert!(left > Duration::from_secs(2) && left <= Duration::from_secs(5), "{left:?}");
        assert!(before < Some(until));
        before = Some(until);
    }
}

#[tokio::test]
async fn a_lost_connection_is_reported_and_returns_with_a_resync() {
    let server = Server::start("");
    let database = server.database().await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let mut changes = store.changes().unwrap();
    assert_eq!(next(&mut changes).await, FeedEvent::Resync);
    let cutter = server.client(&database).await;
    for tag in 0..5 {
        let row = session(tag);
        store.insert(row.clone(), ROOMY).await.unwrap();
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE '%claviger_beat%' AND pid <> pg_backend_pid()";
        assert!(!cutter.simple_query(cut).await.unwrap().is_empty());
        end(&store, row.clone()).await;
        let mut heard = vec![next(&mut changes).await];
        while heard.last() != Some(&FeedEvent::Resync) {
            heard.push(next(&mut changes).await);
        }
        assert!(heard.contains(&FeedEvent::Lost), "{heard:?}");
    }
    server.crash();
    assert_eq!(next(&mut changes).await, FeedEvent::Lost);
    assert!(timeout(Duration::from_millis(300), changes.next()).await.is_err(), "told once");
    server.resume();
    assert_eq!(next(&mut changes).await, FeedEvent::Resync);
}
