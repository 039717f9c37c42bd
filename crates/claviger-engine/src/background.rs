//! What goes on beside the requests: uses are written down, sessions whose time is over end, revocations are carried
//! out, tokens are validated, suspicions are looked into, tombstones are purged.

use std::time::Duration;

use claviger_core::{policy::limits, request::time_is_over};
use claviger_store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::{Engine, errors::EndError, meter};

const USES_EVERY: Duration = Duration::from_secs(5);
const GAUGES_EVERY: Duration = Duration::from_secs(10);
const CENSUS_EVERY: Duration = Duration::from_secs(60);
const OVERDUE_EVERY: Duration = Duration::from_secs(60);
const PURGE_EVERY: Duration = Duration::from_secs(60 * 60);

impl Engine {
    /// Works until `stop`, then writes down what is in memory and lets work in flight finish, within a bound.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(
            self.every(USES_EVERY, &stop, || async { self.write_uses().await }),
            self.every(GAUGES_EVERY, &stop, || async { self.take_gauges().await }),
            self.every(OVERDUE_EVERY, &stop, || async { self.end_overdue().await }),
            self.every(PURGE_EVERY, &stop, || async { self.purge().await }),
            self.every(CENSUS_EVERY, &stop, || async { self.measure_load().await }),
            self.keep_settling(&stop),
            self.keep_confirming(&stop),
            self.keep_sweeping(&stop),
            self.keep_probing(&stop),
            self.keep_subscribed(&stop),
            self.keep_hearing(&stop),
            self.keep_resealing(&stop),
        );
        self.drain().await;
    }

    /// Writes down what is in memory and lets work in flight finish, within [`limits::SHUTDOWN_DRAIN`].
    pub async fn drain(&self) {
        self.inner.tasks.close();
        if tokio::time::timeout(limits::SHUTDOWN_DRAIN, self.inner.tasks.wait()).await.is_err() {
            tracing::error!("work in flight did not finish in time; its rows tell of it at the next start");
        }
        if let Err(error) = self.write_uses().await {
            tracing::error!(%error, "the last uses of sessions could not be written down");
        }
    }

    pub(crate) async fn every<F>(&self, period: Duration, stop: &CancellationToken, work: impl Fn() -> F)
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // Work that is cut short goes on from where it stood at the next start.
            if let Some(Err(error)) = stop.run_until_cancelled(work()).await {
                tracing::error!(%error, "background work has to wait");
            }
        }
    }

    async fn keep_settling(&self, stop: &CancellationToken) {
        loop {
            match stop.run_until_cancelled(self.settle_owed()).await {
                None => return,
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::error!(%error, "revocations have to wait"),
            }
            let wake = tokio::time::timeout(USES_EVERY, self.inner.owed.notified());
            if stop.run_until_cancelled(wake).await.is_none() {
                return;
            }
        }
    }

    /// Measures what is not counted as it happens.
    async fn take_gauges(&self) -> Result<(), StoreError> {
        meter::breakers(self.breakers());
        meter::report(&self.report().await?);
        Ok(())
    }

    /// Writes down when sessions were last used.
    pub(crate) async fn write_uses(&self) -> Result<(), StoreError> {
        let uses = self.inner.touches.take();
        if uses.is_empty() {
            return Ok(());
        }
        let engine = self.clone();
        self.detached(async move {
            let written = engine.inner.parts.store.touch(&uses).await;
            if written.is_err() {
                engine.inner.touches.put_back(uses);
            }
            written
        })
        .await
    }

    /// Ends the sessions whose time is over.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn end_overdue(&self) -> Result<(), StoreError> {
        self.write_uses().await?;
        let lifetimes = self.settings().lifetimes;
        loop {
            let now = self.now();
            let (idle_since, created_until) = (now.before(lifetimes.idle), now.before(lifetimes.absolute));
            let overdue =
                self.inner.parts.store.overdue(idle_since, created_until, limits::BATCH_ROWS).await?;
            let mut damaged = 0;
            for id in &overdue {
                let row = match self.inner.parts.store.load(*id).await {
                    Ok(Some(row)) => row,
                    Ok(None) => continue,
                    // One damaged row must not keep the others.
                    Err(error @ StoreError::Corrupt(_)) => {
                        tracing::error!(session = %id, %error, "a session whose time is over cannot be ended");
                        damaged += 1;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let Some(reason) = time_is_over(&row, now, &lifetimes) else { continue };
                let meant = |row: &_| time_is_over(row, now, &lifetimes).is_some();
                match self.end_one(*id, reason, meant).await {
                    Ok(_) | Err(EndError::NotFound) => {}
                    Err(EndError::Store(error)) => return Err(error),
                }
            }
            if overdue.len() < limits::BATCH_ROWS || damaged == overdue.len() {
                return Ok(());
            }
        }
    }

    /// Deletes tombstones that no cookie can name any more, and states of sign-ins that are long over.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn purge(&self) -> Result<(), StoreError> {
        let now = self.now();
        let created_until = now.before(self.settings().lifetimes.absolute);
        while self.inner.parts.store.purge(created_until, limits::BATCH_ROWS).await? == limits::BATCH_ROWS {}
        while self.inner.parts.store.forget_logins(now, limits::BATCH_ROWS).await? == limits::BATCH_ROWS {}
        self.forget_suspicions(now).await?;
        Ok(())
    }
}
