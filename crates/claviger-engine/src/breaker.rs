//! Each kind of question to the provider has one [`Breaker`], shared by all sessions.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{
    breaker::{Breaker, BreakerState},
    time::Timestamp,
    verdict::Trouble,
};

use crate::Clock;

#[derive(Default)]
pub(crate) struct SharedBreaker(Mutex<Breaker>);

impl SharedBreaker {
    /// Asks to send one question.
    ///
    /// # Errors
    /// How long to wait, if the provider is to be left alone.
    pub(crate) fn ask<'a>(&'a self, clock: &'a dyn Clock) -> Result<Permit<'a>, Duration> {
        let probe = self.lock().ask(clock.now())?;
        Ok(Permit { breaker: self, clock, probe, used: false })
    }

    /// How long nobody may ask yet, if so.
    pub(crate) fn left(&self, now: Timestamp) -> Option<Duration> {
        self.lock().left(now)
    }

    pub(crate) fn state(&self, now: Timestamp) -> BreakerState {
        self.lock().state(now)
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to send one question. One that is dropped was not sent.
#[must_use]
pub(crate) struct Permit<'a> {
    breaker: &'a SharedBreaker,
    clock: &'a dyn Clock,
    /// Whether the others wait for the answer.
    probe: bool,
    used: bool,
}

impl Permit<'_> {
    /// The provider answered.
    pub(crate) fn answered(mut self) {
        self.used = true;
        self.breaker.lock().answered();
    }

    /// The provider did not answer, or not what was asked.
    pub(crate) fn troubled(mut self, trouble: &Trouble) {
        self.used = true;
        let now = self.clock.now();
        self.breaker.lock().troubled(now, trouble);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe && !self.used {
            let now = self.clock.now();
            self.breaker.lock().unasked(now);
        }
    }
}
