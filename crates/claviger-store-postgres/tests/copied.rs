//! Stores that are copied into a database and back. After any calls the copies hold the same rows
//! and behave alike.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use claviger_store::{
    MemoryStore, Store as _, StoreError,
    archive::{
        Archive, CopyError, CopyOptions, MARKER, MaintenanceLockError, Progress, Record, Report, Side, Step,
        Table, Told, copy, is_unfinished, verify,
    },
};
use claviger_store_postgres::{OpenError, Options, PostgresStore};
use claviger_store_sqlite::SqliteStore;
use common::{ROOMY, server::Server, session};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

#[path = "../../claviger-store-sqlite/tests/common/calls.rs"]
mod calls;
mod common;
#[path = "common/empty.rs"]
mod empty;

async fn copied(from: &dyn Archive, to: &dyn Archive) -> Result<Report, CopyError> {
    copy(from, to, CopyOptions::default(), &mut |_| {}).await
}

/// Applies calls to a file store, copies it into the database and into memory, and applies further
/// calls to both copies.
async fn live_on_elsewhere(
    database: &PostgresStore,
    before: Vec<calls::Call>,
    after: Vec<calls::Call>,
) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let file = SqliteStore::open(&directory.path().join("sessions.db")).unwrap();
    calls::compare(&file, &MemoryStore::new(), before).await?;
    let (memory, back) = (MemoryStore::new(), MemoryStore::new());
    let sums = copied(&file, database).await.unwrap().sums;
    prop_assert_eq!(&copied(&file, &memory).await.unwrap().sums, &sums);
    prop_assert_eq!(&copied(database, &back).await.unwrap().sums, &sums, "and back again");
    prop_assert_eq!(&verify(&back, &memory, CopyOptions::default(), &mut |_| {}).await.unwrap().sums, &sums);
    calls::compare(database, &memory, after).await
}

#[test]
fn a_copy_of_a_file_behaves_like_the_file() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::start("");
    let (store, client) = runtime.block_on(async {
        let database = server.database().await;
        let store = PostgresStore::open_archive(&server.address(&database), &Options::default()).await;
        (store.unwrap(), server.client(&database).await)
    });
    let settings = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let calls = (vec(calls::call(), 1..80), vec(calls::call(), 1..30));
    let lived_on = TestRunner::new(settings).run(&calls, |(before, after)| {
        runtime.block_on(async {
            client.batch_execute(empty::EMPTY).await.unwrap();
            live_on_elsewhere(&store, before, after).await
        })
    });
    if let Err(failure) = lived_on {
        panic!("{failure}");
    }
}

#[tokio::test]
async fn a_database_with_a_connected_gateway_is_neither_source_nor_destination() {
    let server = Server::start("");
    let database = server.database().await;
    let address = server.address(&database);
    let gateway = PostgresStore::open(&address, &Options::default()).await.unwrap();
    let archive = PostgresStore::open_archive(&address, &Options::default()).await.unwrap();
    for (from, to) in
        [(&archive as &dyn Archive, &MemoryStore::new() as &dyn Archive), (&MemoryStore::new(), &archive)]
    {
        let refused = copied(from, to).await.unwrap_err().to_string();
        assert!(refused.contains("stop the gateway first"), "{refused}");
    }
    drop(gateway);
    let free = async || copied(&archive, &MemoryStore::new()).await.ok();
    common::server::eventually("the gateway's connections are closed", free).await;
}

#[tokio::test]
async fn comparing_creates_no_schema() {
    let server = Server::start("");
    let database = server.database().await;
    let address = server.address(&database);
    let refused = PostgresStore::open_to_compare(&address, &Options::default()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Older { found: 0 }), "{refused}");
    let plan = PostgresStore::plan(&address, &Options::default()).await.unwrap();
    assert_eq!(plan.found, 0, "nothing was made");
    drop(PostgresStore::open_archive(&address, &Options::default()).await.unwrap());
    PostgresStore::open_to_compare(&address, &Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_database_is_not_written_while_it_is_copied() {
    let server = Server::start("");
    let database = server.database().await;
    let address = server.address(&database);
    let archive = PostgresStore::open_archive(&address, &Options::default()).await.unwrap();
    let kept = archive.lock_for_maintenance(Side::Source).await.unwrap();
    let other = archive.lock_for_maintenance(Side::Destination).await.map(drop).unwrap_err();
    assert!(matches!(other, MaintenanceLockError::InUse(_)), "it is not copied onto itself: {other}");
    let impatient = Options { patience: std::time::Duration::from_millis(300), ..Options::default() };
    let gateway = PostgresStore::open(&address, &impatient).await.unwrap();
    let refused = gateway.insert(session(1), ROOMY).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(gateway.load(session(1).id).await, Ok(None), "and it may be read");
    drop(kept);
    let written = async || gateway.insert(session(1), ROOMY).await.ok();
    common::server::eventually("the database may be written", written).await;
}

#[tokio::test]
async fn an_unfinished_copy_is_not_served() {
    let server = Server::start("");
    let database = server.database().await;
    let address = server.address(&database);
    let half = MemoryStore::new();
    half.insert(session(1), ROOMY).await.unwrap();
    let archive = PostgresStore::open_archive(&address, &Options::default()).await.unwrap();
    let mut fail = |_| half.fail_with(Some(StoreError::Full("a test".to_owned())));
    let full = copy(&half, &archive, CopyOptions::default(), &mut fail).await;
    assert!(full.is_err(), "it is cut short after the first rows");
    let refused = PostgresStore::open(&address, &Options::default()).await.map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::Unfinished) && refused.to_string().contains("claviger store copy"));
    half.fail_with(None);
    copied(&half, &archive).await.unwrap();
    assert!(!is_unfinished(archive.shared_entry(MARKER).await.unwrap().as_ref()));
    let serves = PostgresStore::open(&address, &Options::default()).await.unwrap();
    assert_eq!(serves.load(session(1).id).await, Ok(Some(session(1))));
}

