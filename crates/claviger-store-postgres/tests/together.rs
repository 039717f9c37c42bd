//! Claims and new pairs of several sessions in one statement: a failure of one does not affect the
//! others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use std::{sync::Arc, time::Duration};

use claviger_core::{AttemptId, Change, Claim, Fingerprint, SealedPair, Session, SessionId};
use claviger_store::{Applied, Store, StoreError};
use claviger_store_postgres::{Options, PostgresStore};
use common::{
    ROOMY,
    server::{Server, eventually, until_waiting},
    session, t,
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::Client;

mod common;

type Claimed = JoinHandle<Result<Applied, StoreError>>;

/// A store that runs one statement at a time, its sessions, and a second connection.
struct Scene {
    store: Arc<PostgresStore>,
    rows: Vec<Session>,
    client: Client,
    watcher: Client,
    _server: Server,
}

impl Scene {
    async fn of(rows: u32) -> Self {
        Self::with(rows, Options { writers: 1, ..Options::default() }).await
    }

    async fn with(rows: u32, options: Options) -> Self {
        let server = Server::start("");
        let database = server.database().await;
        let store = Arc::new(PostgresStore::open(&server.address(&database), &options).await.unwrap());
        let rows: Vec<_> = (1..=rows).map(session).collect();
        for row in &rows {
            store.insert(row.clone(), ROOMY).await.unwrap();
        }
        let (client, watcher) = (server.client(&database).await, server.client(&database).await);
        Self { store, rows, client, watcher, _server: server }
    }

    /// Locks rows until the transaction ends.
    async fn lock(&self, rows: &[Session]) {
        let ids: Vec<String> = rows.iter().map(|row| format!("'{}'", row.id)).collect();
        let lock = format!("BEGIN; SELECT FROM claviger.pulse WHERE id IN ({}) FOR UPDATE", ids.join(", "));
        self.client.batch_execute(&lock).await.unwrap();
    }

    fn claim(&self, row: &Session) -> Claimed {
        let (store, claimed) = (Arc::clone(&self.store), claimed(row));
        tokio::spawn(async move { store.apply(&claimed).await })
    }

    /// Writes a new pair.
    fn write(&self, next: &Change) -> Claimed {
        let (store, next) = (Arc::clone(&self.store), next.clone());
        tokio::spawn(async move { store.apply(&next).await })
    }

    /// Claims the first row, which is locked, and meanwhile all others.
    async fn claim_all(&self) -> Vec<Claimed> {
        let mut claims = vec![self.claim(&self.rows[0])];
        self.until_waiting(1).await;
        claims.extend(self.rows[1..].iter().map(|row| self.claim(row)));
        claims
    }

    /// Claims a row whose claim may or may not have been written.
    async fn claim_as_it_is(&self, id: SessionId) {
        eventually("a row can be claimed", async || {
            let now = self.store.load(id).await.unwrap().unwrap();
            (self.store.apply(&claimed(&now)).await == Ok(Applied::Done)).then_some(())
        })
        .await;
    }

    async fn until_waiting(&self, count: i64) {
        until_waiting(&self.watcher, count, "application_name = 'claviger'").await;
    }
}

fn claimed(row: &Session) -> Change {
    let claim = Claim {
        attempt: AttemptId([1; 16]),
        taken_at: t(3),
        lease_until: t(33),
        fingerprint: Fingerprint([7; 16]),
        replay: false,
        answer_lost: false,
    };
    row.clone().claim(claim).unwrap()
}

/// Writes the pair that the claim was for.
fn rotated(row: &Session) -> Change {
    let pair = row.pair().unwrap().clone();
    row.clone()
        .rotate(AttemptId([1; 16]), None, t(9), |generation| SealedPair { generation, ..pair.clone() })
        .unwrap()
}

async fn told(claim: Claimed) -> Result<Applied, StoreError> {
    timeout(Duration::from_secs(8), claim).await.expect("nobody waits for another's row").unwrap()
}

#[tokio::test]
async fn a_write_to_a_locked_row_delays_no_other() {
    let scene = Scene::of(20).await;
    scene.lock(&scene.rows[..2]).await;
    let mut claims = scene.claim_all().await;
    let others = claims.split_off(2);
    for claim in others {
        assert_eq!(told(claim).await, Ok(Applied::Done));
    }
    scene.until_waiting(2).await;
    scene.client.batch_execute("COMMIT").await.unwrap();
    for claim in claims {
        assert_eq!(told(claim).await, Ok(Applied::Done));
    }
    for row in &scene.rows {
        assert_eq!(scene.store.load(row.id).await, Ok(Some(claimed(row).into_next())));
    }
}

#[tokio::test]
async fn a_refused_row_does_not_affect_others() {
    for (code, damaged) in [("XX001", true), ("23514", false)] {
        one_is_refused(code, damaged).await;
    }
}

async fn one_is_refused(code: &str, damaged: bool) {
    let scene = Scene::of(20).await;
    let damage = format!(
        "CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'damage' USING ERRCODE = '{code}'; END $$;
         CREATE TRIGGER damage BEFORE UPDATE ON claviger.pulse FOR EACH ROW WHEN (OLD.id = '{}')
            EXECUTE FUNCTION damage()",
        scene.rows[9].id
    );
    scene.client.batch_execute(&damage).await.unwrap();
    scene.lock(&scene.rows[..1]).await;
    let mut claims = scene.claim_all().await;
    let refused = told(claims.remove(9)).await.unwrap_err();
    assert_eq!(matches!(refused, StoreError::Corrupt(_)), damaged, "{refused}");
    scene.client.batch_execute("COMMIT").await.unwrap();
    for claim in claims {
        assert_eq!(told(claim).await, Ok(Applied::Done));
    }
}

#[tokio::test]
async fn two_hanging_statements_delay_no_others() {
    let scene = Scene::of(40).await;
    scene.client.batch_execute("BEGIN; LOCK TABLE claviger.pulse IN SHARE MODE").await.unwrap();
    let mut claims = scene.claim_all().await;
    scene.until_waiting(2).await;
    // Both the single write and the batch behind it wait. A new caller still gets a statement of
    // its own.
    claims.push(scene.claim(&scene.rows[0]));
    scene.until_waiting(3).await;
    scene.client.batch_execute("COMMIT").await.unwrap();
    let last = told(claims.pop().unwrap()).await;
    assert!(matches!(last, Ok(Applied::Conflict(_) | Applied::Done)), "{last:?}");
    for claim in claims.drain(1..) {
        assert_eq!(told(claim).await, Ok(Applied::Done));
    }
}

#[tokio::test]
async fn a_dropped_caller_frees_its_place() {
    let scene = Scene::of(20).await;
    scene.lock(&scene.rows[..1]).await;
    let mut claims = scene.claim_all().await;
    let others = claims.split_off(10);
    for claim in &claims {
        claim.abort();
    }
    for claim in others {
        assert_eq!(told(claim).await, Ok(Applied::Done));
    }
    scene.client.batch_execute("COMMIT").await.unwrap();
    // The outcome of those writes is unknown. Each row can be changed as it is.
    for row in &scene.rows[..10] {
        scene.claim_as_it_is(row.id).await;
    }
}

#[tokio::test]
async fn a_session_is_read_while_all_writes_hang() {
    let scene = Scene::with(20, Options { connections: 4, ..Options::default() }).await;
    scene.client.batch_execute("BEGIN; LOCK TABLE claviger.pulse IN SHARE MODE").await.unwrap();
    let claims: Vec<_> = scene.rows.iter().map(|row| scene.claim(row)).collect();
    let id = scene.rows[0].id;
    let uses = [1, 2, 3, 4].map(|_| {
        let store = Arc::clone(&scene.store);
        tokio::spawn(async move { store.record_last_seen(&[(id, t(50))]).await })
    });
    // As many as there are connections for writes.
    scene.until_waiting(3).await;
    let read = timeout(Duration::from_secs(5), scene.store.load(id)).await;
    assert_eq!(read.expect("a connection is kept for it"), Ok(Some(scene.rows[0].clone())));
    scene.client.batch_execute("COMMIT").await.unwrap();
    for claim in claims {
        assert_eq!(told(claim).await, Ok(Applied::Done));
    }
    for using in uses {
        assert_eq!(using.await.unwrap(), Ok(()));
    }
}

/// A new pair goes into both tables, or is not reported as written.
#[tokio::test]
async fn a_pair_of_an_ended_large_row_is_not_reported_as_written() {
    let scene = Scene::of(20).await;
    let mut rows = Vec::new();
    for row in &scene.rows {
        assert_eq!(scene.store.apply(&claimed(row)).await, Ok(Applied::Done));
        rows.push(claimed(row).into_next());
    }
    let damage = format!(
        "UPDATE claviger.session SET end_reason = 'signed_out', ended_at = 1, generation = NULL, access = NULL, refresh = NULL,
            expiry = NULL, expires_at = NULL WHERE id = '{}'",
        rows[9].id
    );
    scene.client.batch_execute(&damage).await.unwrap();
    scene.lock(&rows[..1]).await;
    let mut writes = vec![scene.write(&rotated(&rows[0]))];
    scene.until_waiting(1).await;
    writes.extend(rows[1..].iter().map(|row| scene.write(&rotated(row))));
    let damaged = told(writes.remove(9)).await;
    assert!(matches!(damaged, Err(StoreError::Corrupt(_))), "{damaged:?}");
    scene.client.batch_execute("COMMIT").await.unwrap();
    for write in writes {
        assert_eq!(told(write).await, Ok(Applied::Done));
    }
}

#[tokio::test]
async fn an_interrupted_statement_reports_an_unknown_outcome_to_every_caller() {
    for stop in ["pg_terminate_backend", "pg_cancel_backend"] {
        assert_unknown_outcome_after(stop).await;
    }
}

async fn assert_unknown_outcome_after(stop: &str) {
    let scene = Scene::of(20).await;
    scene.client.batch_execute("BEGIN; LOCK TABLE claviger.pulse IN SHARE MODE").await.unwrap();
    let claims = scene.claim_all().await;
    scene.until_waiting(2).await;
    let cut = format!(
        "SELECT {stop}(pid) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND application_name = 'claviger' AND datname = current_database()"
    );
    scene.watcher.batch_execute(&cut).await.unwrap();
    for claim in claims {
        let told = told(claim).await;
        assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    }
    scene.client.batch_execute("COMMIT").await.unwrap();
    for row in &scene.rows {
        scene.claim_as_it_is(row.id).await;
    }
}

#[tokio::test]
async fn a_claim_reported_as_unwritten_is_never_written_later() {
    let patience = Duration::from_secs(2);
    let scene = Scene::with(4, Options { writers: 1, connections: 3, patience, ..Options::default() }).await;
    scene.client.batch_execute("BEGIN; LOCK TABLE claviger.pulse IN SHARE MODE").await.unwrap();
    let busy = [1, 2].map(|tag| {
        let (store, id) = (Arc::clone(&scene.store), session(tag).id);
        tokio::spawn(async move { store.record_last_seen(&[(id, t(50))]).await })
    });
    scene.until_waiting(2).await;
    // One waits for a connection, and the others for their turn.
    let mut claims: Vec<_> = scene.rows.iter().map(|row| scene.claim(row)).collect();
    for busy in busy {
        assert!(busy.await.unwrap().is_err());
    }
    until_waiting(&scene.watcher, 1, "query LIKE 'UPDATE claviger.pulse SET version%'").await;
    // Every caller that gives up does so before the table is free.
    let mut last = claims.pop().unwrap();
    let given_up = timeout(patience / 4, &mut last).await;
    scene.client.batch_execute("COMMIT").await.unwrap();
    let mut answers = Vec::new();
    for claim in claims {
        answers.push(told(claim).await);
    }
    answers.push(match given_up {
        Ok(told) => told.unwrap(),
        Err(_) => told(last).await,
    });
    for (row, told) in scene.rows.iter().zip(answers) {
        let stored = scene.store.load(row.id).await.unwrap().unwrap();
        assert_eq!(stored.claimed_by(AttemptId([1; 16])), told == Ok(Applied::Done), "{told:?}");
    }
}

#[tokio::test]
async fn a_missing_connection_delays_no_other_write() {
    let scene = Scene::with(3, Options { writers: 2, ..Options::default() }).await;
    let touch = |row: &Session| {
        let (store, id) = (Arc::clone(&scene.store), row.id);
        tokio::spawn(async move { store.record_last_seen(&[(id, t(50))]).await })
    };
    // All connections wait for a row, and no new one can be made.
    scene.lock(&scene.rows).await;
    let busy: Vec<_> = scene.rows.iter().map(touch).collect();
    scene.until_waiting(3).await;
    let nobody_signs_in = "BEGIN; LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE";
    scene.watcher.batch_execute(nobody_signs_in).await.unwrap();
    let writers = [scene.claim(&scene.rows[0]), scene.claim(&scene.rows[1])];
    let connecting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 1260";
    eventually("both connect", async || {
        (scene.watcher.query_one(connecting, &[]).await.unwrap().get::<_, i64>(0) == 2).then_some(())
    })
    .await;
    scene.client.batch_execute("COMMIT").await.unwrap();
    for busy in busy {
        assert_eq!(busy.await.unwrap(), Ok(()));
    }
    assert_eq!(told(scene.claim(&scene.rows[2])).await, Ok(Applied::Done));
    scene.watcher.batch_execute("COMMIT").await.unwrap();
    for claim in writers {
        assert_eq!(told(claim).await, Ok(Applied::Done));
    }
}
