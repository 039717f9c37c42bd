//! One instance's way to the store: it fails when told to, before or after the deed, and can be made to wait.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
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
use claviger_store::{
    Backlog, Census, Change, HeadCount, Memo, MemoryStore, Method, News, Others, Owed, OwedId, Placement,
    Replaced, Selection, Store, StoreError, Suspected, SuspicionKey, Visit, Wheel,
};

use tokio::sync::mpsc;

use crate::twitch::Gate;

pub(crate) struct Shelf {
    inner: Arc<MemoryStore>,
    tricks: Mutex<VecDeque<(Method, Trick)>>,
    down: Mutex<Option<StoreError>>,
    slow: AtomicBool,
    latency: Mutex<Duration>,
    news: Mutex<Option<mpsc::UnboundedReceiver<Change>>>,
}

/// What a test lets an instance hear.
struct Told(mpsc::UnboundedReceiver<Change>);

#[async_trait]
impl News for Told {
    async fn next(&mut self) -> Change {
        match self.0.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

/// What happens to one call.
#[derive(Clone)]
pub(crate) enum Trick {
    /// It passes.
    Pass,
    /// It fails and does nothing.
    Fail,
    /// It does its work, and then fails: nobody can say whether it happened.
    FailAfter,
    /// It waits at the gate before it does its work.
    HoldBefore(Arc<Gate>),
    /// It does its work and waits at the gate before it returns.
    HoldAfter(Arc<Gate>),
}

pub(crate) fn unavailable() -> StoreError {
    StoreError::Unavailable("a test".to_owned())
}

impl Shelf {
    pub(crate) fn new(inner: Arc<MemoryStore>) -> Self {
        Self {
            inner,
            tricks: Mutex::default(),
            down: Mutex::default(),
            slow: AtomicBool::new(false),
            latency: Mutex::default(),
            news: Mutex::default(),
        }
    }

    /// The same, shared with others of whose changes the instance hears what the test says.
    pub(crate) fn shared(inner: Arc<MemoryStore>) -> (Self, mpsc::UnboundedSender<Change>) {
        let (tell, told) = mpsc::unbounded_channel();
        let shelf = Self { news: Mutex::new(Some(told)), ..Self::new(inner) };
        (shelf, tell)
    }

    /// Plays a trick on the next call of this method that has none yet.
    pub(crate) fn next(&self, method: Method, trick: Trick) {
        self.tricks.lock().unwrap().push_back((method, trick));
    }

    /// Plays none of the tricks that are left.
    pub(crate) fn mend(&self) {
        self.tricks.lock().unwrap().clear();
    }

    /// Holds the next call of this method back after its work is done.
    pub(crate) fn hold_after(&self, method: Method) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.next(method, Trick::HoldAfter(Arc::clone(&gate)));
        gate
    }

    /// Holds the next call of this method back before it does its work.
    pub(crate) fn hold_before(&self, method: Method) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.next(method, Trick::HoldBefore(Arc::clone(&gate)));
        gate
    }

    /// Takes the store away from this instance, or gives it back.
    pub(crate) fn down(&self, down: bool) {
        *self.down.lock().unwrap() = down.then(unavailable);
    }

    /// Makes every call give way to others before and after its work, as a real store does.
    pub(crate) fn slow(&self) {
        self.slow.store(true, Ordering::SeqCst);
    }

    /// Makes every call take so long.
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
impl Store for Shelf {
    async fn check(&self) -> Result<(), StoreError> {
        self.through(Method::Check, self.inner.check()).await
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        self.through(Method::Insert, self.inner.insert(session, placement)).await
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.through(Method::Load, self.inner.load(id)).await
    }

    async fn replace(&self, next: &Session, owed: Option<&OwedRevocation>) -> Result<Replaced, StoreError> {
        self.through(Method::Replace, self.inner.replace(next, owed)).await
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        self.through(Method::Devices, self.inner.devices(subject, limit)).await
    }

    async fn end_all(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        self.through(Method::EndAll, self.inner.end_all(selection, reason, at)).await
    }

    async fn touch(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        self.through(Method::Touch, self.inner.touch(seen)).await
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.through(Method::Overdue, self.inner.overdue(idle_since, created_until, limit)).await
    }

