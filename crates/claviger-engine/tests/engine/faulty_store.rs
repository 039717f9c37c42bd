//! One instance's way to the store. It fails on request, before or after the deed, and can be made
//! to wait.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use claviger_core::{AttemptId, Change, EndReason, Session, SessionId, Slot, Subject, Timestamp};
use claviger_store::{
    Applied, Backlog, ChangeFeed, FeedEvent, Item, ItemId, KeyIdCount, Lease, LeaseTerms, LeaseUpdate,
    Leftover, MemoryStore, Method, Placement, Queue, Selection, SessionCounts, SharedEntry, Store,
    StoreError, Subscriber, SweepKind,
};
use tokio::sync::mpsc;

use crate::{recorded, twitch::Gate};

pub(crate) struct FaultyStore {
    inner: Arc<MemoryStore>,
    tricks: Mutex<VecDeque<(Method, Trick)>>,
    down: Mutex<Option<StoreError>>,
    slow: AtomicBool,
    latency: Mutex<Duration>,
    trouble: Mutex<Option<String>>,
    news: Mutex<Option<mpsc::UnboundedReceiver<FeedEvent>>>,
    /// Whether no other process uses the store, as with a file.
    pub(crate) exclusive: AtomicBool,
}

/// The change feed of an instance, controlled by a test.
struct Told(mpsc::UnboundedReceiver<FeedEvent>);

#[async_trait]
impl Subscriber for Told {
    async fn next(&mut self) -> FeedEvent {
        match self.0.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

/// What happens to one call.
#[derive(Clone)]
pub(crate) enum Trick {
    /// It succeeds.
    Pass,
    /// It fails and does nothing.
    Fail,
    /// It does its work and then fails, so its outcome is unknown.
    FailAfter,
    /// It waits at the gate before its work.
    HoldBefore(Arc<Gate>),
    /// It waits at the gate after its work.
    HoldAfter(Arc<Gate>),
}

pub(crate) fn unavailable() -> StoreError {
    StoreError::Unavailable("a test".to_owned())
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<MemoryStore>) -> Self {
        Self {
            inner,
            tricks: Mutex::default(),
            down: Mutex::default(),
            slow: AtomicBool::new(false),
            latency: Mutex::default(),
            trouble: Mutex::default(),
            news: Mutex::default(),
            exclusive: AtomicBool::new(false),
        }
    }

    /// As above, shared with others, with a change feed that the test controls.
    pub(crate) fn shared(inner: Arc<MemoryStore>) -> (Self, mpsc::UnboundedSender<FeedEvent>) {
        let (tell, told) = mpsc::unbounded_channel();
        let faulty_store = Self { news: Mutex::new(Some(told)), ..Self::new(inner) };
        (faulty_store, tell)
    }

    /// Applies a fault to the next call of this method that has none yet.
    pub(crate) fn next(&self, method: Method, trick: Trick) {
        self.tricks.lock().unwrap().push_back((method, trick));
    }

    /// Removes the remaining faults.
    pub(crate) fn mend(&self) {
        self.tricks.lock().unwrap().clear();
    }

    /// Holds the next call of this method back after its work.
    pub(crate) fn hold_after(&self, method: Method) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.next(method, Trick::HoldAfter(Arc::clone(&gate)));
        gate
    }

