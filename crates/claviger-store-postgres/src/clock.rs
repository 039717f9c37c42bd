//! What time it is for all instances: the database's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use claviger_core::time::Timestamp;
use claviger_store::StoreError;

use crate::{
    database::{Database, Link, bounds},
    error::Fault,
    values::Columns,
};

/// The clock is compared with the database's so often.
pub(crate) const EVERY: Duration = Duration::from_secs(15);
/// A comparison that took longer tells too little.
const SLOWEST: Duration = Duration::from_millis(500);

const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Tells the database's time: what it said last, and how long that is ago by a clock that nobody sets. So instances agree on
/// the time within the length of a round trip, however wrong their own clocks are, and go on agreeing while the
/// database is away.
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

    /// Now.
    pub fn now(&self) -> Timestamp {
        let start = Timestamp::from_millis(self.offset_millis.load(Ordering::Relaxed));
        start.after(self.started.elapsed())
    }

    /// Asks the database, and believes that it looked at its clock in the middle of the round trip.
    async fn compare(&self, database: &Database, slowest: Duration) -> Result<(), StoreError> {
        let (asked, answered, told) = database.read("read the clock", |link| self.ask(link)).await?;
        if answered.saturating_sub(asked) <= slowest {
            let start = told.before((asked + answered) / 2);
            self.offset_millis.store(start.as_millis(), Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ask(&self, link: Link) -> Result<(Duration, Duration, Timestamp), Fault> {
        let asked = self.started.elapsed();
        let row = link.query_one(NOW, &bounds![]).await?;
        let answered = self.started.elapsed();
        Ok((asked, answered, Columns::of(&row, "the clock").time()?))
    }

    /// Compares again and again, for ever.
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
