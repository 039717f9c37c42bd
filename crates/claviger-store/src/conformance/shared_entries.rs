//! Checks of shared entries.

use std::sync::Arc;

use claviger_core::Version;

use super::fixtures::*;
use crate::{SharedEntry, Store};

fn entry(version: u64, value: &[u8]) -> SharedEntry {
    SharedEntry { version: Version(version), value: value.to_vec() }
}

pub(super) async fn a_shared_entry_is_kept_by_compare_and_set(store: Arc<dyn Store>) {
    assert_eq!(store.shared_entry("pace").await, Ok(None));
    assert_eq!(
        store.put_shared_entry("pace", &entry(2, b"x")).await,
        Ok(false),
        "MONO: a new name begins at the first version"
    );
    assert_eq!(store.put_shared_entry("pace", &entry(1, b"one")).await, Ok(true));
    assert_eq!(store.put_shared_entry("pace", &entry(1, b"other")).await, Ok(false));
    assert_eq!(store.put_shared_entry("pace", &entry(3, b"three")).await, Ok(false));
    assert_eq!(store.shared_entry("pace").await, Ok(Some(entry(1, b"one"))));
    assert_eq!(store.put_shared_entry("pace", &entry(2, b"")).await, Ok(true));
    assert_eq!(store.shared_entry("pace").await, Ok(Some(entry(2, b""))));
    assert_eq!(store.shared_entry("Pace").await, Ok(None), "another name");
    assert_eq!(store.put_shared_entry("token", &entry(1, &[0xff; 500])).await, Ok(true));
    assert_eq!(store.shared_entry("token").await, Ok(Some(entry(1, &[0xff; 500]))));
}

pub(super) async fn one_of_many_shared_entries_wins(store: Arc<dyn Store>) {
    for version in 1..=u64::from(ROUNDS) {
        let writers = (0..RACERS).map(|n| {
            let store = Arc::clone(&store);
            async move { store.put_shared_entry("pace", &entry(version, &[n])).await.unwrap().then_some(n) }
        });
        let winners: Vec<_> = race(writers).await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "MONO: one writer of a version");
        assert_eq!(store.shared_entry("pace").await, Ok(Some(entry(version, &winners))));
    }
}
