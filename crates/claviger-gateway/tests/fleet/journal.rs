//! A journal of every commit of every row. A trigger in the database writes it in the same
//! transaction, so it matches the store exactly.

use claviger_core::{SessionId, Version};
use tokio_postgres::Row;

use crate::{
    common::history::{Claim, Commit},
    server::Server,
};

/// The trigger runs after the whole statement, which includes the change of the cold row.
/// Transactions may commit in another order than their entries are numbered. Those of one row wait
/// for each other, so their numbers follow the order of their commits.
const BEGIN: &str = "
    CREATE SCHEMA test;
    CREATE TABLE test.journal (
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, written_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
        id uuid NOT NULL, was bigint NOT NULL, version bigint NOT NULL, generation bigint, ended boolean NOT NULL, reason text,
        at bigint NOT NULL, attempt uuid, replay boolean, ambiguous_from bigint
    );
    CREATE FUNCTION test.note() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE now bigint := extract(epoch FROM clock_timestamp()) * 1000;
    BEGIN
        INSERT INTO test.journal (id, was, version, generation, ended, reason, at, attempt, replay, ambiguous_from)
        SELECT NEW.id, OLD.version, NEW.version, s.generation, NEW.state = 3, s.end_reason, now,
            NEW.attempt, NEW.replay, CASE WHEN NEW.answer_lost THEN now ELSE NEW.lease_until END
        FROM claviger.session AS s WHERE s.id = NEW.id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER test_commit AFTER UPDATE OF version ON claviger.pulse FOR EACH ROW EXECUTE FUNCTION test.note();";

const SETTLED: &str =
    "SELECT count(*), pg_snapshot_xmin(pg_current_snapshot())::text, coalesce(max(seq), 0) FROM test.journal
    WHERE written_by < pg_snapshot_xmin(pg_current_snapshot())";
// After a kill the database may reuse the number of a transaction that had not committed. The
// number of an entry that was there is never reused.
const STILL_THERE: &str = "SELECT count(*) FROM test.journal WHERE written_by < $1::text::xid8 AND seq <= $2";
const ALL: &str = "SELECT uuid_send(id), was, version, generation, ended, reason, at, uuid_send(attempt), replay, ambiguous_from
    FROM test.journal ORDER BY seq";

/// Returns the entries whose transactions had ended at some moment. These transactions can add no
/// more.
pub(crate) struct Settled {
    count: i64,
    horizon: String,
    last: i64,
}

/// Starts to record every commit.
pub(crate) async fn begin(server: &Server, database: &str) {
    server.client(database).await.batch_execute(BEGIN).await.unwrap();
}

/// Returns what is permanently there.
pub(crate) async fn settled(server: &Server, database: &str) -> Settled {
    let row = server.client(database).await.query_one(SETTLED, &[]).await.unwrap();
    Settled { count: row.get(0), horizon: row.get(1), last: row.get(2) }
}

/// STRAND: checks that it is still there.
pub(crate) async fn require(server: &Server, database: &str, settled: &Settled) {
    let row = server
        .client(database)
        .await
        .query_one(STILL_THERE, &[&settled.horizon, &settled.last])
        .await
        .unwrap();
    assert_eq!(
        row.get::<_, i64>(0),
        settled.count,
        "STRAND: commits that were there before a kill are gone after it"
    );
}

/// Returns all commits, when nobody writes any more.
pub(crate) async fn commits(server: &Server, database: &str) -> Vec<Commit> {
    server.client(database).await.query(ALL, &[]).await.unwrap().iter().map(commit).collect()
}

fn commit(row: &Row) -> Commit {
    let version = |number: i64| Version(u64::try_from(number).unwrap());
    let octets = |octets: Vec<u8>| -> [u8; 16] { octets.try_into().unwrap() };
    let claim = |attempt| Claim { attempt: octets(attempt), replay: row.get(8), ambiguous_from: row.get(9) };
    Commit {
        id: SessionId::from_bytes(octets(row.get(0))),
        was: version(row.get(1)),
        version: version(row.get(2)),
        generation: row.get::<_, Option<i64>>(3).map(version),
        claim: row.get::<_, Option<Vec<u8>>>(7).map(claim),
        ended: row.get(4),
        reason: row.get(5),
        at: row.get(6),
    }
}
