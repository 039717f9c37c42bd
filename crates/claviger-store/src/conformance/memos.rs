//! Checks of what is kept under a name.

use std::sync::Arc;

use claviger_core::ids::Version;

use super::fixtures::*;
use crate::{Memo, Store};

fn memo(version: u64, value: &[u8]) -> Memo {
    Memo { version: Version(version), value: value.to_vec() }
}

pub(super) async fn a_memo_is_kept_by_compare_and_set(store: Arc<dyn Store>) {
    assert_eq!(store.memo("pace").await, Ok(None));
    assert_eq!(
        store.put_memo("pace", &memo(2, b"x")).await,
        Ok(false),
        "MONO: a new name begins at the first version"
    );
    assert_eq!(store.put_memo("pace", &memo(1, b"one")).await, Ok(true));
    assert_eq!(store.put_memo("pace", &memo(1, b"other")).await, Ok(false));
    assert_eq!(store.put_memo("pace", &memo(3, b"three")).await, Ok(false));
    assert_eq!(store.memo("pace").await, Ok(Some(memo(1, b"one"))));
    assert_eq!(store.put_memo("pace", &memo(2, b"")).await, Ok(true));
    assert_eq!(store.memo("pace").await, Ok(Some(memo(2, b""))));
    assert_eq!(store.memo("Pace").await, Ok(None), "another name");
    assert_eq!(store.put_memo("token", &memo(1, &[0xff; 500])).await, Ok(true));
    assert_eq!(store.memo("token").await, Ok(Some(memo(1, &[0xff; 500]))));
}

pub(super) async fn one_of_many_memos_wins(store: Arc<dyn Store>) {
    for version in 1..=u64::from(ROUNDS) {
        let writers = (0..RACERS).map(|n| {
            let store = Arc::clone(&store);
            async move { store.put_memo("pace", &memo(version, &[n])).await.unwrap().then_some(n) }
        });
        let winners: Vec<_> = race(writers).await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "MONO: one writer of a version");
        assert_eq!(store.memo("pace").await, Ok(Some(memo(version, &winners))));
    }
}