    /// Holds the next call of this method back before its work.
    pub(crate) fn hold_before(&self, method: Method) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.next(method, Trick::HoldBefore(Arc::clone(&gate)));
        gate
    }

    /// Makes the store unavailable to this instance, or available again.
    pub(crate) fn down(&self, down: bool) {
        self.down_with(down.then(unavailable));
    }

    /// Makes every call fail with this error and do nothing, or work again.
    pub(crate) fn down_with(&self, error: Option<StoreError>) {
        *self.down.lock().unwrap() = error;
    }

    /// Sets what the operator must mend.
    pub(crate) fn has_trouble(&self, trouble: Option<&str>) {
        *self.trouble.lock().unwrap() = trouble.map(str::to_owned);
    }

    /// Makes every call yield before and after its work, as a real store does.
    pub(crate) fn slow(&self) {
        self.slow.store(true, Ordering::SeqCst);
    }

    /// Delays every call by this much.
    pub(crate) fn takes(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    async fn give_way(&self) {
        if self.slow.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }

    fn trick(&self, method: Method) -> Trick {
        let mut tricks = self.tricks.lock().unwrap();
        let index = tricks.iter().position(|(at, _)| *at == method);
        index.and_then(|index| tricks.remove(index)).map_or(Trick::Pass, |(_, trick)| trick)
    }

    async fn through<T>(
        &self,
        method: Method,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        recorded::store_call(method);
        self.give_way().await;
        let latency = *self.latency.lock().unwrap();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let down = self.down.lock().unwrap().clone();
        if let Some(error) = down {
            return Err(error);
        }
        match self.trick(method) {
            Trick::Pass => {
                let done = work.await;
                self.give_way().await;
                done
            }
            Trick::Fail => Err(unavailable()),
            Trick::FailAfter => {
                work.await?;
                Err(unavailable())
            }
            Trick::HoldBefore(gate) => {
                gate.wait().await;
                work.await
            }
            Trick::HoldAfter(gate) => {
                let done = work.await;
                gate.wait().await;
                done
            }
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn check(&self) -> Result<(), StoreError> {
        self.through(Method::Check, self.inner.check()).await
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        self.through(Method::Insert, self.inner.insert(session, placement)).await
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.through(Method::Load, self.inner.load(id)).await
    }

    async fn apply(&self, change: &Change) -> Result<Applied, StoreError> {
        recorded::change(change);
        self.through(Method::Apply, self.inner.apply(change)).await
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        self.through(Method::Devices, self.inner.devices(subject, limit)).await
    }

    async fn end_sessions(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        self.through(Method::EndSessions, self.inner.end_sessions(selection, reason, at)).await
    }

    async fn record_last_seen(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        self.through(Method::RecordLastSeen, self.inner.record_last_seen(seen)).await
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.through(Method::Overdue, self.inner.overdue(idle_since, created_until, limit)).await
    }

    async fn denylist(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.through(Method::Denylist, self.inner.denylist(limit)).await
    }

    async fn purge(&self, what: Leftover, until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.through(Method::Purge(what), self.inner.purge(what, until, limit)).await
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        self.through(Method::SpendLogin, self.inner.spend_login(state_hash, expires_at)).await
    }

    async fn enqueue(&self, item: &Item) -> Result<bool, StoreError> {
        self.through(Method::enqueue(item), self.inner.enqueue(item)).await
    }

    async fn take(
        &self,
        queue: Queue,
        terms: LeaseTerms,
        limit: usize,
    ) -> Result<Vec<Lease<Item>>, StoreError> {
        self.through(Method::Take(queue), self.inner.take(queue, terms, limit)).await
    }

    async fn update_lease(
        &self,
        id: ItemId,
        holder: AttemptId,
        update: LeaseUpdate,
    ) -> Result<bool, StoreError> {
        let method = Method::update_lease(id, update);
        self.through(method, self.inner.update_lease(id, holder, update)).await
    }

    async fn backlog(&self, queue: Queue) -> Result<Backlog, StoreError> {
        self.through(Method::Backlog, self.inner.backlog(queue)).await
    }

    async fn in_slot(
        &self,
        sweep: SweepKind,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        self.through(Method::InSlot, self.inner.in_slot(sweep, slot, after, limit)).await
    }

    async fn apply_all(&self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        self.through(Method::ApplyAll, self.inner.apply_all(changes)).await
    }

    async fn session_counts(&self, now: Timestamp) -> Result<SessionCounts, StoreError> {
        self.through(Method::SessionCounts, self.inner.session_counts(now)).await
    }

    async fn key_id_counts(&self) -> Result<Vec<KeyIdCount>, StoreError> {
        self.through(Method::KeyIdCounts, self.inner.key_id_counts()).await
    }

    async fn shared_entry(&self, name: &str) -> Result<Option<SharedEntry>, StoreError> {
        recorded::shared_entry(name);
        self.through(Method::SharedEntry, self.inner.shared_entry(name)).await
    }

    async fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap().clone()
    }

    fn is_exclusive(&self) -> bool {
        self.exclusive.load(Ordering::Relaxed)
    }

    fn change_feed(&self) -> ChangeFeed {
        let news = self.news.lock().unwrap().take();
        news.map_or(ChangeFeed::SoleWriter, |feed| ChangeFeed::Subscriber(Box::new(Told(feed))))
    }

    async fn put_shared_entry(&self, name: &str, entry: &SharedEntry) -> Result<bool, StoreError> {
        recorded::shared_entry(name);
        self.through(Method::PutSharedEntry, self.inner.put_shared_entry(name, entry)).await
    }
}
