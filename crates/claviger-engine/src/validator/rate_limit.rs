//! The adaptive rate limit of validations. All instances share it through the store, and nobody
//! asks about an access token without a permit of it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use claviger_core::{Purpose, RateLimit, RateLimitBounds, Timestamp, Turns, Version, limits};
use claviger_store::{SharedEntry, Store, StoreError};

use crate::{Env, Lock, part::part};

/// The name of the shared entry in the store.
const NAME: &str = "pace";

part! {
    /// The rate limit, and the permits that this process reserved of it.
    pub(crate) struct SharedRateLimit needs {
        env: Env,
        store: Arc<dyn Store>,
    } owns {
        /// The times of permits that this process reserved and nobody took yet, the earliest first.
        permits: Lock<VecDeque<Timestamp>> = Lock::default(),
        /// One task reserves at a time, and the others then find permits. It only saves writes.
        reserving: tokio::sync::Mutex<()> = tokio::sync::Mutex::default(),
        /// Of the tasks that nobody waits for, one at a time competes with requests. So requests
        /// find a short queue.
        patient: tokio::sync::Mutex<()> = tokio::sync::Mutex::default(),
        /// Number of tasks of the sweep that wait for a permit.
        sweep_waits: AtomicUsize = AtomicUsize::new(0),
        /// Whose turn it is while they wait.
        turns: Lock<Turns> = Lock::default(),
        /// Of the early validations, one at a time waits for its turn.
        early: tokio::sync::Mutex<()> = tokio::sync::Mutex::default(),
        /// Duration of the store's last reservation. Permits before that would expire in the
        /// meantime.
        lag: Lock<Duration> = Lock::default(),
        /// 429s come in bursts, and each would have to be written by compare-and-set.
        slowing: tokio::sync::Mutex<()> = tokio::sync::Mutex::default(),
    }
}

/// What came of asking for a permit.
pub(crate) enum Acquired {
    /// One question may be sent now.
    Permit,
    /// There is no permit in time. How long until there may be one.
    TooLate(Duration),
}

/// A permit that was taken for later.
enum Taken {
    At(Timestamp),
    TooLate(Duration),
}

impl SharedRateLimit {
    /// Waits for a permit. Only the sweep waits for longer than [`limits::RATE_LIMIT_PATIENCE`].
    pub(crate) async fn acquire(&self, purpose: Purpose) -> Result<Acquired, StoreError> {
        let patience = match purpose {
            Purpose::Sweep => Duration::MAX,
            Purpose::Due | Purpose::Early => limits::RATE_LIMIT_PATIENCE,
        };
        let deadline = self.env.now().after(patience);
        let late = Ok(Acquired::TooLate(limits::RATE_LIMIT_AHEAD));
        tokio::time::timeout(patience, self.acquire_until(deadline, purpose)).await.unwrap_or(late)
    }

    /// Slows down, because the provider asked for fewer requests.
    pub(crate) async fn slow_down(&self, retry_after: Option<Duration>) -> Result<(), StoreError> {
        let bounds = self.bounds();
        let _slowing = self.slowing.lock().await;
        self.permits.lock().clear();
        self.edit(|rate_limit, now| {
            let next = rate_limit.troubled(now, &bounds, retry_after);
            ((next != rate_limit).then_some(next), ())
        })
        .await
    }

    /// The rate limit as it stands.
    pub(crate) async fn current(&self) -> Result<RateLimit, StoreError> {
        Ok(read(self.store.shared_entry(NAME).await?.as_ref()))
    }

    pub(crate) fn bounds(&self) -> RateLimitBounds {
        RateLimitBounds::per_second(self.env.settings().sweep.validations_per_second)
    }

    async fn acquire_until(&self, deadline: Timestamp, purpose: Purpose) -> Result<Acquired, StoreError> {
        let _turn = self.turn_of(purpose).await;
        loop {
            let at = match self.take(deadline, purpose).await? {
                Taken::At(at) => at,
                Taken::TooLate(wait) => return Ok(Acquired::TooLate(wait)),
            };
            let early = at.since(self.env.now());
            // A timer of no length would still wait for the next tick of the clock.
            if !early.is_zero() {
                tokio::time::sleep(early).await;
            }
            // A permit is lost if its task wakes up too late: it would come on top of others.
            if self.env.now() <= at.after(limits::RATE_LIMIT_LATE) {
                return Ok(Acquired::Permit);
            }
        }
    }

