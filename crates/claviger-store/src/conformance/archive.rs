//! Checks of [`Archive`]: all rows are read, and added as they are.

use std::sync::Arc;

use claviger_core::{Cause, EndReason, Session, Slot, Suspicion, Timestamp, Version};

use super::fixtures::*;
use crate::{
    Item, ItemId, Queue, RevocationId, SharedEntry, Store, StoreError, SuspicionKey, SweepKind,
    archive::{Archive, Found, Key, Record, StoredItem, Table},
};

fn revoked(id: i64) -> Record {
    Record::Item(StoredItem {
        tries: 3,
        due_at: Some(t(50)),
        holder: (id % 2 == 0).then_some(OURS),
        ..StoredItem::new(ItemId::Revocation(RevocationId(id)), Item::Revocation(revocation(id)))
    })
}

fn suspicion(tag: u8) -> Record {
    let suspicion = Suspicion { subject: subject("ada"), at: t(3), cause: Cause::ConnectionCheck };
    let (due_at, holder) = if tag.is_multiple_of(2) { (None, None) } else { (Some(t(60)), Some(THEIRS)) };
    let key = SuspicionKey([tag; 32]);
    let item = Item::Suspicion { key, suspicion, noted_at: t(4) };
    Record::Item(StoredItem { tries: 2, due_at, holder, ..StoredItem::new(ItemId::Suspicion(key), item) })
}

fn slot(sweep: SweepKind, slot: Slot, due_at: Timestamp) -> Record {
    let new = StoredItem::new(ItemId::Slot(sweep, slot), Item::Slot(slot));
    Record::Item(StoredItem { due_at: Some(due_at), lease_until: t(9), holder: Some(OURS), ..new })
}

fn shared_entry(name: &str) -> Record {
    Record::SharedEntry {
        name: name.to_owned(),
        entry: SharedEntry { version: Version(7), value: vec![0, 1, 255] },
    }
}

/// Sessions in every state, and with each kind of claim.
fn sessions() -> Vec<Session> {
    let generation = Version::FIRST;
    let lost =
        session(3, 3).claim(claim(OURS)).unwrap().into_next().lose_answer(OURS, false).unwrap().into_next();
    let mut sessions = vec![
        session(1, 1),
        session(2, 2).claim(claim(THEIRS)).unwrap().into_next(),
        lost,
        session(4, 4).park(generation).unwrap().into_next(),
        suspect(session(5, 5)),
        session(6, 6).end(EndReason::SignedOut, t(900)).unwrap().into_next(),
    ];
    for (tag, session) in (1..).zip(&mut sessions) {
        session.version = Version(tag * 1000);
        session.last_seen_at = session.created_at.after(std::time::Duration::from_millis(tag));
    }
    sessions
}

/// Rows of every table, each in the order of its keys.
fn records() -> Vec<Record> {
    let mut records: Vec<Record> = sessions().into_iter().map(Record::Session).collect();
    records.extend([2, 5, 6].map(revoked));
    records.extend([1, 2, 200].map(|tag| Record::Login { state_hash: [tag; 32], expires_at: t(tag.into()) }));
    records.extend([1, 2, 200].map(suspicion));
    let number = |number| Slot::new(number).unwrap();
    records.extend([
        slot(SweepKind::Validation, number(3), t(70)),
        slot(SweepKind::Validation, number(1023), t(-1)),
        slot(SweepKind::Connections, number(0), t(71)),
    ]);
    records.extend(["Z", "a", "ä"].map(shared_entry));
    records
}

fn of(table: Table, records: &[Record]) -> Vec<Record> {
    records.iter().filter(|record| record.key().table() == table).cloned().collect()
}

async fn read(store: &Arc<dyn Archive>, table: Table, limit: usize) -> Vec<Record> {
    let (mut records, mut after): (Vec<Record>, Option<Key>) = (Vec::new(), None);
    loop {
        let page = store.page(table, after.as_ref(), limit).await.expect("page");
        let was_last = page.len() < limit;
        after = page.last().map(Found::key);
        records.extend(page.into_iter().map(|found| match found {
            Found::Record(record) => record,
            Found::Damaged { key, what } => panic!("{key}: {what}"),
        }));
        if was_last {
            return records;
        }
    }
}

async fn rows(store: &Arc<dyn Archive>, table: Table) -> u64 {
    let count = store.count(table).await.expect("count");
    assert_eq!(count.strays, 0);
    count.rows
}

pub(super) async fn rows_of_every_kind_come_back_page_by_page(store: Arc<dyn Archive>) {
    for table in Table::ALL {
        assert_eq!(read(&store, table, 2).await, [], "a new store holds no {}", table.name());
        assert_eq!(rows(&store, table).await, 0);
    }
    let records = records();
    let mut backwards = records.clone();
    backwards.reverse();
    store.add(backwards).await.expect("add");
    for table in Table::ALL {
        let expected = of(table, &records);
        assert_eq!(rows(&store, table).await, u64::try_from(expected.len()).unwrap());
        for limit in [1, 2, 3, 100] {
            assert_eq!(read(&store, table, limit).await, expected, "{}, {limit} at a time", table.name());
        }
    }
}

