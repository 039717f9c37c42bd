//! The background jobs: every loop of the engine stands in [`JOBS`], with its name and when it
//! runs. ARCHITECTURE.md lists the loops of the other crates.
//!
//! To add a job, add a line. Its work is a method of a part that does the work once.

use std::time::Duration;

use claviger_core::limits;
use claviger_store::StoreError;
use futures_util::future::{BoxFuture, FutureExt, TryFutureExt, join_all};
use tokio::{sync::Notify, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{Wiring, report::set_gauges};
use When::{Always, Every, Signal};

/// A background job.
struct Job {
    name: &'static str,
    when: When,
    work: Work,
}

type Work = fn(&Wiring) -> BoxFuture<'_, Result<Next, StoreError>>;

/// When a job runs. Each job runs once at the start.
enum When {
    /// Once in this time.
    Every(Duration),
    /// When this signal is given, and this long after its last run at the latest.
    Signal(fn(&Wiring) -> &Notify, Duration),
    /// All the time: its work is a loop of its own.
    Always,
}

/// When a job runs next.
enum Next {
    /// As the table says.
    Regular,
    /// After this time, unless its signal is given before.
    After(Duration),
}

const JOBS: &[Job] = &[
    // First, because the jobs are polled in this order: memory must not fall behind the others.
    job("follow the change feed", Always, |parts| regular(parts.change_feed.follow().map(Ok))),
    job("close streams while cut off", Every(secs(1)), |parts| {
        parts.rows.close_streams_if_cut_off();
        regular(std::future::ready(Ok(())))
    }),
    job("watch the clock", Every(limits::CLOCK_LOOK_EVERY), |parts| {
        parts.clock_watch.look();
        regular(std::future::ready(Ok(())))
    }),
    job("look for trouble of the store", Every(secs(60)), |parts| {
        regular(parts.store_health.look_for_trouble().map(Ok))
    }),
    job("write the last-seen times", Every(secs(5)), |parts| regular(parts.last_seen.flush())),
    job("set gauges", Every(secs(10)), |parts| regular(set_gauges(parts))),
    job("end overdue sessions", Every(secs(60)), |parts| regular(parts.housekeeping.end_overdue())),
    job("purge", Every(secs(60 * 60)), |parts| regular(parts.housekeeping.purge())),
    job("measure the load", Every(secs(60)), |parts| regular(parts.load.measure())),
    job("carry out revocations", Signal(|parts| parts.outbox.added(), secs(5)), |parts| {
        regular(parts.outbox.revoke_due())
    }),
    job(
        "investigate suspicions",
        Signal(|parts| parts.disconnects.noted(), limits::SUSPICIONS_LOOK_EVERY),
        |parts| regular(parts.disconnects.investigate_due()),
    ),
    job("validate due tokens", Every(limits::SWEEP_LOOK_EVERY), |parts| regular(parts.sweep.validate_due())),
    job("check due connections", Every(limits::CONNECTION_CHECK_LOOK_EVERY), |parts| {
        regular(parts.connection_sweep.check_due())
    }),
    job("keep the webhook subscription", Always, |parts| regular(parts.subscriber.keep_subscribed().map(Ok))),
    job("keep the keys of assertions", Every(limits::SIGNING_KEYS_LOOK_EVERY), |parts| {
        regular(parts.assertions.keys().look())
    }),
    job(
        "seal rows with the newest key",
        Signal(|parts| parts.resealer.keys_changed(), limits::RESEAL_LOOK_EVERY),
        |parts| parts.resealer.reseal().map_ok(after_reseal).boxed(),
    ),
];

const fn job(name: &'static str, when: When, work: Work) -> Job {
    Job { name, when, work }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Work after which the job runs again as the table says.
fn regular<'a, T: 'a>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'a,
) -> BoxFuture<'a, Result<Next, StoreError>> {
    work.map_ok(|_| Next::Regular).boxed()
}

/// Counting what is left scans all rows. So it is done less often while nothing is left.
fn after_reseal(left: u64) -> Next {
    if left == 0 { Next::After(limits::RESEAL_LOOK_EVERY_IDLE) } else { Next::Regular }
}

/// Runs all jobs until `stop`.
pub(crate) async fn run(parts: &Wiring, stop: &CancellationToken) {
    // Work that is cancelled goes on from where it stood at the next start. `stop` is looked at
    // first, so that no run begins after it and takes leases that nobody uses.
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        _ = join_all(JOBS.iter().map(|job| job.keep_running(parts))) => {}
    }
}

/// Writes down what is in memory and lets tasks finish, within [`limits::SHUTDOWN_DRAIN`].
pub(crate) async fn drain(parts: &Wiring) {
    let tasks = parts.env.tasks();
    tasks.close();
    if tokio::time::timeout(limits::SHUTDOWN_DRAIN, tasks.wait()).await.is_err() {
        tracing::error!("some tasks did not finish in time; their rows are recovered at the next start");
    }
    if let Err(error) = parts.last_seen.flush().await {
        tracing::error!(%error, "the last-seen times of some sessions could not be written down");
    }
}

impl Job {
    async fn keep_running(&self, parts: &Wiring) {
        match self.when {
            Every(period) => {
                let mut ticks = tokio::time::interval(period);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    self.run(parts).await;
                }
            }
            Signal(signal, period) => loop {
                let pause = match self.run(parts).await {
                    Next::Regular => period,
                    Next::After(pause) => pause,
                };
                // Both the signal and the end of the pause start the next run.
                let _ = tokio::time::timeout(pause, signal(parts).notified()).await;
            },
            Always => {
                self.run(parts).await;
            }
        }
    }

    async fn run(&self, parts: &Wiring) -> Next {
        (self.work)(parts).await.unwrap_or_else(|error| {
            // An outage is logged by `store_health`, for all who meet it.
            if error.is_outage() {
                tracing::debug!(%error, job = self.name, "a background job failed; it is tried again");
            } else {
                tracing::error!(%error, job = self.name, "a background job failed; it is tried again");
            }
            Next::Regular
        })
    }
}
