//! Copies between stores in memory: their results and their refusals.

use std::time::Duration;

use claviger_core::{
    ActiveState, Change, Custody, DeviceLabel, EndReason, ProviderName, Refused, Session, SessionId,
    SessionSecret, State, Subject, Timestamp,
};

use super::{copy::UNDER_WAY, *};
use crate::{MemoryStore, Method, Placement};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const ROWS: u32 = 2500;

fn session(tag: u32) -> Session {
    let mut random = [0; 10];
    random[..4].copy_from_slice(&tag.to_be_bytes());
    Session {
        id: SessionId::new(NOW, random),
        version: claviger_core::Version(3),
        subject: Subject { provider: ProviderName("twitch".to_owned()), id: tag.to_string() },
        display_name: "Ada".to_owned(),
        secret_hash: SessionSecret::new([1; 32]).hash(),
        custody: Custody::None,
        device: DeviceLabel::new("Firefox on Linux"),
        created_at: NOW,
        last_seen_at: NOW,
        state: State::Live(ActiveState { pair: None, proven_at: NOW, claim: None }),
    }
}

async fn filled() -> MemoryStore {
    let store = MemoryStore::new();
    store.add((0..ROWS).map(session).map(Record::Session).collect()).await.unwrap();
    store.spend_login([1; 32], NOW).await.unwrap();
    store
}

async fn copied(from: &MemoryStore, to: &MemoryStore) -> Result<Report, CopyError> {
    copy(from, to, CopyOptions::default(), &mut |_| {}).await
}

async fn change(store: &MemoryStore, tag: u32, change: impl FnOnce(Session) -> Result<Change, Refused>) {
    let stored = store.load(session(tag).id).await.unwrap().unwrap();
    assert_eq!(store.apply(&change(stored).unwrap()).await.unwrap(), crate::Applied::Done);
}

/// Copies two batches and is interrupted at the third.
async fn cut_short(from: &MemoryStore) -> MemoryStore {
    let to = MemoryStore::new();
    let failure = StoreError::Full("a test".to_owned());
    let mut tell = |told| {
        if let Told::Progress(Progress { step: Step::Copy, done: 2000, .. }) = told {
            to.fail_with(Some(failure.clone()));
        }
    };
    let refused = copy(from, &to, CopyOptions::default(), &mut tell).await.unwrap_err();
    assert_eq!(refused, CopyError::Store { side: Side::Destination, error: failure });
    to.fail_with(None);
    to
}

async fn refused(from: &MemoryStore, to: &MemoryStore) -> CopyError {
    let before = to.count(Table::Sessions).await.unwrap();
    let refused = copied(from, to).await.unwrap_err();
    assert_eq!(to.count(Table::Sessions).await.unwrap(), before, "nothing was changed");
    refused
}

#[tokio::test]
async fn a_copy_equals_its_source_and_is_marked_done() {
    let (from, to) = (filled().await, MemoryStore::new());
    let report = copied(&from, &to).await.unwrap();
    assert!(!report.was_done);
    let rows: Vec<u64> = report.sums.iter().map(|sum| sum.rows).collect();
    assert_eq!(rows, [u64::from(ROWS), 0, 1, 0, 0, 0]);
    assert!(!is_unfinished(to.shared_entry(MARKER).await.unwrap().as_ref()));
    let again = copied(&from, &to).await.unwrap();
    assert_eq!((again.was_done, &again.sums), (true, &report.sums));
    let third = MemoryStore::new();
    assert_eq!(copied(&to, &third).await.unwrap().sums, report.sums, "the mark is no part of what is copied");
}

#[tokio::test]
async fn an_interrupted_copy_continues() {
    let from = filled().await;
    let to = cut_short(&from).await;
    assert!(is_unfinished(to.shared_entry(MARKER).await.unwrap().as_ref()), "nobody may serve from it");
    let mut told = Vec::new();
    copy(&from, &to, CopyOptions::default(), &mut |progress| told.push(progress)).await.unwrap();
    let first_copied = told.iter().find_map(|told| match told {
        Told::Progress(Progress { step: Step::Copy, done, .. }) => Some(*done),
        _ => None,
    });
    assert_eq!(first_copied, Some(u64::from(ROWS)), "the last 500 rows were missing");
    assert!(!is_unfinished(to.shared_entry(MARKER).await.unwrap().as_ref()));
}

