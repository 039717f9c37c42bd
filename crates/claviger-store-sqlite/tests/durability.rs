//! The file survives a reopening and `kill -9`, and serves one process at a time.
//!
//! Two tests run this test program again as the process to be killed. An environment variable names
//! the file to open.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, and so may what it calls")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use claviger_core::{
    ActiveState, Change, ChangeKind, EndReason, SealedBlob, Session, SessionId, SessionSecret, State,
};
use claviger_store::{Queue, Selection, Store, archive::Side};
use claviger_store_sqlite::{BackupError, OpenError, SqliteStore, back_up};
use common::{ROOMY, session, t};
use rusqlite::Connection;
use tempfile::TempDir;

mod common;

const FILE: &str = "CLAVIGER_TEST_FILE";

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    (directory, path)
}

/// Starts this test program as another process that runs only the test `name`.
fn again(name: &str, path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env(FILE, path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn file_from_environment() -> PathBuf {
    PathBuf::from(std::env::var_os(FILE).expect("run by another test"))
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn integrity(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_reopened_file_holds_everything() {
    let (_directory, path) = place();
    let [kept, doomed] = [session(1), session(11)];
    let store = SqliteStore::open(&path).unwrap();
    store.insert(kept.clone(), ROOMY).await.unwrap();
    store.insert(doomed.clone(), ROOMY).await.unwrap();
    store.record_last_seen(&[(kept.id, t(50))]).await.unwrap();
    let selection = Selection { subject: kept.subject.clone(), except: Some(kept.id), created_before: t(60) };
    let gone = store.end_sessions(&selection, EndReason::Administrator, t(60)).await.unwrap();
    assert!(store.spend_login([1; 32], t(600)).await.unwrap());
    drop(store);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "the file and the lock, no log");

    let store = SqliteStore::open(&path).unwrap();
    let kept = Session { last_seen_at: t(50), ..kept };
    assert_eq!(store.load(kept.id).await, Ok(Some(kept)));
    assert_eq!(store.load(doomed.id).await, Ok(Some(gone[0].clone())));
    assert_eq!(store.spend_login([1; 32], t(600)).await, Ok(false));
    assert_eq!(store.backlog(Queue::Revocations).await.unwrap().count, 1);
}

#[tokio::test]
async fn an_accepted_write_is_done_even_if_its_caller_goes_away() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    for tag in 0..50 {
        let mut insert = std::pin::pin!(store.insert(session(tag), ROOMY));
        // Polled once: the writer has the job, and no caller waits for the answer.
        let once = std::future::poll_fn(|context| {
            let _ = insert.as_mut().poll(context);
            std::task::Poll::Ready(())
        });
        once.await;
    }
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    for tag in 0..50 {
        assert!(store.load(session(tag).id).await.unwrap().is_some(), "session {tag}");
    }
}

#[test]
#[ignore = "run by what_was_committed_survives_kill_9"]
fn the_writer_that_is_killed() {
    let store = Arc::new(SqliteStore::open(&file_from_environment()).unwrap());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    runtime.block_on(async {
        let writers = (0..8).map(|lane: u32| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0.. {
                    let row = session(n * 8 + lane);
                    let id = row.id;
                    store.insert(row, ROOMY).await.unwrap();
                    say(&format!("committed {id}"));
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

#[tokio::test]
async fn what_was_committed_survives_kill_9() {
    const ENOUGH: usize = 300;
    let (_directory, path) = place();
    let mut child = again("the_writer_that_is_killed", &path);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    let mut lines = 0;
    while lines < ENOUGH {
        assert_ne!(out.read_line(&mut text).unwrap(), 0, "the child went on until it was killed: {text}");
        lines += 1;
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was killed in the middle of its work");
    // The output before it died, without an incomplete last line.
    out.read_to_string(&mut text).unwrap();
    let whole = &text[..=text.rfind('\n').unwrap()];
    let committed: Vec<SessionId> =
        whole.lines().filter_map(|line| line.split_once("committed ")?.1.parse().ok()).collect();
    assert!(committed.len() >= ENOUGH / 2, "{} ids were read", committed.len());

    let store = SqliteStore::open(&path).expect("STRAND: the file of a dead process opens");
    for id in committed {
        assert!(store.load(id).await.unwrap().is_some(), "STRAND: {id} was committed and is lost");
    }
    drop(store);
    assert_eq!(integrity(&path), "ok");
}

#[test]
#[ignore = "run by a_second_process_is_refused"]
fn the_process_that_holds_the_file() {
    let _store = SqliteStore::open(&file_from_environment()).unwrap();
    say("open");
    let mut forever = String::new();
    std::io::stdin().read_to_string(&mut forever).unwrap();
}

#[test]
fn a_second_process_is_refused() {
    let (_directory, path) = place();
    let mut child = again("the_process_that_holds_the_file", &path);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("open")), "the child holds the file");

    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains(&format!("in use by process {}", child.id())), "{refused}");
    child.kill().unwrap();
    child.wait().unwrap();
    SqliteStore::open(&path).expect("the hold of a killed process is let go");
}

#[test]
fn a_second_store_in_one_process_is_refused() {
    let (_directory, path) = place();
    let first = SqliteStore::open(&path).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(OpenError::InUse { .. })));
    drop(first);
    SqliteStore::open(&path).expect("a store that was dropped holds nothing");
}

#[cfg(unix)]
#[test]
fn a_file_is_held_whatever_link_leads_to_it() {
    let (directory, path) = place();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(path.file_name().unwrap(), &link).unwrap();
    // The file does not exist yet.
    let first = SqliteStore::open(&link).unwrap();
    for name in [&path, &link] {
        assert!(matches!(SqliteStore::open(name), Err(OpenError::InUse { .. })), "{}", name.display());
    }
    drop(first);
    let first = SqliteStore::open(&path).unwrap();
    assert!(matches!(SqliteStore::open(&link), Err(OpenError::InUse { .. })));
    assert!(matches!(SqliteStore::open_archive(&link, Side::Source), Err(OpenError::InUse { .. })));
    drop(first);
    SqliteStore::open(&link).unwrap();
}

#[cfg(unix)]
#[test]
fn a_file_with_several_names_is_refused_under_each() {
    let (directory, path) = place();
    drop(SqliteStore::open(&path).unwrap());
    let link = directory.path().join("link.db");
    fs::hard_link(&path, &link).unwrap();
    for name in [&path, &link] {
        let refused = SqliteStore::open(name).unwrap_err();
        assert!(matches!(refused, OpenError::SeveralNames(_)), "{refused:?}");
        assert!(refused.to_string().contains("hard links"), "says what to do: {refused}");
        let refused = SqliteStore::open_archive(name, Side::Source).unwrap_err();
        assert!(matches!(refused, OpenError::SeveralNames(_)), "{refused:?}");
    }
    fs::remove_file(link).unwrap();
    SqliteStore::open(&path).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    store.insert(session(1), ROOMY).await.unwrap();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn the_file_holds_no_secret_and_nothing_that_was_erased() {
    const PART: usize = 64;
    let (_directory, path) = place();
    let secret = SessionSecret::new(*b"canary: 32 octets of a secret!!!");
    let mut row = session(1);
    row.secret_hash = secret.hash();
    // Longer than a page, so that an end frees whole pages.
    let erased = [0xac; 6000];
    if let State::Live(ActiveState { pair: Some(pair), .. }) = &mut row.state {
        pair.access = SealedBlob(erased.to_vec());
    }
    let store = SqliteStore::open(&path).unwrap();
    store.insert(row.clone(), ROOMY).await.unwrap();
    let wal = fs::read(format!("{}-wal", path.display())).unwrap();
    assert!(contains(&wal, &row.secret_hash.0), "the hash is stored");
    assert!(contains(&wal, &erased[..PART]), "and the sealed token");
    assert!(!contains(&wal, secret.expose()), "SECRET: the secret itself is not");

    let end = row.clone().end(EndReason::SignedOut, t(9)).unwrap();
    // Without the pending revocation, which keeps the token.
    let end = Change::forged(ChangeKind::End { revocation: None }, end.into_next());
    store.apply(&end).await.unwrap();
    drop(store);
    let file = fs::read(&path).unwrap();
    assert!(contains(&file, &row.secret_hash.0));
    assert!(!contains(&file, &erased[..PART]), "SECRET: what an end erases is overwritten");
    assert!(!contains(&file, secret.expose()), "SECRET: the secret is nowhere");
}

/// A backup of a store in use holds one state of it, opens by itself, and overwrites nothing.
#[tokio::test]
async fn a_backup_of_a_store_in_use_holds_what_was_committed() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("claviger.db"), directory.path().join("backup.db"));
    let store = SqliteStore::open(&path).unwrap();
    for n in 0..50 {
        store.insert(session(n), ROOMY).await.unwrap();
    }
    back_up(&path, &copy).unwrap();
    store.insert(session(50), ROOMY).await.unwrap();
    let restored = SqliteStore::open(&copy).unwrap();
    for n in 0..51 {
        let found = restored.load(session(n).id).await.unwrap().is_some();
        assert_eq!(found, n < 50, "session {n}");
    }
    assert!(matches!(back_up(&path, &copy), Err(BackupError::Exists(_))));
    let missing = back_up(&directory.path().join("nowhere.db"), &directory.path().join("other.db"));
    assert!(matches!(missing, Err(BackupError::Source(_))) && !directory.path().join("other.db").exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