/// Enough rows that each step reports progress.
fn logins() -> Vec<Record> {
    let logins = (0..1000_u32).map(|tag| {
        let mut state_hash = [0; 32];
        state_hash[..4].copy_from_slice(&tag.to_be_bytes());
        Record::Login { state_hash, expires_at: session(1).created_at }
    });
    logins.collect()
}

/// Runs something at the first report of a step.
fn at_step(step: Step, work: impl AsyncFnOnce() + Send) -> impl FnMut(Told) + Send {
    let mut work = Some(work);
    move |told| {
        if matches!(told, Told::Progress(Progress { step: now, .. }) if now == step)
            && let Some(work) = work.take()
        {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_loses_its_locks_fails() {
    const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND mode = 'ExclusiveLock'";
    let server = Server::start("");
    for (side, step) in [
        (Side::Source, Step::Copy),
        (Side::Source, Step::Verify),
        (Side::Destination, Step::Copy),
        (Side::Destination, Step::Verify),
    ] {
        let database = server.database().await;
        let archive =
            PostgresStore::open_archive(&server.address(&database), &Options::default()).await.unwrap();
        let (client, memory) = (server.client(&database).await, MemoryStore::new());
        let (from, to): (&dyn Archive, &dyn Archive) = match side {
            Side::Source => (&archive, &memory),
            Side::Destination => (&memory, &archive),
        };
        from.add(logins()).await.unwrap();
        let end = async || assert_eq!(client.query(END, &[]).await.unwrap().len(), 1);
        let lost = copy(from, to, CopyOptions::default(), &mut at_step(step, end)).await.unwrap_err();
        let CopyError::Lock { side: of, error: MaintenanceLockError::Lost(_) } = &lost else {
            panic!("{lost}")
        };
        assert_eq!(*of, side);
        assert!(is_unfinished(to.shared_entry(MARKER).await.unwrap().as_ref()), "nobody serves from it");
        copied(from, to).await.unwrap();
        let end = async || assert_eq!(client.query(END, &[]).await.unwrap().len(), 1);
        let lost = verify(from, to, CopyOptions::default(), &mut at_step(Step::Verify, end)).await;
        assert!(
            matches!(lost, Err(CopyError::Lock { error: MaintenanceLockError::Lost(_), .. })),
            "{lost:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_before_the_mark_is_noticed_after_it() {
    let server = Server::start("");
    let address = server.address(&server.database().await);
    let archive = PostgresStore::open_archive(&address, &Options::default()).await.unwrap();
    let memory = MemoryStore::new();
    for store in [&archive as &dyn Archive, &memory] {
        store.add(logins()).await.unwrap();
    }
    let mut gateway = None;
    let start = async || gateway = Some(PostgresStore::open(&address, &Options::default()).await.unwrap());
    let refused = copy(&memory, &archive, CopyOptions::default(), &mut at_step(Step::Check, start)).await;
    let Err(CopyError::Lock { side: Side::Destination, error: MaintenanceLockError::InUse(told) }) = &refused
    else {
        panic!("{refused:?}")
    };
    assert!(told.contains("stop the gateway first"), "{told}");
    assert!(gateway.is_some(), "it was there all the time");
}

/// A view in a table's place, which returns rows only to statements with this time limit.
#[tokio::test]
async fn rows_are_counted_under_the_time_limit_of_a_copy() {
    let server = Server::start("");
    let database = server.database().await;
    let archive = PostgresStore::open_archive(&server.address(&database), &Options::default()).await.unwrap();
    archive.add(logins()).await.unwrap();
    let client = server.client(&database).await;
    let view = "ALTER TABLE claviger.spent_login RENAME TO kept; CREATE VIEW claviger.spent_login AS
        SELECT * FROM claviger.kept WHERE current_setting('statement_timeout') = '7d'";
    client.batch_execute(view).await.unwrap();
    assert_eq!(archive.count(Table::Logins).await.unwrap().rows, 1000);
    assert_eq!(archive.page(Table::Logins, None, 10).await.unwrap().len(), 0, "a page has less");
}
