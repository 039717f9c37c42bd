//! Reads and adds all rows of a store in memory.

use std::ops::Bound;

use async_trait::async_trait;

use super::{MemoryStore, Method, count, inner::Inner};
use crate::{
    ItemId, RevocationId, StoreError,
    archive::{Archive, Count, Found, Key, MaintenanceLock, MaintenanceLockError, Record, Side, Table},
};

#[async_trait]
impl Archive for MemoryStore {
    async fn lock_for_maintenance(&self, _side: Side) -> Result<MaintenanceLock, MaintenanceLockError> {
        Ok(MaintenanceLock::implicit())
    }

    async fn count(&self, table: Table) -> Result<Count, StoreError> {
        let rows = self.enter(Method::Count)?.records(table, None).count();
        Ok(Count { rows: count(rows), strays: 0 })
    }

    async fn page(&self, table: Table, after: Option<&Key>, limit: usize) -> Result<Vec<Found>, StoreError> {
        let inner = self.enter(Method::Page)?;
        Ok(inner.records(table, after).take(limit).map(Found::Record).collect())
    }

    async fn add(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let mut inner = self.enter(Method::Add)?;
        if records.iter().any(|record| inner.holds(&record.key())) {
            return Err(StoreError::Unavailable("a row of this key is there already".to_owned()));
        }
        records.into_iter().for_each(|record| inner.add(record));
        Ok(())
    }
}

impl Inner {
    fn records(&self, table: Table, after: Option<&Key>) -> Box<dyn Iterator<Item = Record> + '_> {
        match table {
            Table::Sessions => {
                let rows = self.rows.by_id.range((beyond(after.and_then(Key::session)), Bound::Unbounded));
                Box::new(rows.map(|(_, session)| Record::Session(session.clone())))
            }
            Table::Logins => {
                let rows = self.logins.range((beyond(after.and_then(Key::login)), Bound::Unbounded));
                Box::new(rows.map(|(hash, at)| Record::Login { state_hash: *hash, expires_at: *at }))
            }
            Table::Revocations | Table::Suspicions | Table::Slots => {
                let items = self.queues.values().flatten().map(|(_, stored)| stored);
                let visited = items.filter(|stored| !stored.is_unvisited_slot());
                let of_table = visited.filter(move |stored| Key::Item(stored.id).table() == table);
                let after = after.and_then(Key::item);
                let rest = of_table.filter(move |stored| after.is_none_or(|after| stored.id > after));
                Box::new(rest.map(|stored| Record::Item(stored.clone())))
            }
            Table::SharedEntries => {
                let after = after.and_then(Key::shared_entry).map(str::to_owned);
                let rows = self.shared_entries.range((beyond(after), Bound::Unbounded));
                Box::new(
                    rows.map(|(name, entry)| Record::SharedEntry {
                        name: name.clone(),
                        entry: entry.clone(),
                    }),
                )
            }
        }
    }

    fn holds(&self, key: &Key) -> bool {
        match key {
            Key::Session(id) => self.rows.by_id.contains_key(id),
            Key::Login(hash) => self.logins.contains_key(hash),
            Key::Item(id) => {
                let stored = self.queues.get(&id.queue()).and_then(|items| items.get(id));
                stored.is_some_and(|stored| !stored.is_unvisited_slot())
            }
            Key::SharedEntry(name) => self.shared_entries.contains_key(name),
        }
    }

    fn add(&mut self, record: Record) {
        match record {
            Record::Session(session) => self.rows.put(session),
            Record::Item(stored) => {
                if let ItemId::Revocation(RevocationId(id)) = stored.id {
                    self.last_revocation = self.last_revocation.max(id);
                }
                self.queues.entry(stored.id.queue()).or_default().insert(stored.id, stored);
            }
            Record::Login { state_hash, expires_at } => {
                self.logins.insert(state_hash, expires_at);
            }
            Record::SharedEntry { name, entry } => {
                self.shared_entries.insert(name, entry);
            }
        }
    }
}

fn beyond<K>(after: Option<K>) -> Bound<K> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}
