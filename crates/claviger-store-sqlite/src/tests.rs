//! Tests of the store's internals. Tests that need only its trait are in `tests/`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use claviger_core::{
    ActiveState, AttemptId, Cause, Change, Custody, DeviceLabel, EndReason, Expiry, ProviderName, SealedBlob,
    SealedPair, SecretHash, Session, SessionId, Slot, State, Subject, Suspicion, Timestamp, Version,
};
use claviger_store::{
    Item, ItemId, LeaseTerms, Placement, Queue, Store, StoreError, SuspicionKey, SweepKind,
};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::{
    Options, SqliteStore, apply, archive, error::Fault, logins, pool, queues, sessions, shared_entries,
};

const ROOMY: Placement = Placement { limit: 1000, replaces: None };

fn open() -> (TempDir, PathBuf, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    let store = SqliteStore::open(&path).unwrap();
    (directory, path, store)
}

fn t(secs: i64) -> Timestamp {
    Timestamp::from_millis(secs * 1000)
}

fn session(tag: u8) -> Session {
    let pair = SealedPair {
        generation: Version::FIRST,
        access: SealedBlob(vec![tag; 2000]),
        refresh: None,
        expiry: Expiry::Never,
    };
    Session {
        id: SessionId::new(t(i64::from(tag)), [tag; 10]),
        version: Version::FIRST,
        subject: Subject { provider: ProviderName("twitch".to_owned()), id: "ada".to_owned() },
        display_name: "Ada".to_owned(),
        secret_hash: SecretHash([tag; 32]),
        custody: Custody::Device,
        device: DeviceLabel::new("Firefox on Linux"),
        created_at: t(0),
        last_seen_at: t(0),
        state: State::Live(ActiveState { pair: Some(pair), proven_at: t(0), claim: None }),
    }
}

fn end(session: Session) -> Change {
    session.end(EndReason::SignedOut, t(9)).unwrap()
}

fn ended(session: Session) -> Session {
    end(session).into_next()
}

fn statements() -> impl Iterator<Item = &'static str> {
    let statements = [
        sessions::STATEMENTS,
        apply::STATEMENTS,
        logins::STATEMENTS,
        shared_entries::STATEMENTS,
        archive::STATEMENTS,
    ];
    statements.concat().into_iter().chain(queues::all_statements())
}

