//! How much work the sweep has, and whether its rate limit suffices.

use std::{sync::Arc, time::Duration};

use claviger_core::{Timestamp, sweep};
use claviger_store::{Queue, SessionCounts, Store, StoreError, SweepKind};

use crate::{Env, Lock, ProviderClient, SharedRateLimit, metrics, part::part};

/// How much work the sweep has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// When it was measured.
    pub now: Timestamp,
    /// The sessions by state.
    pub census: SessionCounts,
    /// How long the most overdue slot has been due.
    pub lag: Duration,
    /// Validations per second that the configuration allows.
    pub configured_per_second: f64,
    /// Validations per second that are allowed after the provider's last 429s.
    pub allowed_per_second: f64,
    /// Validations per second that the live sessions need.
    pub needed_per_second: f64,
    /// The rate that would suffice for them and leave room to catch up.
    pub sufficient_per_second: f64,
}

impl Load {
    /// Whether the configured rate keeps up with the live sessions.
    pub fn budget_suffices(&self) -> bool {
        self.configured_per_second >= self.needed_per_second
    }
}

part! {
    /// Measures the load, and keeps the last measurement.
    pub(crate) struct LoadMeter needs {
        env: Env,
        store: Arc<dyn Store>,
        provider: Arc<ProviderClient>,
        rate_limit: Arc<SharedRateLimit>,
    } owns {
        last: Lock<Option<Load>> = Lock::default(),
    }
}

impl LoadMeter {
    /// The last measurement. None before the first one.
    pub(crate) fn last(&self) -> Option<Load> {
        *self.last.lock()
    }

    /// Measures the load, and logs an error if the rate limit is too low for it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) async fn measure(&self) -> Result<(), StoreError> {
        let census = self.store.session_counts(self.env.now()).await?;
        let due = self.store.backlog(Queue::Slots(SweepKind::Validation)).await?.oldest;
        let (now, period) = (self.env.now(), self.env.settings().sweep.period);
        let bounds = self.rate_limit.bounds();
        // A slot that was never visited is as late as the oldest proof in it may be.
        let never = due.is_some_and(|due| due == Timestamp::EPOCH);
        let since = if never { census.oldest_proof.map(|at| at.after(period)) } else { due };
        let validated = if self.provider.has_validation() { census.live } else { 0 };
        let load = Load {
            now,
            census,
            lag: since.map_or(Duration::ZERO, |since| now.since(since)),
            configured_per_second: f64::from(bounds.ceiling_per_second),
            allowed_per_second: self.rate_limit.current().await?.per_second(now, &bounds),
            needed_per_second: sweep::needed_per_second(validated, period),
            sufficient_per_second: sweep::sufficient_budget(validated, period),
        };
        metrics::sessions(&census, now);
        metrics::sweep_lag(load.lag);
        metrics::validation_budget(
            load.configured_per_second,
            load.allowed_per_second,
            load.needed_per_second,
        );
        if !load.budget_suffices() {
            tracing::error!(
                needed_per_second = load.needed_per_second,
                configured_per_second = load.configured_per_second,
                "the rate limit of validations is too low: set sweep.validations_per_second to at least {:.0}",
                load.sufficient_per_second.ceil()
            );
        }
        *self.last.lock() = Some(load);
        Ok(())
    }
}
