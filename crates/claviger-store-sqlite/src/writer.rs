//! The writer: a thread with its own connection. Each commit covers all jobs that wait at that
//! moment.
//!
//! A commit that survives a power cut waits for the disk, and that limits the whole store. So the
//! jobs that arrive during one commit share the next. Each job has a savepoint and fails alone.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc as blocking,
    },
    thread,
    time::{Duration, Instant},
};

use claviger_store::StoreError;
use rusqlite::Connection;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{error::Fault, file::Hold};

/// Maximum number of queued jobs. Later callers wait for a free place.
const WAITING_JOBS: usize = 1024;
/// Maximum number of jobs in one commit.
const BATCH_JOBS: usize = 256;
/// What a caller learns that waited too long.
pub(crate) const HANGS: &str =
    "its disk does not answer in time; is it overloaded, or is a network disk cut off?";
/// How long dropping the store waits for accepted jobs.
const CLOSING: Duration = Duration::from_secs(10);

pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    patience: Duration,
    commit: Arc<Commit>,
    /// Disconnects when the thread ends. In a mutex only because a receiver cannot be shared.
    ended: Mutex<blocking::Receiver<()>>,
}

/// When the commit under way began. The thread writes it down, so that it is known although no
/// task of the runtime gets on.
struct Commit {
    opened: Instant,
    /// In milliseconds after `opened`. 0: none is under way.
    began: AtomicU64,
    /// A commit that takes longer says that the disk does not answer.
    slow: Duration,
}

impl Commit {
    #[expect(clippy::disallowed_methods, reason = "how long the disk takes concerns no session")]
    fn new(slow: Duration) -> Self {
        Self { opened: Instant::now(), began: AtomicU64::new(0), slow }
    }

    fn begin(&self) {
        self.began.store(self.elapsed().max(1), Ordering::Relaxed);
    }

    fn end(&self) {
        self.began.store(0, Ordering::Relaxed);
    }

    fn is_slow(&self) -> bool {
        let began = self.began.load(Ordering::Relaxed);
        began > 0 && u128::from(self.elapsed().saturating_sub(began)) > self.slow.as_millis()
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Writer {
    /// Starts the thread. It owns the lock on the file, so no other process writes before it is
    /// done. A caller waits for at most `patience`.
    pub(crate) fn start(connection: Connection, hold: Hold, patience: Duration) -> std::io::Result<Self> {
        let commit = Arc::new(Commit::new(patience / 10));
        let own = Arc::clone(&commit);
        let (jobs, waiting) = mpsc::channel(WAITING_JOBS);
        let (running, ended) = blocking::channel();
        thread::Builder::new().name("claviger-sqlite".to_owned()).spawn(move || {
            let _running: blocking::Sender<()> = running;
            let _hold = hold;
            write_all(&connection, waiting, &own);
            if connection.close().is_err() {
                tracing::warn!("the session store did not close cleanly; it is recovered when next opened");
            }
        })?;
        Ok(Self { jobs: Some(jobs), patience, commit, ended: Mutex::new(ended) })
    }

    /// Whether the disk does not answer.
    pub(crate) fn hangs(&self) -> bool {
        self.commit.is_slow()
    }

    /// Runs and commits `work`. Once accepted, it is done even if the caller is dropped or waited
    /// too long.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Unavailable("the writer has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        let task = Task { work: Some(work), result: None, reply };
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        let Ok(accepted) = timeout(self.patience, jobs.send(Box::new(task))).await else {
            return Err(StoreError::Unreachable(HANGS.to_owned()));
        };
        accepted.map_err(|_| stopped())?;
        let Ok(answer) = timeout(self.patience, answer).await else {
            return Err(StoreError::Unavailable(HANGS.to_owned()));
        };
        answer.map_err(|_| stopped())?
    }

    /// Accepts no more jobs, and waits for a limited time until the accepted ones are done.
    pub(crate) fn close(&mut self) {
        self.jobs = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(CLOSING) == Err(blocking::RecvTimeoutError::Timeout) {
            tracing::warn!(
                "the session store still writes what it accepted; it goes on while the process lives"
            );
        }
    }
}

trait Job: Send {
    /// Runs the work and keeps its result.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// Sends the result to the caller, after the commit has succeeded or failed.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Task<T, W> {
    work: Option<W>,
    /// `None` until the work has run to its end.
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W> Job for Task<T, W>
where
    T: Send,
    W: FnOnce(&Connection) -> Result<T, Fault> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let work = self.work.take().ok_or_else(unfinished)?;
        let result = work(connection).map_err(|Fault(error)| error);
        let ran = result.as_ref().map(drop).map_err(Clone::clone);
        self.result = Some(result);
        ran
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match (self.result, committed) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(unfinished()),
        };
        // The caller may have been dropped.
        let _ = self.reply.send(answer);
    }
}

fn unfinished() -> StoreError {
    StoreError::Unavailable("the write was not finished".to_owned())
}

fn write_all(connection: &Connection, mut waiting: mpsc::Receiver<Box<dyn Job>>, commit: &Commit) {
    while let Some(first) = waiting.blocking_recv() {
        commit.begin();
        let mut batch = vec![first];
        while batch.len() < BATCH_JOBS
            && let Ok(next) = waiting.try_recv()
        {
            batch.push(next);
        }
        let committed = write_batch(connection, &mut batch).map_err(|Fault(error)| error);
        commit.end();
        for job in batch {
            job.answer(committed.clone());
        }
    }
}

/// Runs the jobs in one transaction. If the transaction fails, no job leaves anything.
fn write_batch(connection: &Connection, batch: &mut [Box<dyn Job>]) -> Result<(), Fault> {
    let committed = run_and_commit(connection, batch);
    if committed.is_err() && !connection.is_autocommit() {
        execute(connection, ROLLBACK)?;
    }
    committed
}

fn run_and_commit(connection: &Connection, batch: &mut [Box<dyn Job>]) -> Result<(), Fault> {
    execute(connection, BEGIN)?;
    for job in batch {
        execute(connection, SAVEPOINT)?;
        let ran =
            catch_unwind(AssertUnwindSafe(|| job.run(connection))).unwrap_or_else(|_| Err(unfinished()));
        if let Err(error) = ran {
            // Some errors roll back the transaction (sqlite.org/lang_transaction.html, section 3),
            // and with it the earlier jobs.
            if connection.is_autocommit() {
                return Err(Fault(error));
            }
            execute(connection, UNDO)?;
        }
        execute(connection, RELEASE)?;
    }
    execute(connection, COMMIT)
}

const BEGIN: &str = "BEGIN IMMEDIATE";
const SAVEPOINT: &str = "SAVEPOINT job";
const UNDO: &str = "ROLLBACK TO job";
const RELEASE: &str = "RELEASE job";
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";

fn execute(connection: &Connection, sql: &str) -> Result<(), Fault> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