#[tokio::test]
async fn a_destination_with_other_rows_is_refused_and_not_changed() {
    let from = filled().await;
    let foreign = MemoryStore::new();
    let own = Session { id: SessionId::new(NOW.after(Duration::from_secs(1)), [9; 10]), ..session(1) };
    foreign.insert(own.clone(), Placement { limit: 1, replaces: None }).await.unwrap();
    let error = refused(&from, &foreign).await;
    let how = Differs::Foreign;
    assert_eq!(error, CopyError::Occupied(Difference { key: Key::Session(own.id), how }));
    let holed = MemoryStore::new();
    holed.add([0, 2].map(session).map(Record::Session).to_vec()).await.unwrap();
    let error = refused(&from, &holed).await;
    let how = Differs::Missing;
    assert_eq!(error, CopyError::Occupied(Difference { key: Key::Session(session(1).id), how }));
    let shared_entries = MemoryStore::new();
    shared_entries
        .put_shared_entry(
            "pace",
            &crate::SharedEntry { version: claviger_core::Version::FIRST, value: vec![] },
        )
        .await
        .unwrap();
    let error = refused(&from, &shared_entries).await;
    let how = Differs::Foreign;
    assert_eq!(error, CopyError::Occupied(Difference { key: Key::SharedEntry("pace".to_owned()), how }));
    assert_eq!(shared_entries.shared_entry(MARKER).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_that_served_during_a_copy_is_reported() {
    let from = filled().await;
    let to = cut_short(&from).await;
    change(&to, 7, Session::bump_version).await;
    let key = Key::Session(session(7).id);
    let newer = Difference { key: key.clone(), how: Differs::Newer };
    assert_eq!(refused(&from, &to).await, CopyError::Occupied(newer), "MONO");
    let to = cut_short(&from).await;
    change(&from, 7, |row| row.end(EndReason::SignedOut, NOW)).await;
    let older = Difference { key, how: Differs::Older };
    assert_eq!(refused(&from, &to).await, CopyError::Occupied(older));
}

#[tokio::test]
async fn a_destination_that_served_after_the_copy_is_refused() {
    let (from, to) = (filled().await, MemoryStore::new());
    copied(&from, &to).await.unwrap();
    change(&to, 2400, Session::bump_version).await;
    let newer = Difference { key: Key::Session(session(2400).id), how: Differs::Newer };
    assert_eq!(refused(&from, &to).await, CopyError::Finished(newer.clone()));
    let unequal = verify(&from, &to, CopyOptions::default(), &mut |_| {}).await.unwrap_err();
    assert!(unequal.to_string().contains("among the sessions"), "{unequal}");
    assert_eq!(unequal, CopyError::Unequal { difference: newer });
}

#[tokio::test]
async fn an_unfinished_copy_is_refused_as_a_source() {
    let half = cut_short(&filled().await).await;
    assert_eq!(copied(&half, &MemoryStore::new()).await, Err(CopyError::UnfinishedSource));
    assert_eq!(half.shared_entry(MARKER).await.unwrap().unwrap().value, UNDER_WAY);
}

#[tokio::test]
async fn a_comparison_changes_nothing() {
    let (from, to) = (filled().await, filled().await);
    let writes = |store: &MemoryStore| store.writes();
    let before = (writes(&from), writes(&to));
    let report = verify(&from, &to, CopyOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((writes(&from), writes(&to)), before);
    assert_eq!(report.sums.len(), Table::ALL.len());
    assert!(from.calls(Method::Page) > 0);
}

#[tokio::test]
async fn a_change_in_any_column_changes_the_checksum() {
    let plain = session(1);
    let State::Live(active) = plain.state.clone() else { panic!("a live session") };
    let digest = async |session: Session| {
        let (one, other) = (MemoryStore::new(), MemoryStore::new());
        for store in [&one, &other] {
            store.add(vec![Record::Session(session.clone())]).await.unwrap();
        }
        verify(&one, &other, CopyOptions::default(), &mut |_| {}).await.unwrap().sums[0].digest
    };
    let others = [
        Session { version: plain.version.next(), ..plain.clone() },
        Session { display_name: "Ad".to_owned(), ..plain.clone() },
        Session { custody: Custody::Device, ..plain.clone() },
        Session { last_seen_at: NOW.after(Duration::from_millis(1)), ..plain.clone() },
        Session { state: State::Parked(active), ..plain.clone() },
    ];
    let expected = digest(plain.clone()).await;
    assert_eq!(digest(plain).await, expected);
    assert_eq!(expected.to_string().len(), 64);
    for other in others {
        assert_ne!(digest(other.clone()).await, expected, "{other:?}");
    }
}
