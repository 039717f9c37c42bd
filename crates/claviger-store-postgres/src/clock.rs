//! The database's clock, which all instances share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use claviger_core::Timestamp;
use claviger_store::{StoreError, codec::ColumnReader as _};

use crate::{
    database::{Database, PooledConnection, bounds},
    error::Fault,
    values::Columns,
};

/// Interval between two comparisons with the database's clock.
pub(crate) const EVERY: Duration = Duration::from_secs(15);
/// A comparison that takes longer is too inexact to use.
const SLOWEST: Duration = Duration::from_millis(500);

const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Estimates the database's time: its last answer, plus the time since then by the monotonic clock.
///
/// So instances agree within one round trip, however wrong their own clocks are. They go on
/// agreeing while the database is away.
#[derive(Clone, Debug)]
pub struct DatabaseClock {
    started: Instant,
    /// The database's time at `started`, in milliseconds.
    offset_millis: Arc<AtomicI64>,
}

impl DatabaseClock {
    pub(crate) async fn read(database: &Database) -> Result<Self, StoreError> {
        let clock = Self { started: instant(), offset_millis: Arc::new(AtomicI64::new(0)) };
        clock.compare(database, Duration::MAX).await?;
        Ok(clock)
    }

    /// The database's time now.
    pub fn now(&self) -> Timestamp {
        let start = Timestamp::from_millis(self.offset_millis.load(Ordering::Relaxed));
        start.after(self.started.elapsed())
    }

    /// The time since this clock was made, by the clock of this computer that nobody sets.
    pub fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    /// Asks the database for its time, and assumes that it read its clock in the middle of the
    /// round trip.
    async fn compare(&self, database: &Database, slowest: Duration) -> Result<(), StoreError> {
        let (asked, answered, told) =
            database.read("read the clock", |connection| self.ask(connection)).await?;
        if answered.saturating_sub(asked) <= slowest {
            let start = told.before((asked + answered) / 2);
            self.offset_millis.store(start.as_millis(), Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ask(&self, connection: PooledConnection) -> Result<(Duration, Duration, Timestamp), Fault> {
        let asked = self.started.elapsed();
        let row = connection.query_one(NOW, &bounds![]).await?;
        let answered = self.started.elapsed();
        Ok((asked, answered, Columns::of(&row, "the clock").time()?))
    }

    /// Compares the clocks at each interval, for ever.
    pub(crate) async fn keep(self, database: Database) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.compare(&database, SLOWEST).await {
                tracing::debug!(%error, "the clock was not compared with the database's");
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the store that reads a clock, and none that is set"
)]
fn instant() -> Instant {
    Instant::now()
}
