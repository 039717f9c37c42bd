//! Steps of the schema on databases that are in use, and what the schema itself refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use std::time::Duration;

use claviger_core::{
    ids::{AttemptId, ProviderName, Subject},
    secret::Fingerprint,
    session::{Claim, EndReason},
};
use claviger_store::{Replaced, Store};
use claviger_store_postgres::{Options, PostgresStore};
use common::{ROOMY, server::Server, session, t};

mod common;

/// The first step as programs did it that knew no other.
const FIRST: &str = concat!(
    "CREATE SCHEMA claviger;
    CREATE TABLE claviger.schema_step (number integer PRIMARY KEY, name text NOT NULL, kind text NOT NULL, needs integer NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now());
    INSERT INTO claviger.schema_step (number, name, kind, needs) VALUES (1, 'sessions', 'expand', 0);",
    include_str!("../migrations/0001_sessions.sql")
);

/// What programs did that knew the first step only: a session with a refresh in flight.
const IN_FLIGHT: &str = "
    INSERT INTO claviger.session (id, provider, subject_id, display_name, secret_hash, custody, device,
        generation, access, refresh, expiry, expires_at)
    VALUES ('00000000-0000-7000-8000-000000000007', 'twitch', '7', 'user 7', decode(repeat('07', 32), 'hex'), 'device',
        'Firefox on Linux', 1, 'access', 'refresh', 'at', 1790000014000);
    INSERT INTO claviger.pulse (id, slot, version, state, created_at, last_seen_at, proven_at)
    VALUES ('00000000-0000-7000-8000-000000000007', 0, 2, 0, 1790000007000, 1790000007000, 1790000007000);
    INSERT INTO claviger.claim (id, attempt, fingerprint, taken_at, lease_until, replay, answer_lost)
    VALUES ('00000000-0000-7000-8000-000000000007', '01010101-0101-0101-0101-010101010101',
        '02020202-0202-0202-0202-020202020202', 1790000008000, 1790000038000, false, false)";

#[tokio::test]
async fn a_refresh_that_was_in_flight_before_the_steps_is_in_flight_after_them() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    client.batch_execute(FIRST).await.unwrap();
    client.batch_execute(IN_FLIGHT).await.unwrap();

    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let user = Subject { provider: ProviderName("twitch".to_owned()), id: "7".to_owned() };
    let [found] = store.devices(&user, 9).await.unwrap().try_into().unwrap();
    let attempt = AttemptId([1; 16]);
    let claim = Claim {
        attempt,
        taken_at: t(8),
        lease_until: t(38),
        fingerprint: Fingerprint([2; 16]),
        replay: false,
        answer_lost: false,
    };
    assert_eq!(found.holding().unwrap().claim, Some(claim));
    let released = found.release(attempt).unwrap();
    assert_eq!(store.replace(&released, None).await, Ok(Replaced::Done));
    assert_eq!(store.load(released.id).await, Ok(Some(released)));
}

#[tokio::test]
async fn ended_is_for_good_whatever_a_statement_says() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let row = session(7);
    store.insert(row.clone(), ROOMY).await.unwrap();
    let (ended, owed) = row.end(EndReason::SignedOut, t(30)).unwrap();
    store.replace(&ended, owed.as_ref()).await.unwrap();
    for statement in [
        "UPDATE claviger.pulse SET state = 0, proven_at = 1, version = version + 1",
        "UPDATE claviger.pulse SET last_seen_at = 1",
        "UPDATE claviger.session SET display_name = 'nobody'",
        "UPDATE claviger.session SET end_reason = NULL, ended_at = NULL",
    ] {
        let refused = client.batch_execute(statement).await.unwrap_err();
        let told = refused.as_db_error().unwrap().message().to_owned();
        assert_eq!(told, "an ended session does not change", "ENDED: {statement}");
    }
    let open = session(8);
    store.insert(open, ROOMY).await.unwrap();
    let leak = "UPDATE claviger.session SET end_reason = 'signed_out', ended_at = 1 WHERE end_reason IS NULL";
    let refused = client.batch_execute(leak).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23514", "a tombstone holds no tokens");
    assert_eq!(store.load(ended.id).await, Ok(Some(ended)));
}

#[tokio::test]
async fn a_step_lets_others_by_while_a_table_is_held_and_is_done_when_it_is_free() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    client.batch_execute(FIRST).await.unwrap();
    client.batch_execute("BEGIN; SELECT count(*) FROM claviger.pulse").await.unwrap();
    let address = server.address(&database);
    let migrating = tokio::spawn(async move { PostgresStore::migrate(&address, &Options::default()).await });
    let other = server.client(&database).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    common::server::eventually("the step waits", async || {
        (other.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    // Who comes after it gets through within the time that it waits.
    let by = other.query_one("SELECT count(*) FROM claviger.pulse", &[]);
    tokio::time::timeout(Duration::from_secs(8), by).await.expect("nobody is kept for long").unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    assert!(!migrating.await.unwrap().unwrap().steps.is_empty());
}
