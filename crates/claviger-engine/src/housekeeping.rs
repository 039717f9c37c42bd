//! Ends sessions whose time is over, and deletes what nobody needs any more.

use std::sync::Arc;

use claviger_core::{Timestamp, limits, request};
use claviger_store::{Leftover, Store, StoreError};

use crate::{CheckedClock, EndError, Env, LastSeen, Rows, part::part};

part! {
    /// Cleans up.
    pub(crate) struct Housekeeping needs {
        env: Env,
        store: Arc<dyn Store>,
        rows: Arc<Rows>,
        clock: Arc<CheckedClock>,
        last_seen: Arc<LastSeen>,
    }
}

impl Housekeeping {
    /// Ends the sessions whose time is over, by a clock that the provider has confirmed.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub(crate) async fn end_overdue(&self) -> Result<(), StoreError> {
        self.last_seen.flush().await?;
        let lifetimes = &self.env.settings().lifetimes;
        let overdue = async |now: Timestamp, limit| {
            self.store.overdue(now.before(lifetimes.idle), now.before(lifetimes.absolute), limit).await
        };
        // The provider need not be asked for the time while no session's time is over.
        if overdue(self.env.now(), 1).await?.is_empty() {
            return Ok(());
        }
        while let Some(now) = self.clock.confirmed().await {
            let overdue = overdue(now, limits::BATCH_ROWS).await?;
            let mut damaged = 0;
            for id in &overdue {
                let row = match self.rows.peek_stored(*id).await {
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
                let Some(reason) = request::time_is_over(&row, now, lifetimes) else { continue };
                let over = |row: &_| request::time_is_over(row, now, lifetimes).is_some();
                match self.rows.end_one(*id, reason, over).await {
                    Ok(_) | Err(EndError::NotFound) => {}
                    Err(EndError::Store(error)) => return Err(error),
                }
            }
            if overdue.len() < limits::BATCH_ROWS || damaged == overdue.len() {
                break;
            }
        }
        Ok(())
    }

    /// Deletes tombstones that no cookie can name any more, states of sign-ins that are long over,
    /// and closed suspicions whose cause cannot be reported again. Nothing is deleted by a clock
    /// that the provider has not confirmed.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub(crate) async fn purge(&self) -> Result<(), StoreError> {
        let Some(now) = self.clock.confirmed().await else { return Ok(()) };
        let leftovers = [
            (Leftover::Tombstones, now.before(self.env.settings().lifetimes.absolute)),
            (Leftover::SpentLogins, now),
            (Leftover::ClosedSuspicions, now.before(limits::SUSPICION_GIVEN_UP_AFTER)),
        ];
        for (what, until) in leftovers {
            while self.store.purge(what, until, limits::BATCH_ROWS).await? == limits::BATCH_ROWS {}
        }
        Ok(())
    }
}
