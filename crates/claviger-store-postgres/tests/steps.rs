//! Migrations of databases that are in use, and what the schema itself refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use std::time::Duration;

use claviger_core::{AttemptId, Claim, EndReason, Fingerprint, ProviderName, Subject};
use claviger_store::{Applied, Store, StoreError};
use claviger_store_postgres::{Address, OpenError, Options, PostgresStore, Way};
use common::{
    ROOMY,
    server::{Server, eventually, until_waiting},
    session, t,
};
use tokio_postgres::{Client, NoTls};

mod common;

/// The first step, as programs applied it that knew no other.
const FIRST: &str = concat!(
    "CREATE SCHEMA claviger;
    CREATE TABLE claviger.schema_step (number integer PRIMARY KEY, name text NOT NULL, kind text NOT NULL, needs integer NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now());
    INSERT INTO claviger.schema_step (number, name, kind, needs) VALUES (1, 'sessions', 'expand', 0);",
    include_str!("../migrations/0001_sessions.sql")
);

/// The second step.
const SECOND: &str = concat!(
    include_str!("../migrations/0002_claims_beside_the_proof.sql"),
    "; INSERT INTO claviger.schema_step (number, name, kind, needs) VALUES (2, 'claims beside the proof', 'expand', 0);"
);

/// What programs of each step wrote into the large table for a session.
const BODY: &str = "
    INSERT INTO claviger.session (id, provider, subject_id, display_name, secret_hash, custody, device,
        generation, access, refresh, expiry, expires_at)
    VALUES ('00000000-0000-7000-8000-000000000007', 'twitch', '7', 'user 7', decode(repeat('07', 32), 'hex'), 'device',
        'Firefox on Linux', 1, 'access', 'refresh', 'at', 1790000014000)";

/// What programs that knew only the first step wrote for a session with a refresh in flight.
const IN_FLIGHT: &str = "
    INSERT INTO claviger.pulse (id, slot, version, state, created_at, last_seen_at, proven_at)
    VALUES ('00000000-0000-7000-8000-000000000007', 0, 2, 0, 1790000007000, 1790000007000, 1790000007000);
    INSERT INTO claviger.claim (id, attempt, fingerprint, taken_at, lease_until, replay, answer_lost)
    VALUES ('00000000-0000-7000-8000-000000000007', '01010101-0101-0101-0101-010101010101',
        '02020202-0202-0202-0202-020202020202', 1790000008000, 1790000038000, false, false)";

/// The same for programs that knew the second step: they wrote no hour of the last use.
const IN_FLIGHT_IN_ITS_ROW: &str = "
    INSERT INTO claviger.pulse (id, slot, version, state, created_at, last_seen_at, proven_at,
        attempt, fingerprint, taken_at, lease_until, replay, answer_lost)
    VALUES ('00000000-0000-7000-8000-000000000007', 0, 2, 0, 1790000007000, 1790000007000, 1790000007000,
        '01010101-0101-0101-0101-010101010101', '02020202-0202-0202-0202-020202020202', 1790000008000, 1790000038000,
        false, false)";

/// A database on a server of its own, after these statements, and a connection to it.
async fn prepared(settings: &str, statements: &[&str]) -> (Server, String, Client) {
    let server = Server::start(settings);
    let database = server.database().await;
    let client = server.client(&database).await;
    for statements in statements {
        client.batch_execute(statements).await.unwrap();
    }
    (server, database, client)
}

fn used_by(user: &str) -> Subject {
    Subject { provider: ProviderName("twitch".to_owned()), id: user.to_owned() }
}

