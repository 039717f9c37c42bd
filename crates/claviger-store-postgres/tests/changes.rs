//! How instances hear of each other's ends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use std::{collections::BTreeSet, time::Duration};

use claviger_core::{
    ids::{AttemptId, SessionId, Version},
    secret::Fingerprint,
    session::{Claim, EndReason, SealedPair, Session},
};
use claviger_store::{Change, News as _};
use claviger_store::{Placement, Selection, Store};
use claviger_store_postgres::{Changes, Options, PostgresStore};
use common::{ROOMY, server::Server, session, t};
use tokio::time::timeout;

mod common;

/// So long is the longest wait for something that is to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The next one, but for the word that all was heard.
async fn next(changes: &mut Changes) -> Change {
    loop {
        let change = timeout(PATIENCE, changes.next()).await.expect("a change comes");
        if !matches!(change, Change::Heard { .. }) {
            return change;
        }
    }
}

/// What is heard up to the end of this session, which is ended last.
async fn heard_until(changes: &mut Changes, last: SessionId) -> BTreeSet<SessionId> {
    let mut heard = BTreeSet::new();
    loop {
        match next(changes).await {
            Change::Session(id) if id == last => return heard,
            Change::Session(id) => _ = heard.insert(id),
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
    let (next, owed) = row.end(EndReason::SignedOut, t(9000)).unwrap();
    store.replace(&next, owed.as_ref()).await.unwrap();
    next.id
}

#[tokio::test]
async fn every_end_on_one_instance_is_heard_on_the_other() {
    let server = Server::start("");
    let (here, there) = two_instances(&server).await;
    let mut changes = there.changes().unwrap();
    assert_eq!(next(&mut changes).await, Change::Resync, "first of all");

    // Of one user, whose number is the last digit: 300 of them do not fit into one message.
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
    assert_eq!(here.end_all(&selection, EndReason::SignedOutEverywhere, t(9000)).await.unwrap().len(), 300);
    expected.insert(end(&here, alone).await);
    let last = end(&here, last).await;
    assert_eq!(heard_until(&mut changes, last).await, expected);

    let [old, new] = [session(3), session(13)];
    here.insert(old.clone(), ROOMY).await.unwrap();
    let replaced = Placement { replaces: Some(old.id), ..ROOMY };
    here.insert(new.clone(), replaced).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Session(old.id), "a sign-in ends the one before it");
    here.insert(session(23), Placement { limit: 1, ..ROOMY }).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Session(new.id), "and what is over the limit");
}

#[tokio::test]
async fn suspicion_and_a_new_pair_are_heard_and_proofs_and_uses_are_not() {
    let server = Server::start("");
    let (here, there) = two_instances(&server).await;
    let rows: Vec<Session> = (1..=4).map(session).collect();
    for row in &rows {
        here.insert(row.clone(), ROOMY).await.unwrap();
    }
    let mut changes = there.changes().unwrap();
    assert_eq!(next(&mut changes).await, Change::Resync);

    let [proven, doubted, rotated, last] = [0, 1, 2, 3].map(|which: usize| rows[which].clone());
    let proven = proven.prove(Version::FIRST, t(50)).unwrap();
    let suspect = doubted.clone().suspect(Version::FIRST).unwrap();
    assert_eq!(here.replace_all(&[proven.clone(), suspect]).await, Ok(vec![true, true]));
    here.touch(&[(proven.id, t(60))]).await.unwrap();
    here.replace(&proven.prove(Version::FIRST, t(70)).unwrap(), None).await.unwrap();
    let attempt = AttemptId([1; 16]);
    let claim = Claim {
        attempt,
        taken_at: t(1),
        lease_until: t(31),
        fingerprint: Fingerprint([1; 16]),
        replay: false,
        answer_lost: false,
    };
    let claimed = rotated.claim(claim).unwrap();
    here.replace(&claimed, None).await.unwrap();
    let pair = claimed.pair().unwrap().clone();
    let rotated =
        claimed.rotate(attempt, None, t(80), |generation| SealedPair { generation, ..pair }).unwrap();
    here.replace(&rotated, None).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Session(doubted.id));
    assert_eq!(next(&mut changes).await, Change::Session(rotated.id));
    let last = end(&here, last).await;
    assert_eq!(heard_until(&mut changes, last).await, BTreeSet::new());
}

#[tokio::test]
async fn a_change_that_was_not_committed_is_not_heard() {
    let server = Server::start("");
    let (here, there) = two_instances(&server).await;
    let [row, last] = [session(1), session(2)];
    for row in [&row, &last] {
        here.insert(row.clone(), ROOMY).await.unwrap();
    }
    let mut changes = there.changes().unwrap();
    assert_eq!(next(&mut changes).await, Change::Resync);
    here.replace(&row.clone().prove(Version::FIRST, t(9)).unwrap(), None).await.unwrap();
    end(&here, row).await;
    let last = end(&here, last).await;
    assert_eq!(heard_until(&mut changes, last).await, BTreeSet::new(), "MONO: the end came too late");
}

/// By the clock of all instances. An instance that does not read it for a while finds it out of date.
#[tokio::test]
async fn a_link_that_lives_says_again_and_again_until_when_all_was_heard() {
    let server = Server::start("");
    let database = server.database().await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let mut changes = store.changes().unwrap();
    let mut heard = async || timeout(PATIENCE, changes.next()).await.expect("a change comes");
    assert_eq!(heard().await, Change::Resync);
    let mut before = None;
    for _ in 0..3 {
        let Change::Heard { until } = heard().await else { panic!("nothing changed") };
        let left = until.since(store.clock().now());
        assert!(left > Duration::from_secs(2) && left <= Duration::from_secs(5), "{left:?}");
        assert!(before < Some(until));
        before = Some(until);
    }
}

#[tokio::test]
async fn a_cut_link_is_told_and_comes_back_with_a_resync() {
    let server = Server::start("");
    let database = server.database().await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let mut changes = store.changes().unwrap();
    assert_eq!(next(&mut changes).await, Change::Resync);
    let cutter = server.client(&database).await;
    for tag in 0..5 {
        let row = session(tag);
        store.insert(row.clone(), ROOMY).await.unwrap();
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE '%claviger_beat%' AND pid <> pg_backend_pid()";
        assert!(!cutter.simple_query(cut).await.unwrap().is_empty());
        end(&store, row.clone()).await;
        let mut heard = vec![next(&mut changes).await];
        while heard.last() != Some(&Change::Resync) {
            heard.push(next(&mut changes).await);
        }
        assert!(heard.contains(&Change::Lost), "{heard:?}");
    }
    server.crash();
    assert_eq!(next(&mut changes).await, Change::Lost);
    assert!(timeout(Duration::from_millis(300), changes.next()).await.is_err(), "told once");
    server.resume();
    assert_eq!(next(&mut changes).await, Change::Resync);
}
