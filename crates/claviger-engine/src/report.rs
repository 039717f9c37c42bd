//! What an operator looks at: the same numbers for metrics and for the status command.

use std::sync::{Mutex, PoisonError};

use claviger_core::time::Timestamp;
use claviger_store::{Backlog, StoreError};

use crate::{Breakers, Engine, load::Load, reseal::Resealing};

/// How things are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// When this was asked for.
    pub now: Timestamp,
    /// Which kinds of questions the provider is asked.
    pub breakers: Breakers,
    /// The revocations that are owed.
    pub outbox: Backlog,
    /// The sessions and the sweep, as they were counted last. None before the first time.
    pub load: Option<Load>,
    /// Whether the provider tells by itself that a user disconnected the app.
    pub subscribed: Subscribed,
    /// What older keys sealed.
    pub resealing: Resealing,
}

/// Whether the provider's notices come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Subscribed {
    /// None are wanted.
    #[default]
    Unwanted,
    /// They will, once the provider has been asked for them, or has asked our address.
    Waiting,
    /// The provider refuses the subscription; the operator must act.
    Refused,
    /// They do.
    Works,
}

/// How the subscription was found when it was last looked at.
#[derive(Default)]
pub(crate) struct LastSubscribed(Mutex<Subscribed>);

impl LastSubscribed {
    pub(crate) fn set(&self, subscribed: Subscribed) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = subscribed;
    }

    fn at(&self) -> Subscribed {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// How things are. It costs one look into the store; the sessions were counted before.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn report(&self) -> Result<Report, StoreError> {
        let (store, now) = (&self.inner.parts.store, self.now());
        let subscribed = match self.inner.last_subscribed.at() {
            Subscribed::Unwanted if self.wants_notices() => Subscribed::Waiting,
            subscribed => subscribed,
        };
        Ok(Report {
            now,
            breakers: self.breakers(),
            outbox: store.owed_backlog().await?,
            load: self.load(),
            subscribed,
            resealing: self.resealing(),
        })
    }
}