    /// Waits until it is this purpose's turn. An early validation keeps its turn until it has a
    /// permit.
    async fn turn_of(&self, purpose: Purpose) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if purpose != Purpose::Early {
            return None;
        }
        let early = self.early.lock().await;
        while !self.turns.lock().is_of(purpose, self.sweep_waits.load(Ordering::Relaxed) > 0) {
            tokio::time::sleep(limits::EARLY_TURN_POLL).await;
        }
        Some(early)
    }

    /// Takes the next permit that nobody took.
    async fn take(&self, deadline: Timestamp, purpose: Purpose) -> Result<Taken, StoreError> {
        let taken = self.take_next(deadline, purpose).await?;
        if matches!(taken, Taken::At(_)) {
            let mut turns = self.turns.lock();
            *turns = turns.after(purpose);
        }
        Ok(taken)
    }

    async fn take_next(&self, deadline: Timestamp, purpose: Purpose) -> Result<Taken, StoreError> {
        if let Some(at) = self.next(self.env.now(), deadline) {
            return Ok(Taken::At(at));
        }
        let sweeps = purpose == Purpose::Sweep;
        let _waits = sweeps.then(|| Waiting::new(&self.sweep_waits));
        let _first = if sweeps { Some(self.patient.lock().await) } else { None };
        let _reserving = self.reserving.lock().await;
        loop {
            let now = self.env.now();
            if let Some(at) = self.next(now, deadline) {
                return Ok(Taken::At(at));
            }
            let from = self.reserve().await?;
            if from > deadline {
                return Ok(Taken::TooLate(from.since(now)));
            }
            // If none could be reserved, it is too early for the next.
            tokio::time::sleep(from.before(limits::RATE_LIMIT_AHEAD).since(self.env.now())).await;
        }
    }

    /// The next permit that has not expired, if it is not after `deadline`.
    fn next(&self, now: Timestamp, deadline: Timestamp) -> Option<Timestamp> {
        let mut permits = self.permits.lock();
        while permits.front().is_some_and(|at| at.after(limits::RATE_LIMIT_LATE) < now) {
            permits.pop_front();
        }
        // Permits further ahead than any can be reserved come from a clock that was ahead.
        let longest = limits::PROVIDER_PAUSE_ASKED_MAX + limits::RATE_LIMIT_AHEAD;
        if permits.front().is_some_and(|at| *at > now && at.left(now, longest).is_none()) {
            permits.clear();
        }
        if permits.front().is_some_and(|at| *at <= deadline) { permits.pop_front() } else { None }
    }

    /// Reserves some permits, if there are any soon. Gives the time that the first of them has, or
    /// would have.
    async fn reserve(&self) -> Result<Timestamp, StoreError> {
        let bounds = self.bounds();
        let lag = *self.lag.lock();
        let (reserved, began) = self
            .edit(|rate_limit, now| {
                let want = rate_limit.per_second(now, &bounds) / limits::RATE_LIMIT_RESERVATIONS_PER_SECOND;
                // A float becomes the nearest number that fits.
                let want = (want as u32).clamp(1, limits::RATE_LIMIT_PLACES);
                let (next, reservation) = rate_limit.reserve(now.after(lag), &bounds, want);
                ((reservation.count > 0).then_some(next), (reservation, now))
            })
            .await?;
        let now = self.env.now();
        let took = now.since(began);
        *self.lag.lock() = if took > limits::RATE_LIMIT_LATE / 2 {
            took.min(limits::RATE_LIMIT_AHEAD)
        } else {
            Duration::ZERO
        };
        self.permits.lock().extend(reserved.places(now));
        Ok(reserved.from)
    }

    /// Replaces the stored value by the next one. It tries again if another instance was first.
    async fn edit<T>(
        &self,
        edit: impl Fn(RateLimit, Timestamp) -> (Option<RateLimit>, T),
    ) -> Result<T, StoreError> {
        for _ in 0..limits::COMPARE_AND_SET_TRIES {
            let entry = self.store.shared_entry(NAME).await?;
            let (next, outcome) = edit(read(entry.as_ref()), self.env.now());
            let Some(next) = next else { return Ok(outcome) };
            let version = entry.map_or(Version::FIRST, |entry| entry.version.next());
            let entry = SharedEntry { version, value: next.to_bytes().to_vec() };
            if self.store.put_shared_entry(NAME, &entry).await? {
                return Ok(outcome);
            }
        }
        Err(StoreError::Unavailable("too many instances change the rate limit at once".to_owned()))
    }
}

/// Counts a task while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A value that is not understood comes from another version of the program. Then the rate limit
/// starts afresh.
fn read(entry: Option<&SharedEntry>) -> RateLimit {
    entry.and_then(|entry| RateLimit::from_bytes(&entry.value)).unwrap_or(RateLimit::NEW)
}