    async fn distrusted(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.through(Method::Distrusted, self.inner.distrusted(limit)).await
    }

    async fn purge(&self, created_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.through(Method::Purge, self.inner.purge(created_until, limit)).await
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        self.through(Method::SpendLogin, self.inner.spend_login(state_hash, expires_at)).await
    }

    async fn forget_logins(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.through(Method::ForgetLogins, self.inner.forget_logins(now, limit)).await
    }

    async fn owe(&self, owed: &OwedRevocation) -> Result<(), StoreError> {
        self.through(Method::Owe, self.inner.owe(owed)).await
    }

    async fn take_owed(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Owed>, StoreError> {
        self.through(Method::TakeOwed, self.inner.take_owed(attempt, now, lease_until, limit)).await
    }

    async fn settle_owed(&self, id: OwedId, attempt: AttemptId) -> Result<bool, StoreError> {
        self.through(Method::SettleOwed, self.inner.settle_owed(id, attempt)).await
    }

    async fn postpone_owed(
        &self,
        id: OwedId,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.through(Method::PostponeOwed, self.inner.postpone_owed(id, attempt, due_at)).await
    }

    async fn owed_backlog(&self) -> Result<Backlog, StoreError> {
        self.through(Method::OwedBacklog, self.inner.owed_backlog()).await
    }

    async fn take_slots(
        &self,
        wheel: Wheel,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Visit>, StoreError> {
        self.through(Method::TakeSlots, self.inner.take_slots(wheel, attempt, now, lease_until, limit)).await
    }

    async fn in_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        self.through(Method::InSlot, self.inner.in_slot(wheel, slot, after, limit)).await
    }

    async fn hold_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        lease_until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.through(Method::HoldSlot, self.inner.hold_slot(wheel, slot, attempt, lease_until)).await
    }

    async fn leave_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.through(Method::LeaveSlot, self.inner.leave_slot(wheel, slot, attempt, due_at)).await
    }

    async fn longest_due(&self, wheel: Wheel) -> Result<Option<Timestamp>, StoreError> {
        self.through(Method::LongestDue, self.inner.longest_due(wheel)).await
    }

    async fn replace_all(&self, next: &[Session]) -> Result<Vec<bool>, StoreError> {
        self.through(Method::ReplaceAll, self.inner.replace_all(next)).await
    }

    async fn census(&self, now: Timestamp) -> Result<Census, StoreError> {
        self.through(Method::Census, self.inner.census(now)).await
    }

    async fn heads(&self) -> Result<Vec<HeadCount>, StoreError> {
        self.through(Method::Heads, self.inner.heads()).await
    }

    async fn suspect(
        &self,
        key: SuspicionKey,
        suspicion: &Suspicion,
        noted_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.through(Method::Suspect, self.inner.suspect(key, suspicion, noted_at)).await
    }

    async fn take_suspicions(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Suspected>, StoreError> {
        self.through(Method::TakeSuspicions, self.inner.take_suspicions(attempt, now, lease_until, limit))
            .await
    }

    async fn settle_suspicion(&self, key: SuspicionKey, attempt: AttemptId) -> Result<bool, StoreError> {
        self.through(Method::SettleSuspicion, self.inner.settle_suspicion(key, attempt)).await
    }

    async fn postpone_suspicion(
        &self,
        key: SuspicionKey,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.through(Method::PostponeSuspicion, self.inner.postpone_suspicion(key, attempt, due_at)).await
    }

    async fn forget_suspicions(&self, noted_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.through(Method::ForgetSuspicions, self.inner.forget_suspicions(noted_until, limit)).await
    }

    async fn memo(&self, name: &str) -> Result<Option<Memo>, StoreError> {
        self.through(Method::Memo, self.inner.memo(name)).await
    }

    fn others(&self) -> Others {
        let news = self.news.lock().unwrap().take();
        news.map_or(Others::None, |news| Others::Heard(Box::new(Told(news))))
    }

    async fn put_memo(&self, name: &str, memo: &Memo) -> Result<bool, StoreError> {
        self.through(Method::PutMemo, self.inner.put_memo(name, memo)).await
    }
}
