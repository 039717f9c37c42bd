//! How much the sweep has to do, and whether its budget suffices.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use claviger_core::{
    sweep::{needed_per_second, sufficient_budget},
    time::Timestamp,
};
use claviger_store::{Census, StoreError, Wheel};

use crate::{Engine, meter};

/// The last measurement, for who must not cost one.
#[derive(Default)]
pub(crate) struct Measured(Mutex<Option<Load>>);

/// How much the sweep has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// When it was measured.
    pub now: Timestamp,
    /// The sessions by state.
    pub census: Census,
    /// How long the slot that is due longest has waited for its visit.
    pub lag: Duration,
    /// Validations that the configuration allows in a second.
    pub configured_per_second: f64,
    /// Those that are allowed after the provider's last 429s.
    pub allowed_per_second: f64,
    /// Those that the live sessions need.
    pub needed_per_second: f64,
    /// The budget that would suffice for them and leave room to catch up.
    pub sufficient_per_second: f64,
}

impl Load {
    /// Whether the configured budget keeps up with the live sessions.
    pub fn budget_suffices(&self) -> bool {
        self.configured_per_second >= self.needed_per_second
    }
}

impl Engine {
    /// The load as it was measured last; none before the first time.
    pub fn load(&self) -> Option<Load> {
        *self.inner.measured.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures the load, and says so if the budget is too small for it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn measure_load(&self) -> Result<(), StoreError> {
        let store = &self.inner.parts.store;
        let census = store.census(self.now()).await?;
        let due = store.longest_due(Wheel::Validation).await?;
        let (now, period, bounds) = (self.now(), self.settings().sweep.period, self.pace_limits());
        // A slot that was never visited is as late as the oldest proof in it may be.
        let never = due.is_some_and(|due| due == Timestamp::EPOCH);
        let since = if never { census.oldest_proof.map(|at| at.after(period)) } else { due };
        let load = Load {
            now,
            census,
            lag: since.map_or(Duration::ZERO, |since| now.since(since)),
            configured_per_second: f64::from(bounds.ceiling_per_second),
            allowed_per_second: self.pace().await?.per_second(now, &bounds),
            needed_per_second: needed_per_second(census.live, period),
            sufficient_per_second: sufficient_budget(census.live, period),
        };
        meter::load(&load);
        if !load.budget_suffices() {
            tracing::error!(
                needed_per_second = load.needed_per_second,
                configured_per_second = load.configured_per_second,
                "the budget of validations is too small: set sweep.validations_per_second to at least {:.0}",
                load.sufficient_per_second.ceil()
            );
        }
        *self.inner.measured.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(load);
        Ok(())
    }
}
