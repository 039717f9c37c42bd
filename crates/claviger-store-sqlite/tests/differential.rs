//! Compares the embedded store with the store in memory: both must give the same answers to any
//! sequence of calls.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use claviger_store::MemoryStore;
use claviger_store_sqlite::{Options, SqliteStore};
use proptest::{collection::vec, prelude::*};

#[path = "common/calls.rs"]
mod calls;
mod common;

async fn compare(calls: Vec<calls::Call>) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { readers: 1, ..Options::default() };
    let file = SqliteStore::open_with(&directory.path().join("sessions.db"), &options).unwrap();
    calls::compare(&file, &MemoryStore::new(), calls).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_answers_as_the_store_in_memory(calls in vec(calls::call(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(compare(calls))?;
    }
}
