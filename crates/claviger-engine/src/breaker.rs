//! Circuit breakers: one [`Breaker`] per kind of question to the provider, shared by all sessions.

use std::time::Duration;

use claviger_core::{Breaker, BreakerState, ProviderFailure, Timestamp};

use crate::{Clock, Lock};

/// A breaker that all sessions share.
#[derive(Default)]
pub(crate) struct SharedBreaker(Lock<Breaker>);

impl SharedBreaker {
    /// Admits one question.
    ///
    /// # Errors
    /// How long to wait while the breaker is open.
    pub(crate) fn admit<'a>(&'a self, clock: &'a dyn Clock) -> Result<Admission<'a>, Duration> {
        let trial = self.0.lock().ask(clock.now())?;
        Ok(Admission { breaker: self, clock, trial, used: false })
    }

    /// How long the breaker stays open, if it is open.
    pub(crate) fn open_for(&self, now: Timestamp) -> Option<Duration> {
        self.0.lock().left(now)
    }

    pub(crate) fn state(&self, now: Timestamp) -> BreakerState {
        self.0.lock().state(now)
    }
}

/// Permission to send one question. If it is dropped unused, nothing was sent.
#[must_use]
pub(crate) struct Admission<'a> {
    breaker: &'a SharedBreaker,
    clock: &'a dyn Clock,
    /// Whether this is the half-open trial, whose answer the others wait for.
    trial: bool,
    used: bool,
}

impl Admission<'_> {
    /// The provider answered.
    pub(crate) fn answered(mut self) {
        self.used = true;
        self.breaker.0.lock().answered();
    }

    /// The provider did not answer, or not what was asked.
    pub(crate) fn failed(mut self, failure: &ProviderFailure) {
        self.used = true;
        let now = self.clock.now();
        self.breaker.0.lock().troubled(now, failure);
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.trial && !self.used {
            let now = self.clock.now();
            self.breaker.0.lock().unasked(now);
        }
    }
}
