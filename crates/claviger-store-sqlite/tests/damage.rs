//! Damaged and wrong files: each causes a clear error when opened or used, and never a panic.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and so may what it calls")]

use std::{
    fs::{self, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use claviger_core::{AttemptId, EndReason, Slot};
use claviger_store::{
    LeaseTerms, Leftover, MemoryStore, Queue, Selection, Store, StoreError, SweepKind,
    archive::{Archive as _, CopyError, CopyOptions, Key, Side, Table, Told, copy},
};
use claviger_store_sqlite::{OpenError, SqliteStore};
use common::{ROOMY, session, t};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

mod common;

const PAGE: u64 = 4096;
const ROWS: u32 = 500;

async fn filled() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    let mut inserts = JoinSet::new();
    for tag in 0..ROWS {
        let store = Arc::clone(&store);
        inserts.spawn(async move { store.insert(session(tag), ROOMY).await.unwrap() });
    }
    inserts.join_all().await;
    (directory, path)
}

fn overwrite(path: &Path, from: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(bytes).unwrap();
}

fn corrupt_when_opened(path: &Path) {
    let error = SqliteStore::open(path).unwrap_err();
    let OpenError::Store { source: corrupt @ StoreError::Corrupt(_), .. } = error else {
        panic!("{error:?}")
    };
    assert!(corrupt.to_string().contains("restore it from a backup"), "says what to do: {corrupt}");
}

/// Calls everything and returns the errors.
async fn use_all(store: &SqliteStore) -> Vec<StoreError> {
    let mut errors = Vec::new();
    for tag in 0..ROWS {
        let row = session(tag);
        errors.extend(store.load(row.id).await.err());
        errors.extend(store.record_last_seen(&[(row.id, t(9000))]).await.err());
        let end = row.end(EndReason::Idle, t(9000)).unwrap();
        if tag % 2 == 0 {
            errors.extend(store.apply(&end).await.err());
        }
    }
    for tag in 0..10 {
        let subject = session(tag).subject;
        errors.extend(store.devices(&subject, 1000).await.err());
        let selection = Selection { subject, except: None, created_before: t(100_000) };
        errors.extend(store.end_sessions(&selection, EndReason::Administrator, t(9000)).await.err());
    }
    errors.extend(store.check().await.err());
    errors.extend(store.overdue(t(9000), t(9000), 1000).await.err());
    errors.extend(store.denylist(1000).await.err());
    let terms =
        LeaseTerms { holder: AttemptId([1; 16]), now: t(9000), until: t(9001), latest_due: t(1_000_000) };
    errors.extend(store.take(Queue::Revocations, terms, 1000).await.err());
    errors.extend(store.backlog(Queue::Revocations).await.err());
    errors.extend(store.purge(Leftover::Tombstones, t(9000), 1000).await.err());
    errors.extend(store.spend_login([1; 32], t(1)).await.err());
    errors.extend(store.purge(Leftover::SpentLogins, t(1), 10).await.err());
    errors.extend(store.insert(session(ROWS), ROOMY).await.err());
    errors
}

#[tokio::test]
async fn a_garbled_header_is_reported_at_opening() {
    let (_directory, path) = filled().await;
    overwrite(&path, 0, &[0xa5; 100]);
    corrupt_when_opened(&path);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_reported_at_opening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    fs::write(&path, "not a database, but quite some text\n".repeat(500)).unwrap();
    corrupt_when_opened(&path);
}

#[tokio::test]
async fn a_truncated_file_is_reported_at_opening() {
    let (_directory, path) = filled().await;
    let bytes = fs::metadata(&path).unwrap().len();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes / 2).unwrap();
    corrupt_when_opened(&path);
}

#[tokio::test]
async fn overwritten_pages_are_reported_at_use() {
    for garbage in [0x00, 0xa5, 0xff] {
        for every in [1, 2, 5] {
            let (_directory, path) = filled().await;
            let pages = fs::metadata(&path).unwrap().len() / PAGE;
            for page in (1..pages).filter(|page| page % every == 0) {
                overwrite(&path, page * PAGE, &[garbage; PAGE as usize]);
            }
            let errors = match SqliteStore::open(&path) {
                Ok(store) => use_all(&store).await,
                Err(OpenError::Store { source, .. }) => vec![source],
                Err(other) => panic!("{other:?}"),
            };
            assert!(!errors.is_empty(), "some of it was noticed");
            assert!(
                errors
                    .iter()
                    .all(|error| matches!(error, StoreError::Corrupt(_) | StoreError::Unavailable(_))),
                "{garbage} every {every}: {errors:?}"
            );
            assert!(errors.iter().any(|error| matches!(error, StoreError::Corrupt(_))), "{errors:?}");
        }
    }
}

