//! Our clock, compared with a monotonic one and with the times that the provider's answers name.

use std::{sync::Arc, time::Duration};

use claviger_core::{ClockCheck, ClockState, Timestamp, clock::Asked};

use crate::{Env, Lock, metrics};

/// Watches our clock.
pub(crate) struct ClockWatch {
    env: Env,
    check: Lock<ClockCheck>,
}

impl ClockWatch {
    pub(crate) fn new(env: Env) -> Arc<Self> {
        let check = Lock::new(ClockCheck::new(env.now(), env.monotonic()));
        Arc::new(Self { env, check })
    }

    /// Looks whether the clock jumped.
    pub(crate) fn look(&self) {
        self.after_look(|_, _, _| ());
    }

    /// Marks the moment at which the provider is asked something.
    pub(crate) fn asks(&self) -> Asked {
        self.after_look(|check, now, monotonic| check.asks(now, monotonic))
    }

    /// Takes in the time that an answer of the provider names.
    pub(crate) fn answers(&self, asked: Asked, date: Option<Timestamp>) {
        match self.after_look(|check, _, monotonic| check.answers(asked, date, monotonic)) {
            None => {}
            Some(0) => tracing::info!("the clock agrees with the provider's"),
            Some(ahead_ms) => tracing::error!(
                provider_ahead_seconds = ahead_ms / 1000,
                "the clock differs from the provider's: set the clock of this computer, or of its database"
            ),
        }
    }

    /// The time that may end sessions, if the provider has confirmed the clock.
    pub(crate) fn confirmed(&self) -> Option<Timestamp> {
        self.after_look(|check, now, monotonic| check.confirmed(now, monotonic))
    }

    /// The time for claims.
    pub(crate) fn of_provider(&self) -> Timestamp {
        self.after_look(|check, now, _| check.of_provider(now))
    }

    /// A time on which all instances agree, if the provider has confirmed the clock.
    pub(crate) fn agreed(&self) -> Option<Timestamp> {
        self.after_look(|check, now, monotonic| check.agreed(now, monotonic))
    }

    pub(crate) fn is_untold(&self) -> bool {
        self.after_look(|check, _, _| check.is_untold())
    }

    pub(crate) fn state(&self) -> ClockState {
        self.after_look(|check, now, monotonic| check.state(now, monotonic))
    }

    /// Looks for a jump before anything else, so that none slips by between two looks.
    fn after_look<T>(&self, work: impl FnOnce(&mut ClockCheck, Timestamp, Duration) -> T) -> T {
        let mut check = self.check.lock();
        let (now, monotonic) = (self.env.now(), self.env.monotonic());
        let jump = check.look(now, monotonic);
        let done = work(&mut check, now, monotonic);
        drop(check);
        if let Some(jump) = jump {
            metrics::clock_jumped();
            tracing::warn!(
                seconds = jump.by_ms / 1000,
                "the clock jumped; until the provider names its time, no session ends by age or idleness"
            );
        }
        done
    }
}
