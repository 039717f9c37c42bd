//! One instance of the engine, which can be killed: whatever it does then, nothing comes of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use claviger_core::{
    ids::{AttemptId, SessionId, Subject},
    session::{EndReason, OwedRevocation, Session},
    suspicion::Suspicion,
    sweep::Slot,
    time::Timestamp,
};
use claviger_engine::{Engine, Parts, Settings, Sweep};
use claviger_store::{
    Backlog, Census, HeadCount, Memo, MemoryStore, Owed, OwedId, Placement, Replaced, Selection, Store,
    StoreError, Suspected, SuspicionKey, Visit, Wheel,
};
use tokio_util::sync::CancellationToken;

use crate::{history, rng::Rng};

use super::{
    Clock,
    provider::{Line, Provider},
};

/// One life of one instance.
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
    pub(super) async fn start(ground: &Ground) -> Result<Self, StoreError> {
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
            keyring: history::keyring(),
            provider: history::provider_config(claviger_core::policy::ProviderHabits::TWITCH),
            settings: Settings {
                sweep: Sweep {
                    period: ground.period,
                    validations_per_second: ground.budget,
                    ..Sweep::default()
                },
                ..Settings::default()
            },
            notices: None,
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

    /// Returns when the process is found dead, by whoever waits for its answer.
    pub(super) async fn found_dead(&self) {
        while self.alive() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}

/// It takes up to so long to look at something that all share.
const MEMO_TAKES: Duration = Duration::from_millis(3);

/// The store as a process reaches it that may die between two steps.
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

            // The budget is what instances compete for. Without any time on the way they would all ask in the same millisecond,
            // always in the same order.
            async fn memo(&self, name: &str) -> Result<Option<Memo>, StoreError> {
                self.live_on().await;
                tokio::time::sleep(self.rng.span(Duration::ZERO, MEMO_TAKES)).await;
                self.store.memo(name).await
            }
        }
    };
}

mortal! {
    fn check() -> ();
    fn insert(session: Session, placement: Placement) -> Vec<Session>;
    fn load(id: SessionId) -> Option<Session>;
    fn replace(next: &Session, owed: Option<&OwedRevocation>) -> Replaced;
    fn devices(subject: &Subject, limit: usize) -> Vec<Session>;
    fn end_all(selection: &Selection, reason: EndReason, at: Timestamp) -> Vec<Session>;
    fn touch(seen: &[(SessionId, Timestamp)]) -> ();
    fn overdue(idle_since: Timestamp, created_until: Timestamp, limit: usize) -> Vec<SessionId>;
    fn distrusted(limit: usize) -> Vec<SessionId>;
    fn purge(created_until: Timestamp, limit: usize) -> usize;
    fn spend_login(state_hash: [u8; 32], expires_at: Timestamp) -> bool;
    fn forget_logins(now: Timestamp, limit: usize) -> usize;
    fn owe(owed: &OwedRevocation) -> ();
    fn take_owed(attempt: AttemptId, now: Timestamp, lease_until: Timestamp, limit: usize) -> Vec<Owed>;
    fn settle_owed(id: OwedId, attempt: AttemptId) -> bool;
    fn postpone_owed(id: OwedId, attempt: AttemptId, due_at: Timestamp) -> bool;
    fn owed_backlog() -> Backlog;
    fn take_slots(wheel: Wheel, attempt: AttemptId, now: Timestamp, lease_until: Timestamp, limit: usize) -> Vec<Visit>;
    fn in_slot(wheel: Wheel, slot: Slot, after: Option<SessionId>, limit: usize) -> Vec<Session>;
    fn hold_slot(wheel: Wheel, slot: Slot, attempt: AttemptId, lease_until: Timestamp) -> bool;
    fn leave_slot(wheel: Wheel, slot: Slot, attempt: AttemptId, due_at: Timestamp) -> bool;
    fn longest_due(wheel: Wheel) -> Option<Timestamp>;
    fn replace_all(next: &[Session]) -> Vec<bool>;
    fn census(now: Timestamp) -> Census;
    fn heads() -> Vec<HeadCount>;
    fn suspect(key: SuspicionKey, suspicion: &Suspicion, noted_at: Timestamp) -> bool;
    fn take_suspicions(attempt: AttemptId, now: Timestamp, lease_until: Timestamp, limit: usize) -> Vec<Suspected>;
    fn settle_suspicion(key: SuspicionKey, attempt: AttemptId) -> bool;
    fn postpone_suspicion(key: SuspicionKey, attempt: AttemptId, due_at: Timestamp) -> bool;
    fn forget_suspicions(noted_until: Timestamp, limit: usize) -> usize;
    fn put_memo(name: &str, memo: &Memo) -> bool;
}
