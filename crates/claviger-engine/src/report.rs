//! What an operator looks at: the same numbers for metrics and for the status command.

use claviger_core::{BreakerState, ClockState, Timestamp};
use claviger_store::{Backlog, StoreError};

use crate::{Load, Resealing, StoreState, Subscribed, Wiring, metrics};

/// The state of the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// When this was asked for.
    pub now: Timestamp,
    /// The circuit breakers.
    pub breakers: Breakers,
    /// What fails at the store.
    pub store: StoreState,
    /// The pending revocations. None if the store cannot be read.
    pub outbox: Option<Backlog>,
    /// The sessions and the sweep, as they were last counted. None before the first time.
    pub load: Option<Load>,
    /// Whether the provider reports by itself that a user disconnected the app.
    pub subscribed: Subscribed,
    /// What older keys sealed.
    pub resealing: Resealing,
    /// Our clock.
    pub clock: ClockState,
}

/// The circuit breakers, one per kind of question to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breakers {
    /// Refreshes.
    pub refreshes: BreakerState,
    /// Validations of access tokens.
    pub proofs: BreakerState,
}

impl Report {
    /// The state of the engine. It costs one read of the store and one write.
    pub(crate) async fn of(parts: &Wiring) -> Self {
        let outbox = parts.outbox.backlog().await.ok();
        Self {
            now: parts.env.now(),
            breakers: Breakers::of(parts),
            store: parts.store_health.state().await,
            outbox,
            load: parts.load.last(),
            subscribed: parts.subscriber.status(),
            resealing: parts.resealer.progress(),
            clock: parts.clock_watch.state(),
        }
    }
}

impl Breakers {
    fn of(parts: &Wiring) -> Self {
        Self { refreshes: parts.refresher.breaker_state(), proofs: parts.validator.breaker_state() }
    }
}

/// Sets the gauges that do not change as things happen. The breakers' do not wait for the store.
pub(crate) async fn set_gauges(parts: &Wiring) -> Result<(), StoreError> {
    let breakers = Breakers::of(parts);
    metrics::breakers(breakers.refreshes, breakers.proofs);
    metrics::clock(&parts.clock_watch.state());
    metrics::outbox(&parts.outbox.backlog().await?, parts.env.now());
    Ok(())
}
