//! The budget of validations. All instances share it through the store; nobody asks about an access token without a place in it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{
    ids::Version,
    policy::limits,
    sweep::{Pace, PaceLimits},
    time::Timestamp,
    verdict::{Trouble, TroubleKind},
};
use claviger_store::{Memo, StoreError};

use crate::Engine;

/// What the budget is kept under in the store.
const NAME: &str = "pace";

#[derive(Default)]
pub(crate) struct Turns {
    /// Places that this process reserved and nobody took yet, the next one first.
    places: Mutex<VecDeque<Timestamp>>,
    /// One reserves at a time. The others then find places; it only saves writes.
    reserving: tokio::sync::Mutex<()>,
    /// Of those whom nobody waits for, one at a time competes with the others, so that requests find no long line.
    patient: tokio::sync::Mutex<()>,
    /// How long the store took for the last reservation: places before that would be lost by then.
    lag: Mutex<Duration>,
    /// 429s come in volleys, and each would have to be written by compare-and-set.
    slowing: tokio::sync::Mutex<()>,
}

/// No place within the time that there was: how long until there may be one.
pub(crate) struct TooLate(pub(crate) Duration);

impl From<TooLate> for Trouble {
    fn from(TooLate(wait): TooLate) -> Self {
        Self { kind: TroubleKind::NotSent, retry_after: Some(wait) }
    }
}

impl Turns {
    fn places(&self) -> MutexGuard<'_, VecDeque<Timestamp>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lag(&self) -> MutexGuard<'_, Duration> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next place that is not lost by now, if it is not after `deadline`.
    fn next(&self, now: Timestamp, deadline: Timestamp) -> Option<Timestamp> {
        let mut places = self.places();
        while places.front().is_some_and(|at| at.after(limits::PACE_LATE) < now) {
            places.pop_front();
        }
        if places.front().is_some_and(|at| *at <= deadline) { places.pop_front() } else { None }
    }
}

impl Engine {
    /// Waits for a place in the budget, at most for so long.
    pub(crate) async fn await_place(&self, patience: Duration) -> Result<Result<(), TooLate>, StoreError> {
        let deadline = self.now().after(patience);
        let late = Ok(Err(TooLate(limits::PACE_AHEAD)));
        tokio::time::timeout(patience, self.await_place_until(deadline)).await.unwrap_or(late)
    }

    async fn await_place_until(&self, deadline: Timestamp) -> Result<Result<(), TooLate>, StoreError> {
        loop {
            let place = match self.take_place(deadline).await? {
                Ok(place) => place,
                Err(late) => return Ok(Err(late)),
            };
            let early = place.since(self.now());
            // A timer of no length would still wait for the next tick of the clock.
            if !early.is_zero() {
                tokio::time::sleep(early).await;
            }
            // Who wakes up too late lets the place go: it would come on top of others.
            if self.now() <= place.after(limits::PACE_LATE) {
                return Ok(Ok(()));
            }
        }
    }

    /// The next place that nobody took.
    async fn take_place(&self, deadline: Timestamp) -> Result<Result<Timestamp, TooLate>, StoreError> {
        let turns = &self.inner.turns;
        if let Some(place) = turns.next(self.now(), deadline) {
            return Ok(Ok(place));
        }
        let patient = deadline.since(self.now()) > limits::PACE_PATIENCE;
        let _line = if patient { Some(turns.patient.lock().await) } else { None };
        let _reserving = turns.reserving.lock().await;
        loop {
            let now = self.now();
            if let Some(place) = turns.next(now, deadline) {
                return Ok(Ok(place));
            }
            let from = self.reserve_places().await?;
            if from > deadline {
                return Ok(Err(TooLate(from.since(now))));
            }
            // Where none could be reserved it is too early for the next.
            tokio::time::sleep(from.before(limits::PACE_AHEAD).since(self.now())).await;
        }
    }

    /// Reserves some places, if there are any soon. Gives when the first of them is, or would be.
    async fn reserve_places(&self) -> Result<Timestamp, StoreError> {
        let bounds = self.pace_limits();
        let lag = *self.inner.turns.lag();
        let (reserved, began) = self
            .edit_pace(|pace, now| {
                let want = pace.per_second(now, &bounds) / limits::PACE_RESERVATIONS_PER_SECOND;
                // A float becomes the nearest number that fits.
                let want = (want as u32).clamp(1, limits::PACE_PLACES);
                let (next, reservation) = pace.reserve(now.after(lag), &bounds, want);
                ((reservation.count > 0).then_some(next), (reservation, now))
            })
            .await?;
        let now = self.now();
        let took = now.since(began);
        *self.inner.turns.lag() =
            if took > limits::PACE_LATE / 2 { took.min(limits::PACE_AHEAD) } else { Duration::ZERO };
        self.inner.turns.places().extend(reserved.places(now));
        Ok(reserved.from)
    }

    /// The provider asked for fewer requests.
    pub(crate) async fn slow_down(&self, retry_after: Option<Duration>) -> Result<(), StoreError> {
        let bounds = self.pace_limits();
        let _slowing = self.inner.turns.slowing.lock().await;
        self.inner.turns.places().clear();
        self.edit_pace(|pace, now| {
            let next = pace.troubled(now, &bounds, retry_after);
            ((next != pace).then_some(next), ())
        })
        .await
    }

    /// The budget as it stands.
    pub(crate) async fn pace(&self) -> Result<Pace, StoreError> {
        Ok(read(self.inner.parts.store.memo(NAME).await?.as_ref()))
    }

    pub(crate) fn pace_limits(&self) -> PaceLimits {
        PaceLimits::per_second(self.settings().sweep.validations_per_second)
    }

    /// Puts the next value in the place of the one that it was made from; again if another instance was first.
    async fn edit_pace<T>(
        &self,
        edit: impl Fn(Pace, Timestamp) -> (Option<Pace>, T),
    ) -> Result<T, StoreError> {
        for _ in 0..limits::COMPARE_AND_SET_TRIES {
            let memo = self.inner.parts.store.memo(NAME).await?;
            let (next, outcome) = edit(read(memo.as_ref()), self.now());
            let Some(next) = next else { return Ok(outcome) };
            let version = memo.map_or(Version::FIRST, |memo| memo.version.next());
            let memo = Memo { version, value: next.to_bytes().to_vec() };
            if self.inner.parts.store.put_memo(NAME, &memo).await? {
                return Ok(outcome);
            }
        }
        Err(StoreError::Unavailable("the budget of validations is changed by too many at once".to_owned()))
    }
}

/// What is not understood is from another version of the program: the budget starts anew.
fn read(memo: Option<&Memo>) -> Pace {
    memo.and_then(|memo| Pace::from_bytes(&memo.value)).unwrap_or_default()
}