fn reader(path: &Path) -> Connection {
    pool::connect(path, &Options::default(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

#[test]
fn every_statement_prepares() {
    let (_directory, path, store) = open();
    let connection = reader(&path);
    for sql in statements() {
        connection.prepare(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }
    drop(store);
}

#[test]
fn no_statement_scans_a_whole_table() {
    let (_directory, path, store) = open();
    let connection = reader(&path);
    // A count reads its whole table, but the backlog of a sweep only looks for one session a slot.
    let may_scan = |sql: &str| sql.contains("count(*)") && !sql.contains("FROM slot AS v");
    for sql in statements().filter(|sql| !may_scan(sql)) {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let bounds = vec![1; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(bounds), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let scans = |step: &&String| {
            // A statement may read an index in order up to its limit, and the result of a subquery.
            let walk = ["pulse_distrusted", "pulse_by_", "pulse_tombstones", "SCAN (subquery"];
            step.starts_with("SCAN") && !walk.iter().any(|allowed| step.contains(allowed))
        };
        assert_eq!(plan.iter().find(scans), None, "{sql}\n{plan:#?}");
    }
    drop(store);
}

#[tokio::test]
async fn a_damaged_item_is_leased_and_delays_no_other() {
    let (_directory, path, store) = open();
    let suspicion = Suspicion { subject: session(1).subject, at: t(0), cause: Cause::WebhookEvent };
    for tag in [1, 2] {
        let key = SuspicionKey([tag; 32]);
        let item = Item::Suspicion { key, suspicion: suspicion.clone(), noted_at: t(i64::from(tag)) };
        assert!(store.enqueue(&item).await.unwrap());
    }
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE suspicion SET cause = 'nonsense' WHERE noted_at = 1000", []).unwrap();
    let take = async |now| {
        let terms = LeaseTerms {
            holder: AttemptId([1; 16]),
            now: t(now),
            until: t(now + 60),
            latest_due: t(1_000_000),
        };
        let taken = store.take(Queue::Suspicions, terms, 1).await.unwrap();
        taken.into_iter().map(|lease| lease.id).collect::<Vec<_>>()
    };
    assert_eq!(take(10).await, [], "the damaged one is taken, and not returned");
    assert_eq!(take(11).await, [ItemId::Suspicion(SuspicionKey([2; 32]))]);
    assert_eq!(take(12).await, [], "both are leased");
}

#[test]
fn the_bundled_sqlite_has_no_wal_reset_bug() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

#[tokio::test]
async fn the_database_itself_refuses_to_revive_an_ended_row() {
    let (_directory, path, store) = open();
    let tombstone = ended(session(1));
    store.insert(tombstone.clone(), ROOMY).await.unwrap();
    let connection = Connection::open(&path).unwrap();
    for sql in [
        "UPDATE pulse SET state = 0, proven_at = 1, version = version + 1",
        "UPDATE pulse SET last_seen_at = 99",
        "UPDATE session SET end_reason = NULL, ended_at = NULL",
        "UPDATE session SET end_reason = 'idle'",
    ] {
        let refused = connection.execute(sql, []).unwrap_err();
        assert_eq!(
            refused.sqlite_error_code(),
            Some(rusqlite::ErrorCode::ConstraintViolation),
            "ENDED: {sql}"
        );
    }
    assert_eq!(store.load(tombstone.id).await, Ok(Some(tombstone)));
}

#[tokio::test]
async fn a_proof_writes_only_the_narrow_table() {
    let (_directory, path, store) = open();
    let row = session(1);
    store.insert(row.clone(), ROOMY).await.unwrap();
    let connection = Connection::open(&path).unwrap();
    let alarm = "CREATE TRIGGER alarm BEFORE UPDATE ON session BEGIN SELECT RAISE(ABORT, 'written'); END";
    connection.execute_batch(alarm).unwrap();
    let change = row.prove(Version::FIRST, t(5)).unwrap();
    store.apply(&change).await.unwrap();
    let proven = change.into_next();
    assert_eq!(store.load(proven.id).await, Ok(Some(proven.clone())));
    store.apply(&end(proven)).await.unwrap_err();
}

#[tokio::test]
async fn a_full_disk_is_reported_and_changes_nothing() {
    let (_directory, _path, store) = open();
    store.insert(session(0), ROOMY).await.unwrap();
    let limit = async |pages: i64| {
        let set = move |connection: &Connection| {
            Ok(connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
        };
        store.write(set).await.unwrap();
    };
    // SQLite raises a limit that is below the file's size to that size.
    limit(1).await;
    let mut stored = 1;
    let refused = loop {
        match store.insert(session(stored), ROOMY).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 200, "the file was not full");
    };
    assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
    assert!(refused.to_string().contains("free space"), "says what to do: {refused}");
    assert_eq!(store.load(session(stored).id).await, Ok(None), "nothing of it was written");
    let first = session(0);
    assert_eq!(store.load(first.id).await, Ok(Some(first.clone())), "what was there can be read");
    store.record_last_seen(&[(first.id, t(50))]).await.expect("what needs no room can be written");

    limit(1_000_000).await;
    store.insert(session(stored), ROOMY).await.expect("the writer goes on when there is room");
}

#[tokio::test]
async fn a_read_only_file_is_reported_and_changes_nothing() {
    let (_directory, _path, store) = open();
    let row = session(1);
    store.insert(row.clone(), ROOMY).await.unwrap();
    store.write(|connection| Ok(connection.pragma_update(None, "query_only", true)?)).await.unwrap();
    for refused in [
        store.insert(session(2), ROOMY).await.unwrap_err(),
        store.check().await.unwrap_err(),
        store.apply(&end(row.clone())).await.unwrap_err(),
        store.spend_login([1; 32], t(1)).await.unwrap_err(),
    ] {
        assert!(matches!(refused, StoreError::ReadOnly(_)), "{refused:?}");
        assert!(refused.to_string().contains("writable"), "says what to do: {refused}");
    }
    assert_eq!(store.load(row.id).await, Ok(Some(row)), "it can be read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_that_fails_or_panics_fails_alone() {
    let (_directory, _path, store) = open();
    let store = Arc::new(store);
    let mut tasks = Vec::new();
    for tag in 0..90 {
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move {
            let write = move |connection: &Connection| {
                sessions::insert(connection, &session(tag), ROOMY)?;
                match tag % 3 {
                    0 => Ok(()),
                    1 => Err(Fault(StoreError::Full("a test".to_owned()))),
                    _ => panic!("a test"),
                }
            };
            (tag, store.write(write).await)
        }));
    }
    for task in tasks {
        let (tag, result) = task.await.unwrap();
        match (tag % 3, &result) {
            (0, Ok(())) | (1, Err(StoreError::Full(_))) | (2, Err(StoreError::Unavailable(_))) => {}
            _ => panic!("{tag}: {result:?}"),
        }
        let stored = store.load(session(tag).id).await.unwrap().is_some();
        assert_eq!(stored, tag % 3 == 0, "a job that failed left nothing, {tag}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failed_commit_fails_every_job_in_it() {
    let (_directory, _path, store) = open();
    let store = Arc::new(store);
    // A dangling reference that is checked only at the commit.
    let trap = "CREATE TABLE trap (id BLOB REFERENCES session (id) DEFERRABLE INITIALLY DEFERRED)";
    store.write(|connection| Ok(connection.execute_batch(trap)?)).await.unwrap();
    // Blocks the writer until the other jobs have arrived.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (active, held) = tokio::sync::oneshot::channel();
    let first = {
        let store = Arc::clone(&store);
        let write = move |_: &Connection| Ok(active.send(()).is_ok() && wait.recv().is_ok());
        tokio::spawn(async move { store.write(write).await })
    };
    held.await.unwrap();
    let (queued, mut count) = tokio::sync::mpsc::unbounded_channel();
    let others: Vec<_> = (0..5)
        .map(|tag| {
            let (store, queued) = (Arc::clone(&store), queued.clone());
            tokio::spawn(async move {
                let write = store.write(move |connection| {
                    sessions::insert(connection, &session(tag), ROOMY)?;
                    if tag == 3 {
                        connection.execute("INSERT INTO trap VALUES (x'00')", [])?;
                    }
                    Ok(())
                });
                let mut write = std::pin::pin!(write);
                let mut told = false;
                std::future::poll_fn(|context| {
                    let polled = write.as_mut().poll(context);
                    if !std::mem::replace(&mut told, true) {
                        queued.send(()).unwrap();
                    }
                    polled
                })
                .await
            })
        })
        .collect();
    for _ in 0..5 {
        count.recv().await.unwrap();
    }
    go.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(true), "it was committed before the others came");
    for (other, tag) in others.into_iter().zip(0..) {
        let result = other.await.unwrap();
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{tag}: {result:?}");
        assert_eq!(store.load(session(tag).id).await, Ok(None), "nothing of it was written");
    }
    store.insert(session(0), ROOMY).await.expect("the writer goes on");
}

/// Rows of the schema before slots, written by its own statements.
#[tokio::test]
async fn a_file_without_slots_keeps_its_sessions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    let rows: Vec<_> = (1..=40).map(session).collect();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(include_str!("../migrations/0001_sessions.sql")).unwrap();
    connection.execute_batch(include_str!("../migrations/0002_claims.sql")).unwrap();
    for row in &rows {
        let body = "INSERT INTO session (id, provider, subject_id, display_name, secret_hash, custody, device, generation, access, expiry)
            VALUES (?1, 'twitch', 'ada', 'Ada', ?2, 'device', 'Firefox on Linux', 1, ?3, 'never')";
        let access = &row.pair().unwrap().access.0;
        connection.execute(body, rusqlite::params![row.id.as_bytes(), row.secret_hash.0, access]).unwrap();
        let pulse = "INSERT INTO pulse (id, version, state, created_at, last_seen_at, proven_at) VALUES (?1, 1, 0, 0, 0, 0)";
        connection.execute(pulse, [row.id.as_bytes()]).unwrap();
    }
    connection.pragma_update(None, "application_id", 0x436c_6176).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);

    let store = SqliteStore::open(&path).unwrap();
    for row in &rows {
        assert_eq!(store.load(row.id).await, Ok(Some(row.clone())));
        let slot = Slot::of(row.id);
        let found = store.in_slot(SweepKind::Validation, slot, None, 10).await.unwrap();
        assert!(found.contains(row), "{} in slot {}", row.id, slot.number());
    }
}

/// The disk is one whose answer a test holds back.
#[tokio::test]
async fn a_disk_that_hangs_is_waited_for_for_limited_time_only() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { patience: Duration::from_millis(200), ..Options::default() };
    let store = SqliteStore::open_with(&directory.path().join("sessions.db"), &options).unwrap();
    let (answer, hangs) = std::sync::mpsc::channel::<()>();
    let hanging = store.write(move |_| Ok(hangs.recv().is_ok()));
    assert!(matches!(hanging.await, Err(StoreError::Unavailable(_))), "its outcome is unknown");
    for failed in [store.check().await, store.spend_login([1; 32], t(1)).await.map(drop)] {
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    }
    // Reads that the disk answers go on.
    assert_eq!(store.load(session(1).id).await, Ok(None));
    let (answer_reads, hanging_reads) = std::sync::mpsc::channel::<()>();
    let read = store.read(move |_| Ok(hanging_reads.recv().is_ok()));
    assert!(matches!(read.await, Err(StoreError::Unavailable(_))));
    answer_reads.send(()).unwrap();
    answer.send(()).unwrap();
    store.check().await.unwrap();
    assert!(!store.writer.hangs(), "it is noticed that the disk answers");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_deleted_or_replaced_underneath_is_noticed() {
    let (directory, path, store) = open();
    assert_eq!(store.trouble().await, None);
    let aside = directory.path().join("aside.db");
    std::fs::rename(&path, &aside).unwrap();
    let gone = store.trouble().await.unwrap();
    assert!(gone.contains("no file is at") && gone.contains("sessions.db"), "{gone}");
    store.check().await.expect("the open file still works");
    std::fs::write(&path, "another").unwrap();
    let replaced = store.trouble().await.unwrap();
    assert!(replaced.contains("another file is at"), "{replaced}");
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(store.trouble().await, None);
}
