//! The queues of a store in memory.

use std::borrow::Cow;

use claviger_core::{AttemptId, PendingRevocation, Timestamp};

use super::{count, inner::Inner};
use crate::{
    Backlog, Item, ItemId, Lease, LeaseTerms, LeaseUpdate, Queue, RevocationId, archive::StoredItem,
};

impl Inner {
    /// Adds an item. False if it is there already.
    pub(super) fn enqueue(&mut self, item: Item) -> bool {
        let id = match &item {
            Item::Revocation(_) => {
                self.last_revocation = self.last_revocation.saturating_add(1);
                ItemId::Revocation(RevocationId(self.last_revocation))
            }
            Item::Suspicion { key, .. } => ItemId::Suspicion(*key),
            Item::Slot(_) => return false,
        };
        let items = self.queues.entry(id.queue()).or_default();
        let is_new = !items.contains_key(&id);
        if is_new {
            items.insert(id, StoredItem::new(id, item));
        }
        is_new
    }

    pub(super) fn take(&mut self, queue: Queue, terms: LeaseTerms, limit: usize) -> Vec<Lease<Item>> {
        let LeaseTerms { holder, now, until, .. } = terms;
        self.recall(queue, terms);
        let due = |stored: Cow<'_, StoredItem>| {
            let leased = matches!(queue, Queue::Slots(_)) && stored.lease_until > now;
            let due_at = stored.due_at.filter(|due_at| *due_at <= now && !leased)?;
            Some((due_at, stored.id))
        };
        let mut chosen: Vec<_> = self.waiting(queue).filter_map(due).collect();
        chosen.sort_unstable();
        chosen.truncate(limit);
        let items = self.queues.entry(queue).or_default();
        let lease = |(due_at, id)| {
            if let ItemId::Slot(_, slot) = id {
                items.entry(id).or_insert_with(|| StoredItem::new(id, Item::Slot(slot)));
            }
            let stored = items.get_mut(&id)?;
            match id {
                ItemId::Slot(..) => stored.lease_until = until,
                ItemId::Revocation(_) | ItemId::Suspicion(_) => stored.due_at = Some(until),
            }
            stored.holder = Some(holder);
            Some(Lease { id, item: stored.item.clone(), holder, due_at, tries: stored.tries })
        };
        chosen.into_iter().filter_map(lease).collect()
    }

    /// Makes due what a clock that was ahead put off or leased.
    fn recall(&mut self, queue: Queue, terms: LeaseTerms) {
        let leases = matches!(queue, Queue::Slots(_));
        for stored in self.queues.entry(queue).or_default().values_mut() {
            let leased = leases && stored.lease_until > terms.latest_lease();
            if stored.due_at.is_some_and(|due_at| due_at > terms.latest_due || leased) {
                stored.due_at = stored.due_at.min(Some(terms.now));
                (stored.lease_until, stored.holder) = (Timestamp::EPOCH, None);
            }
        }
    }

    pub(super) fn update_lease(&mut self, id: ItemId, holder: AttemptId, update: LeaseUpdate) -> bool {
        let items = self.queues.entry(id.queue()).or_default();
        let held = items.get_mut(&id).filter(|stored| stored.holder == Some(holder));
        let Some(stored) = held else { return false };
        match (id, update) {
            (ItemId::Slot(..), LeaseUpdate::Extend(until)) => stored.lease_until = until,
            (_, LeaseUpdate::Extend(until)) => stored.due_at = Some(until),
            (ItemId::Slot(_, slot), LeaseUpdate::Reschedule(due_at)) => {
                *stored = StoredItem { due_at: Some(due_at), ..StoredItem::new(id, Item::Slot(slot)) };
            }
            (_, LeaseUpdate::Reschedule(due_at)) => {
                stored.tries = stored.tries.saturating_add(1);
                (stored.due_at, stored.holder) = (Some(due_at), None);
            }
            (ItemId::Slot(..), LeaseUpdate::Acknowledge) => return false,
            (ItemId::Suspicion(_), LeaseUpdate::Acknowledge) => {
                (stored.due_at, stored.holder) = (None, None);
            }
            (ItemId::Revocation(_), LeaseUpdate::Acknowledge) => {
                items.remove(&id);
            }
        }
        true
    }

    pub(super) fn backlog(&self, queue: Queue) -> Backlog {
        let waits_since = |stored: Cow<'_, StoredItem>| match queue {
            Queue::Slots(_) => stored.due_at,
            Queue::Revocations | Queue::Suspicions => Some(stored.item.due_from()),
        };
        Backlog {
            count: count(self.waiting(queue).count()),
            oldest: self.waiting(queue).filter_map(waits_since).min(),
        }
    }

    pub(super) fn revocations(&self) -> impl Iterator<Item = &PendingRevocation> {
        self.queues.get(&Queue::Revocations).into_iter().flatten().filter_map(|(_, stored)| {
            if let Item::Revocation(revocation) = &stored.item { Some(revocation) } else { None }
        })
    }

    /// The items that are not done. Of a sweep, the slots that hold a session that it is for.
    fn waiting(&self, queue: Queue) -> Box<dyn Iterator<Item = Cow<'_, StoredItem>> + '_> {
        let items = self.queues.get(&queue);
        match queue {
            Queue::Slots(sweep) => Box::new(self.rows.slots_in_use(sweep).map(move |slot| {
                let id = ItemId::Slot(sweep, slot);
                let visited = items.and_then(|items| items.get(&id));
                visited.map_or_else(|| Cow::Owned(StoredItem::new(id, Item::Slot(slot))), Cow::Borrowed)
            })),
            Queue::Revocations | Queue::Suspicions => {
                let open = items.into_iter().flatten().filter(|(_, stored)| stored.due_at.is_some());
                Box::new(open.map(|(_, stored)| Cow::Borrowed(stored)))
            }
        }
    }
}
