//! The PostgreSQL store against the store in memory: both answer every sequence of calls alike.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use claviger_store::MemoryStore;
use claviger_store_postgres::{Options, PostgresStore};
use common::server::Server;
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

#[path = "../../claviger-store-sqlite/tests/common/calls.rs"]
mod calls;
mod common;
#[path = "common/empty.rs"]
mod empty;
#[path = "common/whole.rs"]
mod whole;

#[test]
fn the_store_answers_like_the_store_in_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::start("");
    let (store, client) = runtime.block_on(async {
        let database = server.database().await;
        let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
        let client = server.client(&database).await;
        client.batch_execute(whole::WHOLE).await.unwrap();
        (store, client)
    });
    let settings = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    let compared = TestRunner::new(settings).run(&vec(calls::call(), 1..60), |calls| {
        runtime.block_on(async {
            client.batch_execute(empty::EMPTY).await.unwrap();
            calls::compare(&store, &MemoryStore::new(), calls).await
        })
    });
    if let Err(failure) = compared {
        panic!("{failure}");
    }
}