async fn number_of(client: &Client) -> i32 {
    client.query_one("SELECT max(number) FROM claviger.schema_step", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_migration_keeps_refreshes_in_flight() {
    for before in [
        &[FIRST, BODY, IN_FLIGHT][..],
        &[FIRST, SECOND, BODY, IN_FLIGHT_IN_ITS_ROW],
        &[FIRST, BODY, IN_FLIGHT, SECOND],
    ] {
        stays_in_flight(before).await;
    }
}

async fn stays_in_flight(before: &[&str]) {
    let (server, database, _client) = prepared("", before).await;
    let (address, options) = (server.address(&database), Options::default());
    PostgresStore::migrate(&address, &options).await.unwrap();
    let store = PostgresStore::open(&address, &options).await.unwrap();
    let [found] = store.devices(&used_by("7"), 9).await.unwrap().try_into().unwrap();
    let attempt = AttemptId([1; 16]);
    let claim = Claim {
        attempt,
        taken_at: t(8),
        lease_until: t(38),
        fingerprint: Fingerprint([2; 16]),
        replay: false,
        answer_lost: false,
    };
    assert_eq!(found.active().unwrap().claim, Some(claim), "SPENT");
    let release = found.release(attempt).unwrap();
    assert_eq!(store.apply(&release).await, Ok(Applied::Done));
    let released = release.into_next();
    assert_eq!(store.load(released.id).await, Ok(Some(released)));
}

#[tokio::test]
async fn sessions_of_the_previous_release_become_idle_in_time_and_no_sooner() {
    let (server, database, client) = prepared("", &[FIRST, SECOND]).await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    assert_eq!(number_of(&client).await, 4, "a gateway takes the next steps when it starts");
    let used = session(9);
    store.insert(used.clone(), ROOMY).await.unwrap();
    for statement in [BODY, IN_FLIGHT_IN_ITS_ROW] {
        client.batch_execute(statement).await.unwrap();
    }
    let touched = format!("UPDATE claviger.pulse SET last_seen_at = {} WHERE id = $1", t(7200).as_millis());
    client.execute(&touched, &[&uuid::Uuid::from_bytes(*used.id.as_bytes())]).await.unwrap();
    let never = t(-1_000_000);
    let overdue = async |idle_since| store.overdue(idle_since, never, 9).await.unwrap();
    let older = store.devices(&used_by("7"), 9).await.unwrap()[0].id;
    assert_eq!(overdue(t(6)).await, []);
    assert_eq!(overdue(t(7)).await, [older]);
    assert_eq!(overdue(t(7199)).await, [older]);
    assert_eq!(overdue(t(7200)).await, [older, used.id]);
    store.record_last_seen(&[(older, t(9000))]).await.unwrap();
    assert_eq!(overdue(t(7200)).await, [used.id]);
}

#[tokio::test]
async fn skipping_a_release_needs_the_command_and_no_connected_gateway() {
    let (server, database, client) = prepared("", &[FIRST]).await;
    let (address, options) = (server.address(&database), Options::default());
    let plan = PostgresStore::plan(&address, &options).await.unwrap();
    assert_eq!((plan.found, plan.leaves_out()), (1, Some(2)));
    let refused = PostgresStore::open(&address, &options).await.unwrap_err();
    assert!(matches!(refused, OpenError::LeavesOut { found: 1, needs: 2 }), "{refused}");
    assert!(refused.to_string().contains("claviger migrate"), "{refused}");

    let gateway = format!("{} application_name=claviger", server.text(&database));
    let (gateway, connection) = tokio_postgres::connect(&gateway, NoTls).await.unwrap();
    let connected = tokio::spawn(connection);
    let refused = PostgresStore::migrate(&address, &options).await.unwrap_err();
    assert!(matches!(refused, OpenError::GatewaysConnected { connected: 1, .. }), "{refused}");
    assert_eq!(number_of(&client).await, 1, "nothing was changed");
    drop(gateway);
    connected.await.unwrap().unwrap();
    let plan = eventually("the database notices that it left", async || {
        PostgresStore::migrate(&address, &options).await.ok()
    });
    assert_eq!(plan.await.steps.len(), 3);
    assert_eq!(PostgresStore::open(&address, &options).await.unwrap().check().await, Ok(()));
}

#[tokio::test]
async fn a_gateway_that_connects_while_a_contraction_waits_stops_it() {
    let (server, database, client) = prepared("", &[FIRST]).await;
    client.batch_execute("BEGIN; SELECT count(*) FROM claviger.pulse").await.unwrap();
    let address = server.address(&database);
    let migrating = tokio::spawn(async move { PostgresStore::migrate(&address, &Options::default()).await });
    let other = server.client(&database).await;
    until_waiting(&other, 1, "true").await;
    let gateway = format!("{} application_name=claviger", server.text(&database));
    let (gateway, connection) = tokio_postgres::connect(&gateway, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("COMMIT").await.unwrap();
    let refused = migrating.await.unwrap().unwrap_err();
    assert!(matches!(refused, OpenError::GatewaysConnected { connected: 1, .. }), "{refused}");
    let opened = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap_err();
    assert!(matches!(opened, OpenError::LeavesOut { found: 1, needs: 2 }), "{opened}");
    assert_eq!(number_of(&other).await, 1, "no step was taken");
    gateway.batch_execute("SELECT count(*) FROM claviger.claim").await.expect("it has its tables");
}

#[tokio::test]
async fn a_migration_does_not_wait_for_a_long_automatic_vacuum() {
    let (server, database, client) = prepared("autovacuum_naptime = 1s", &[FIRST, SECOND]).await;
    let many = "INSERT INTO claviger.pulse (id, slot, version, state, created_at, last_seen_at, proven_at)
        SELECT md5(n::text)::uuid, 0, 1, 0, 1, 1, 1 FROM generate_series(1, 20000) AS n;
        ALTER TABLE claviger.pulse SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
        UPDATE claviger.pulse SET version = 2";
    client.batch_execute(many).await.unwrap();
    let vacuum =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'autovacuum: VACUUM%claviger.pulse%'";
    eventually("a vacuum is at it", async || {
        (client.query_one(vacuum, &[]).await.unwrap().get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    let (address, options) = (server.address(&database), Options::default());
    let opening = PostgresStore::open(&address, &options);
    tokio::time::timeout(Duration::from_secs(30), opening).await.expect("the database stops it").unwrap();
}

#[tokio::test]
async fn a_role_without_ownership_is_refused_before_anything_waits() {
    let (server, database, client) = prepared("", &[FIRST, SECOND]).await;
    let grants = "CREATE ROLE helper LOGIN; GRANT USAGE ON SCHEMA claviger TO helper;
        GRANT ALL ON ALL TABLES IN SCHEMA claviger TO helper";
    client.batch_execute(grants).await.unwrap();
    client.batch_execute("BEGIN; SELECT count(*) FROM claviger.pulse").await.unwrap();
    let text = server.text(&database).replace("user=claviger", "user=helper");
    let address = Address::parse(&text, &Way::Tls { authorities: None }).unwrap();
    let refused = PostgresStore::open(&address, &Options::default()).await.unwrap_err();
    assert!(matches!(refused, OpenError::NotOwner), "{refused}");
}

#[tokio::test]
async fn no_statement_revives_an_ended_session() {
    let (server, database, client) = prepared("", &[]).await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let row = session(7);
    store.insert(row.clone(), ROOMY).await.unwrap();
    let end = row.end(EndReason::SignedOut, t(30)).unwrap();
    store.apply(&end).await.unwrap();
    let ended = end.into_next();
    for statement in [
        "UPDATE claviger.session SET end_reason = NULL, ended_at = NULL",
        "UPDATE claviger.session SET end_reason = 'idle'",
        "UPDATE claviger.session SET ended_at = 1, display_name = 'nobody'",
    ] {
        let refused = client.batch_execute(statement).await.unwrap_err();
        let told = refused.as_db_error().unwrap().message().to_owned();
        assert_eq!(told, "an ended session does not change", "ENDED: {statement}");
    }
    let open = session(8);
    store.insert(open, ROOMY).await.unwrap();
    for leak in [
        "UPDATE claviger.session SET end_reason = 'signed_out', ended_at = 1 WHERE end_reason IS NULL",
        "UPDATE claviger.session SET end_reason = 'signed_out', ended_at = 1, generation = NULL WHERE end_reason IS NULL",
        "UPDATE claviger.session SET end_reason = 'signed_out', ended_at = 1, generation = NULL, access = NULL
            WHERE end_reason IS NULL",
        "INSERT INTO claviger.session (id, provider, subject_id, display_name, secret_hash, custody, device, refresh, end_reason)
            VALUES (gen_random_uuid(), 'twitch', '7', '', '', 'device', '', 'token', 'signed_out')",
    ] {
        let refused = client.batch_execute(leak).await.unwrap_err();
        let told = refused.as_db_error().unwrap().message().to_owned();
        assert_eq!(told, "an ended session holds no tokens", "{leak}");
    }
    assert_eq!(store.load(ended.id).await, Ok(Some(ended.clone())));
    client.batch_execute("UPDATE claviger.pulse SET state = 0, proven_at = 1 WHERE state = 3").await.unwrap();
    let told = store.load(ended.id).await;
    assert!(
        matches!(told, Err(StoreError::Corrupt(_))),
        "one of its two rows does not open it again: {told:?}"
    );
}

/// A step that held one and waited for the other would block every statement.
#[tokio::test]
async fn each_step_since_the_previous_release_locks_one_table_of_sessions() {
    let (server, database, client) = prepared("", &[FIRST, SECOND]).await;
    let watcher = server.client(&database).await;
    client.batch_execute("BEGIN; LOCK TABLE claviger.session IN ACCESS SHARE MODE").await.unwrap();
    let address = server.address(&database);
    let migrating = tokio::spawn(async move { PostgresStore::migrate(&address, &Options::default()).await });
    eventually("step 3 is taken", async || (number_of(&watcher).await == 3).then_some(())).await;
    let other = server.client(&database).await;
    other.batch_execute("BEGIN; LOCK TABLE claviger.pulse IN ACCESS SHARE MODE").await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    eventually("step 4 is taken", async || (number_of(&watcher).await == 4).then_some(())).await;
    assert_eq!(migrating.await.unwrap().unwrap().steps.len(), 2);
}

#[tokio::test]
async fn a_step_yields_while_its_table_is_locked_and_runs_when_it_is_free() {
    let (server, database, client) = prepared("", &[FIRST, SECOND]).await;
    client.batch_execute("BEGIN; SELECT count(*) FROM claviger.pulse").await.unwrap();
    let address = server.address(&database);
    let migrating = tokio::spawn(async move { PostgresStore::migrate(&address, &Options::default()).await });
    let other = server.client(&database).await;
    until_waiting(&other, 1, "true").await;
    // A later statement gets through within the time that the step waits.
    let by = other.query_one("SELECT count(*) FROM claviger.pulse", &[]);
    tokio::time::timeout(Duration::from_secs(8), by).await.expect("nobody is kept for long").unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    assert!(!migrating.await.unwrap().unwrap().steps.is_empty());
}
