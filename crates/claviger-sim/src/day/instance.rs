//! One instance of the engine, which can be killed at any point.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use claviger_core::{
    AttemptId, Change, EndReason, ProviderHabits, Session, SessionId, Slot, Subject, Timestamp,
};
use claviger_engine::{Engine, Parts, Settings, StartError, Sweep};
use claviger_store::{
    Applied, Backlog, ChangeFeed, Item, ItemId, KeyIdCount, Lease, LeaseTerms, LeaseUpdate, Leftover,
    MemoryStore, Placement, Queue, Selection, SessionCounts, SharedEntry, Store, StoreError, SweepKind,
};
use tokio_util::sync::CancellationToken;

use crate::{plan::Offers, rng::Rng, world};

use super::{
    Clock,
    provider::{Line, Provider},
};

/// One life of an instance.
#[derive(Clone)]
pub(super) struct Instance {
    pub(super) engine: Engine,
    dead: Arc<AtomicBool>,
}

/// What all instances share.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) store: Arc<MemoryStore>,
    pub(super) provider: Arc<Provider>,
    pub(super) clock: Arc<Clock>,
    pub(super) rng: Arc<Rng>,
    pub(super) budget: u32,
    pub(super) period: Duration,
}

impl Instance {
    pub(super) async fn start(ground: &Ground) -> Result<Self, StartError> {
        let dead = Arc::new(AtomicBool::new(false));
        let parts = Parts {
            store: Arc::new(Mortal {
                store: Arc::clone(&ground.store),
                rng: Arc::clone(&ground.rng),
                dead: Arc::clone(&dead),
            }),
            http: Arc::new(Line { provider: Arc::clone(&ground.provider), dead: Arc::clone(&dead) }),
            clock: Arc::clone(&ground.clock) as _,
            entropy: Arc::clone(&ground.rng) as _,
            keyring: world::keyring(),
            provider: world::provider_config(ProviderHabits::FORGIVING, Offers::ALL),
            settings: Settings {
                sweep: Sweep {
                    period: ground.period,
                    validations_per_second: ground.budget,
                    ..Settings::default().sweep
                },
                ..Settings::default()
            },
            webhook: None,
            assertions: None,
        };
        let engine = Engine::start(parts).await?;
        let background = engine.clone();
        tokio::spawn(async move { background.run(CancellationToken::new()).await });
        Ok(Self { engine, dead })
    }

    pub(super) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    pub(super) fn alive(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }

    /// Returns when a caller notices that the process is dead.
    pub(super) async fn found_dead(&self) {
        while self.alive() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}

/// Maximum time of a look at a shared entry.
const SHARED_ENTRY_TAKES: Duration = Duration::from_millis(3);

/// The store as seen by a process that may die between two steps.
struct Mortal {
    store: Arc<MemoryStore>,
    rng: Arc<Rng>,
    dead: Arc<AtomicBool>,
}

impl Mortal {
    async fn live_on(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

macro_rules! mortal {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $gives:ty;)*) => {
        #[async_trait]
        impl Store for Mortal {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$gives, StoreError> {
                self.live_on().await;
                self.store.$name($($argument),*).await
            })*

            fn change_feed(&self) -> ChangeFeed {
                self.store.change_feed()
            }

            // Instances compete for the budget. Without a delay they would all read it in the same
            // millisecond, and always in the same order.
            async fn shared_entry(&self, name: &str) -> Result<Option<SharedEntry>, StoreError> {
                self.live_on().await;
                tokio::time::sleep(self.rng.span(Duration::ZERO, SHARED_ENTRY_TAKES)).await;
                self.store.shared_entry(name).await
            }
        }
    };
}

mortal! {
    fn check() -> ();
    fn insert(session: Session, placement: Placement) -> Vec<Session>;
    fn load(id: SessionId) -> Option<Session>;
    fn apply(change: &Change) -> Applied;
    fn devices(subject: &Subject, limit: usize) -> Vec<Session>;
    fn end_sessions(selection: &Selection, reason: EndReason, at: Timestamp) -> Vec<Session>;
    fn record_last_seen(seen: &[(SessionId, Timestamp)]) -> ();
    fn overdue(idle_since: Timestamp, created_until: Timestamp, limit: usize) -> Vec<SessionId>;
    fn denylist(limit: usize) -> Vec<SessionId>;
    fn purge(what: Leftover, until: Timestamp, limit: usize) -> usize;
    fn spend_login(state_hash: [u8; 32], expires_at: Timestamp) -> bool;
    fn enqueue(item: &Item) -> bool;
    fn take(queue: Queue, terms: LeaseTerms, limit: usize) -> Vec<Lease<Item>>;
    fn update_lease(id: ItemId, holder: AttemptId, update: LeaseUpdate) -> bool;
    fn backlog(queue: Queue) -> Backlog;
    fn in_slot(sweep: SweepKind, slot: Slot, after: Option<SessionId>, limit: usize) -> Vec<Session>;
    fn apply_all(changes: &[Change]) -> Vec<bool>;
    fn session_counts(now: Timestamp) -> SessionCounts;
    fn key_id_counts() -> Vec<KeyIdCount>;
    fn put_shared_entry(name: &str, entry: &SharedEntry) -> bool;
}