#[tokio::test]
async fn a_garbled_log_loses_what_it_held_and_nothing_else() {
    let (_directory, path) = filled().await;
    fs::write(format!("{}-wal", path.display()), [0xa5; 10_000]).unwrap();
    let store = SqliteStore::open(&path).expect("a log that does not check is no log");
    assert!(store.load(session(1).id).await.unwrap().is_some());
    assert_eq!(store.check().await, Ok(()));
}

#[tokio::test]
async fn a_row_that_does_not_decode_is_reported_with_its_column() {
    let (_directory, path) = filled().await;
    let damages = [
        ("UPDATE session SET custody = 'nobody' WHERE id = ?1", "custody"),
        ("UPDATE session SET secret_hash = x'00' WHERE id = ?1", "secret_hash"),
        ("UPDATE session SET access = NULL WHERE id = ?1", "generation"),
        ("UPDATE session SET expiry = 'soon' WHERE id = ?1", "expiry"),
        ("UPDATE session SET claim_replay = 1 WHERE id = ?1", "claim_attempt"),
        ("UPDATE pulse SET proven_at = NULL WHERE id = ?1", "proven_at"),
        ("UPDATE pulse SET state = 7 WHERE id = ?1", "state"),
        ("UPDATE pulse SET version = -1 WHERE id = ?1", "version"),
        ("UPDATE session SET display_name = CAST(x'ff' AS TEXT) WHERE id = ?1", "display_name"),
        ("UPDATE session SET end_reason = 'boredom', ended_at = 1 WHERE id = ?1", "end_reason"),
    ];
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "ignore_check_constraints", true).unwrap();
    for ((sql, _), tag) in damages.iter().zip(1..) {
        assert_eq!(connection.execute(sql, [session(tag).id.as_bytes()]).unwrap(), 1, "{sql}");
    }
    drop(connection);
    let store = SqliteStore::open(&path).unwrap();
    for ((_, column), tag) in damages.iter().zip(1..) {
        let told = StoreError::Corrupt(format!("column {column}"));
        assert_eq!(store.load(session(tag).id).await, Err(told));
    }
    assert!(store.load(session(99).id).await.unwrap().is_some(), "other rows are as good as before");
}

#[test]
fn a_missing_directory_is_reported_and_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing").join("sessions.db");
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::NoDirectory(_)), "{error:?}");
    assert!(error.to_string().contains("create it or correct the path"), "{error}");
    assert!(!directory.path().join("missing").exists());
}

#[test]
fn a_directory_in_place_of_the_file_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    fs::create_dir(&path).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Store { source: StoreError::ReadOnly(_), .. }), "{error:?}");
}

#[tokio::test]
async fn a_newer_schema_is_reported_and_not_changed() {
    let (_directory, path) = filled().await;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 999).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 999, known: 3, .. }), "{error:?}");
    assert!(error.to_string().contains("use the newer version"), "{error}");
}

#[test]
fn a_database_of_another_program_is_reported_and_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    let theirs = Connection::open(&path).unwrap();
    theirs.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    drop(theirs);
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Foreign(_)), "{error:?}");
    let theirs = Connection::open(&path).unwrap();
    let tables: i64 = theirs.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    let mode: String = theirs.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!((tables, mode.as_str()), (1, "delete"), "nothing was changed");
}

/// The sweep reads a slot page by page, and takes a page that is not full as the last.
#[tokio::test]
async fn a_damaged_row_does_not_make_its_page_the_last() {
    let (_directory, path) = filled().await;
    let slot = Slot::of(session(0).id);
    let mut ids: Vec<_> = (0..ROWS).map(|tag| session(tag).id).filter(|id| Slot::of(*id) == slot).collect();
    ids.sort();
    assert!(ids.len() > 4, "{}", ids.len());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "ignore_check_constraints", true).unwrap();
    connection.execute("UPDATE session SET custody = 'nobody' WHERE id = ?1", [ids[1].as_bytes()]).unwrap();
    drop(connection);
    let store = SqliteStore::open(&path).unwrap();
    let (mut after, mut read) = (None, Vec::new());
    loop {
        let page = store.in_slot(SweepKind::Validation, slot, after, 2).await.unwrap();
        read.extend(page.iter().map(|row| row.id));
        if page.len() < 2 {
            break;
        }
        after = page.last().map(|row| row.id);
    }
    ids.remove(1);
    assert_eq!(read, ids);
}

