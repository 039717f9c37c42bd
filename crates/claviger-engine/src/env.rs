//! What every part may use: the time, random bytes, the settings, and tasks that a shutdown waits
//! for.

use std::{sync::Arc, time::Duration};

use claviger_core::{AttemptId, Timestamp, limits};
use claviger_seal::Nonce;
use claviger_store::{LeaseTerms, StoreError};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::{Clock, Entropy, Settings};

/// Time, random bytes, settings and tasks. Cheap to clone; all clones share the same tasks.
#[derive(Clone)]
pub(crate) struct Env {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    settings: Arc<Settings>,
    tasks: TaskTracker,
}

impl Env {
    pub(crate) fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, settings: Settings) -> Self {
        Self { clock, entropy, settings: Arc::new(settings), tasks: TaskTracker::new() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time since some moment, by a clock that nobody sets.
    pub(crate) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The tasks that a shutdown waits for.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }

    pub(crate) fn nonce(&self) -> Nonce {
        self.random()
    }

    /// The terms of a lease that begins now, in a queue whose items are put off for at most
    /// `longest`.
    pub(crate) fn lease(&self, length: Duration, longest: Duration) -> LeaseTerms {
        let now = self.now();
        let latest_due = now.after(length.max(longest) + limits::CLOCK_SKEW);
        LeaseTerms { holder: AttemptId(self.random()), now, until: now.after(length), latest_due }
    }

    /// Starts a task that a shutdown waits for.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn(work)
    }

    /// Does a write and takes note of it, even if the caller is dropped in between. Otherwise
    /// memory would vouch for a row that the store no longer has.
    pub(crate) async fn detached<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let lost = |_| Err(StoreError::Unavailable("a task ended without an outcome".to_owned()).into());
        self.spawn(work).await.unwrap_or_else(lost)
    }
}
