//! All that is in memory, row by row.

use std::ops::Bound;

use async_trait::async_trait;
use claviger_core::sweep::Slot;

use super::{Debt, Doubt, MemoryStore, Method, Place, Shelf, count};
use crate::{
    Owed, StoreError, Suspected, Wheel,
    archive::{Archive, Count, Found, Key, Record, Reservation, ReserveError, Side, Table},
};

#[async_trait]
impl Archive for MemoryStore {
    async fn reserve(&self, _side: Side) -> Result<Reservation, ReserveError> {
        Ok(Reservation::inherent())
    }

    async fn count(&self, table: Table) -> Result<Count, StoreError> {
        let rows = self.enter(Method::Count)?.records(table, None).count();
        Ok(Count { rows: count(rows), strays: 0 })
    }

    async fn page(&self, table: Table, after: Option<&Key>, limit: usize) -> Result<Vec<Found>, StoreError> {
        let shelf = self.enter(Method::Page)?;
        Ok(shelf.records(table, after).take(limit).map(Found::Record).collect())
    }

    async fn add(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let mut shelf = self.enter(Method::Add)?;
        if records.iter().any(|record| shelf.holds(&record.key())) {
            return Err(StoreError::Unavailable("a row of this key is there already".to_owned()));
        }
        records.into_iter().for_each(|record| shelf.add(record));
        Ok(())
    }
}

impl Shelf {
    fn records(&self, table: Table, after: Option<&Key>) -> Box<dyn Iterator<Item = Record> + '_> {
        match table {
            Table::Sessions => {
                let rows = self.rows.by_id.range((beyond(after.and_then(Key::session)), Bound::Unbounded));
                Box::new(rows.map(|(_, session)| Record::Session(session.clone())))
            }
            Table::Owed => {
                let rows = self.owed.range((beyond(after.and_then(Key::owed)), Bound::Unbounded));
                Box::new(rows.map(|(id, debt)| Record::Owed {
                    owed: Owed { id: *id, revocation: debt.revocation.clone(), tries: debt.tries },
                    due_at: debt.due_at,
                    holder: debt.holder,
                }))
            }
            Table::Logins => {
                let rows = self.logins.range((beyond(after.and_then(Key::login)), Bound::Unbounded));
                Box::new(rows.map(|(hash, at)| Record::Login { state_hash: *hash, expires_at: *at }))
            }
            Table::Suspicions => {
                let rows = self.suspicions.range((beyond(after.and_then(Key::suspicion)), Bound::Unbounded));
                Box::new(rows.map(|(key, doubt)| Record::Suspicion {
                    suspected: Suspected {
                        key: *key,
                        suspicion: doubt.suspicion.clone(),
                        tries: doubt.tries,
                    },
                    noted_at: doubt.noted_at,
                    due_at: doubt.due_at,
                    holder: doubt.holder,
                }))
            }
            Table::Slots => Box::new(self.visited(after.and_then(Key::slot))),
            Table::Memos => {
                let after = after.and_then(Key::memo).map(str::to_owned);
                let rows = self.memos.range((beyond(after), Bound::Unbounded));
                Box::new(rows.map(|(name, memo)| Record::Memo { name: name.clone(), memo: memo.clone() }))
            }
        }
    }

    /// The slots that were visited, or are leased.
    fn visited(&self, after: Option<(Wheel, Slot)>) -> impl Iterator<Item = Record> + '_ {
        let all = self.slots.iter().flat_map(|(wheel, places)| {
            Slot::all().zip(places).map(move |(slot, place)| (*wheel, slot, *place))
        });
        let visited = all.filter(|(.., place)| *place != Place::default());
        let beyond =
            visited.filter(move |(wheel, slot, _)| after.is_none_or(|after| (*wheel, *slot) > after));
        beyond.map(|(wheel, slot, Place { due_at, lease_until, holder })| Record::Slot {
            wheel,
            slot,
            due_at,
            lease_until,
            holder,
        })
    }

    fn holds(&self, key: &Key) -> bool {
        match key {
            Key::Session(id) => self.rows.by_id.contains_key(id),
            Key::Owed(id) => self.owed.contains_key(id),
            Key::Login(hash) => self.logins.contains_key(hash),
            Key::Suspicion(key) => self.suspicions.contains_key(key),
            Key::Slot(wheel, slot) => {
                let place = self.slots.get(wheel).and_then(|places| places.get(usize::from(slot.number())));
                place.is_some_and(|place| *place != Place::default())
            }
            Key::Memo(name) => self.memos.contains_key(name),
        }
    }

    fn add(&mut self, record: Record) {
        match record {
            Record::Session(session) => self.rows.put(session),
            Record::Owed { owed: Owed { id, revocation, tries }, due_at, holder } => {
                self.last_owed = self.last_owed.max(id.0);
                self.owed.insert(id, Debt { revocation, tries, due_at, holder });
            }
            Record::Login { state_hash, expires_at } => {
                self.logins.insert(state_hash, expires_at);
            }
            Record::Suspicion {
                suspected: Suspected { key, suspicion, tries },
                noted_at,
                due_at,
                holder,
            } => {
                self.suspicions.insert(key, Doubt { suspicion, noted_at, tries, due_at, holder });
            }
            Record::Slot { wheel, slot, due_at, lease_until, holder } => {
                if let Some(place) = self.place(wheel, slot) {
                    *place = Place { due_at, lease_until, holder };
                }
            }
            Record::Memo { name, memo } => {
                self.memos.insert(name, memo);
            }
        }
    }
}

fn beyond<K>(after: Option<K>) -> Bound<K> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}