#[tokio::test]
async fn a_damaged_row_ends_a_copy_or_is_skipped() {
    let (_directory, path) = filled().await;
    let [lost, garbled] = [session(7).id, session(300).id];
    let connection = Connection::open(&path).unwrap();
    let changed = |sql: &str, id: claviger_core::SessionId| connection.execute(sql, [id.as_bytes()]).unwrap();
    assert_eq!(changed("DELETE FROM pulse WHERE id = ?1", lost), 1);
    assert_eq!(changed("UPDATE pulse SET version = -1 WHERE id = ?1", garbled), 1);
    let store = SqliteStore::open_archive(&path, Side::Source).unwrap();
    let to = MemoryStore::new();
    let careful = copy(&store, &to, CopyOptions::default(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(&careful, CopyError::Damaged { key: Key::Session(id), .. } if *id == lost), "{careful}");
    assert!(careful.to_string().contains(&lost.to_string()), "{careful}");
    let mut left_behind = Vec::new();
    let mut tell = |told| {
        if let Told::LeftBehind { key, .. } = told {
            left_behind.push(key);
        }
    };
    let report = copy(&store, &to, CopyOptions { skip_damaged: true }, &mut tell).await.unwrap();
    assert_eq!(left_behind, [lost, garbled].map(Key::Session));
    assert_eq!((report.sums[0].rows, report.sums[0].left_behind), (u64::from(ROWS) - 2, 2));
    assert_eq!(to.load(session(8).id).await, store.load(session(8).id).await);
}

#[tokio::test]
async fn a_continued_copy_names_skipped_rows_again() {
    let (_directory, path) = filled().await;
    let garbled = session(7).id;
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE pulse SET version = -1 WHERE id = ?1", [garbled.as_bytes()]).unwrap();
    let store = SqliteStore::open_archive(&path, Side::Source).unwrap();
    store.spend_login([1; 32], t(1)).await.unwrap();
    let (to, skipping) = (MemoryStore::new(), CopyOptions { skip_damaged: true });
    // The sessions are copied when it is interrupted.
    let mut fail = |told| {
        if matches!(told, Told::Progress(_)) {
            to.fail_with(Some(StoreError::Full("a test".to_owned())));
        }
    };
    copy(&store, &to, skipping, &mut fail).await.unwrap_err();
    to.fail_with(None);
    let mut named = Vec::new();
    let mut tell = |told| {
        if let Told::LeftBehind { key, .. } = told {
            named.push(key);
        }
    };
    copy(&store, &to, skipping, &mut tell).await.unwrap();
    assert_eq!(named, [Key::Session(garbled)]);
}

#[tokio::test]
async fn half_a_row_ends_a_copy() {
    let (_directory, path) = filled().await;
    let connection = Connection::open(&path).unwrap();
    connection.execute("DELETE FROM session WHERE id = ?1", [session(7).id.as_bytes()]).unwrap();
    let store = SqliteStore::open_archive(&path, Side::Source).unwrap();
    let (to, mut tell) = (MemoryStore::new(), |_| {});
    let careful = copy(&store, &to, CopyOptions::default(), &mut tell).await;
    assert_eq!(careful, Err(CopyError::Strays { side: Side::Source, table: Table::Sessions, rows: 1 }));
    let report = copy(&store, &to, CopyOptions { skip_damaged: true }, &mut tell).await.unwrap();
    assert_eq!(report.sums[0].rows, u64::from(ROWS) - 1, "nobody could have loaded it");
}

#[tokio::test]
async fn a_missing_source_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mistyped.db");
    let error = SqliteStore::open_archive(&path, Side::Source).unwrap_err();
    assert!(matches!(error, OpenError::NoFile(_)), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_comparison_creates_and_changes_nothing() {
    let (directory, path) = filled().await;
    let error = SqliteStore::open_to_compare(&directory.path().join("mistyped.db")).unwrap_err();
    assert!(matches!(error, OpenError::NoFile(_)), "{error}");
    let old = directory.path().join("old.db");
    fs::write(&old, "").unwrap();
    let error = SqliteStore::open_to_compare(&old).unwrap_err();
    assert!(matches!(error, OpenError::Older { found: 0, .. }), "{error}");
    assert_eq!(fs::read(&old).unwrap(), b"", "no schema was made");
    let store = SqliteStore::open_to_compare(&path).unwrap();
    assert_eq!(store.count(Table::Sessions).await.unwrap().rows, u64::from(ROWS));
    let refused = store.insert(session(9999), ROOMY).await.unwrap_err();
    assert!(matches!(refused, StoreError::ReadOnly(_)), "{refused:?}");
}

#[tokio::test]
async fn an_unfinished_copy_is_not_opened_to_serve() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    let from = MemoryStore::new();
    from.insert(session(1), ROOMY).await.unwrap();
    let to = SqliteStore::open_archive(&path, Side::Destination).unwrap();
    let mut fail = |_| from.fail_with(Some(StoreError::Full("a test".to_owned())));
    assert!(copy(&from, &to, CopyOptions::default(), &mut fail).await.is_err());
    drop(to);
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Unfinished(_)), "{error}");
    from.fail_with(None);
    let to = SqliteStore::open_archive(&path, Side::Destination).unwrap();
    copy(&from, &to, CopyOptions::default(), &mut |_| {}).await.unwrap();
    drop(to);
    let serves = SqliteStore::open(&path).unwrap();
    assert_eq!(serves.load(session(1).id).await, Ok(Some(session(1))));
}