pub(super) async fn a_batch_is_added_whole_or_not_at_all(store: Arc<dyn Archive>) {
    for taken in records() {
        let table = taken.key().table();
        let key = taken.key();
        let before = read(&store, table, 100).await;
        if !before.contains(&taken) {
            store.add(vec![taken.clone()]).await.expect("add");
        }
        let others: Vec<Record> =
            records().into_iter().skip_while(|record| record.key() != key).skip(1).collect();
        let mut batch = others;
        batch.push(taken);
        let held = [read(&store, table, 100).await, read(&store, Table::SharedEntries, 100).await];
        let refused = store.add(batch).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{key}: {refused:?}");
        assert_eq!(
            [read(&store, table, 100).await, read(&store, Table::SharedEntries, 100).await],
            held,
            "{key}"
        );
    }
}

pub(super) async fn a_row_that_is_there_is_never_overwritten(store: Arc<dyn Archive>) {
    let (newer, tombstone) = (Session { version: Version(9), ..session(1, 1) }, ended(session(2, 2)));
    store.add([newer.clone(), tombstone.clone()].map(Record::Session).to_vec()).await.expect("add");
    for (older, stored, invariant) in [
        (session(1, 1), newer, "MONO"),
        (Session { version: Version(99), ..session(2, 2) }, tombstone, "ENDED"),
    ] {
        let refused = store.add(vec![Record::Session(older)]).await;
        assert!(refused.is_err(), "{invariant}");
        assert_eq!(get(&(store.clone() as Arc<dyn Store>), stored.id).await, stored, "{invariant}");
    }
}

pub(super) async fn what_was_added_is_served(store: Arc<dyn Archive>) {
    store.add(records()).await.expect("add");
    let serving: Arc<dyn Store> = store.clone();
    for session in sessions() {
        assert_eq!(get(&serving, session.id).await, session);
    }
    let claims = store.session_counts(t(10)).await.expect("census").claims;
    assert_eq!((claims.in_flight, claims.ambiguous), (1, 1), "SPENT: claims went along");
    assert_eq!(store.spend_login([1; 32], t(99)).await, Ok(false), "a state that was used up stays so");
    let due = take(&serving, Queue::Revocations, OURS, (50, 51), 10).await;
    let revocation = |id| (ItemId::Revocation(RevocationId(id)), 3);
    assert_eq!(
        due.iter().map(|lease| (lease.id, lease.tries)).collect::<Vec<_>>(),
        [2, 5, 6].map(revocation)
    );
    let open = take(&serving, Queue::Suspicions, OURS, (60, 61), 10).await;
    let first = ItemId::Suspicion(SuspicionKey([1; 32]));
    assert_eq!(open.iter().map(|lease| lease.id).collect::<Vec<_>>(), [first], "closed ones are not taken");
    let word = Suspicion { subject: subject("ada"), at: t(3), cause: Cause::WebhookEvent };
    let again = Item::Suspicion { key: SuspicionKey([2; 32]), suspicion: word, noted_at: t(80) };
    assert_eq!(store.enqueue(&again).await, Ok(false), "and are not forgotten");
    assert_eq!(store.shared_entry("a").await.expect("entry").expect("a shared entry").version, Version(7));
    let overdue = store.overdue(t(1).after(std::time::Duration::from_millis(1)), t(0), 10).await;
    assert_eq!(overdue, Ok(vec![session(1, 1).id]), "what is looked up by its last use is found");
    assert_eq!(store.denylist(10).await, Ok(vec![session(6, 6).id, session(5, 5).id]));
}

pub(super) async fn what_was_served_is_read(store: Arc<dyn Archive>) {
    let serving: Arc<dyn Store> = store.clone();
    let live = session(1, 1);
    put(&serving, [live.clone()]).await;
    add_revocation(&serving, revocation(1)).await;
    let slot_of = Slot::of(live.id);
    let taken = take(&serving, Queue::Slots(SweepKind::Validation), OURS, (10, 20), 10).await;
    assert_eq!(taken.len(), 1);
    store.spend_login([8; 32], t(30)).await.expect("spend_login");
    store
        .put_shared_entry("pace", &SharedEntry { version: Version::FIRST, value: vec![1] })
        .await
        .expect("put_shared_entry");
    assert_eq!(read(&store, Table::Sessions, 10).await, [Record::Session(live)]);
    assert_eq!(read(&store, Table::Revocations, 10).await.len(), 1);
    assert_eq!(read(&store, Table::Logins, 10).await.len(), 1);
    assert_eq!(read(&store, Table::SharedEntries, 10).await.len(), 1);
    let id = ItemId::Slot(SweepKind::Validation, slot_of);
    let new = StoredItem::new(id, Item::Slot(slot_of));
    let leased = Record::Item(StoredItem { lease_until: t(20), holder: Some(OURS), ..new.clone() });
    assert_eq!(read(&store, Table::Slots, 10).await, [leased]);
    assert!(reschedule(&serving, id, OURS, t(3000)).await);
    let left = Record::Item(StoredItem { due_at: Some(t(3000)), ..new });
    assert_eq!(read(&store, Table::Slots, 10).await, [left], "HOURLY: the next visit's time goes along");
}

pub(super) async fn names_of_revocations_are_not_given_again(store: Arc<dyn Archive>) {
    store.add(vec![revoked(6), revoked(41)]).await.expect("add");
    store.add(vec![revoked(12)]).await.expect("add");
    add_revocation(&(store.clone() as Arc<dyn Store>), revocation(1)).await;
    let ids: Vec<Key> = read(&store, Table::Revocations, 10).await.iter().map(Record::key).collect();
    assert_eq!(ids, [6, 12, 41, 42].map(|id| Key::Item(ItemId::Revocation(RevocationId(id)))));
    assert_eq!(backlog(&(store.clone() as Arc<dyn Store>)).await.count, 4, "CASCADE");
}
