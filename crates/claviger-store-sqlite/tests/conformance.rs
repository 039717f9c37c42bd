//! The suite that every store runs, on files.
#![allow(clippy::unwrap_used, reason = "a test may panic, and so may what it calls")]

use std::sync::{Arc, Mutex};

use claviger_store::{Harness, archive::Archive, conformance};
use claviger_store_sqlite::SqliteStore;
use tempfile::TempDir;

#[derive(Default)]
struct Files {
    directories: Mutex<Vec<TempDir>>,
}

impl Harness for Files {
    async fn fresh(&self) -> Arc<dyn Archive> {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("sessions.db")).unwrap();
        self.directories.lock().unwrap().push(directory);
        Arc::new(store)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_embedded_store_conforms() {
    conformance(&Files::default()).await;
}
