//! Claims and new pairs of several sessions, written together: what comes up while others are being written goes into one
//! statement, and one commit. Nobody waits for company.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::session::Session;
use claviger_store::{Replaced, StoreError};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use crate::{database::Database, sessions};

/// So many rows go into one statement at most.
const TOGETHER: usize = 200;
/// So many wait at most. More than a database writes while anybody has the patience to wait.
const WAITING: usize = 20_000;
/// A writer that is kept waiting for longer makes room for another. The connections bound how many there can be.
const KEPT_WAITING: Duration = Duration::from_millis(100);

/// Writes rows that differ in claim or pair from those that they were made from.
pub(crate) struct Gatherer {
    database: Database,
    writers: usize,
    /// Somebody waits for a writer, and for what it writes, so long.
    patience: Duration,
    state: Mutex<Gathered>,
    runtime: Handle,
}

#[derive(Default)]
struct Gathered {
    /// So many statements are under way.
    writing: usize,
    /// They go first: a pair that is not written is lost, and a claim that is not, is not sent.
    pairs: VecDeque<Waiting>,
    claims: VecDeque<Waiting>,
}

/// A row, and who wants to know whether it was written.
struct Waiting {
    next: Session,
    written: oneshot::Sender<Written>,
}

/// False: something else is stored by now, or somebody has the row locked, or nothing was written.
type Written = Result<bool, StoreError>;

impl Gatherer {
    /// So many `writers` are busy at a time.
    pub(crate) fn new(database: Database, writers: usize, patience: Duration) -> Arc<Self> {
        let (writers, state, runtime) = (writers.max(1), Mutex::default(), Handle::current());
        Arc::new(Self { database, writers, patience, state, runtime })
    }

    /// Writes `next`: at once, or together with others as soon as a writer is free.
    pub(crate) async fn write(self: &Arc<Self>, next: &Session) -> Result<Replaced, StoreError> {
        match self.enter(next)? {
            Entrance::Writer(writer) => writer.busy_with(self.alone(next)).await,
            Entrance::Waits(told) => match timeout(self.patience, told).await {
                Ok(Ok(Ok(true))) => Ok(Replaced::Done),
                Ok(Ok(Ok(false))) => self.alone(next).await,
                Ok(Ok(Err(error))) => Err(error),
                Ok(Err(_)) => Err(StoreError::Unavailable("the change was cut short".to_owned())),
                Err(_) => Err(StoreError::Unavailable("the change was not written in time".to_owned())),
            },
        }
    }

    async fn alone(&self, next: &Session) -> Result<Replaced, StoreError> {
        self.database.write("change", |link| sessions::change_one(link, next)).await
    }

    async fn together(&self, next: &[Session]) -> Vec<Written> {
        let work = |link| sessions::change_all(link, next);
        match self.database.write("change all", work).await {
            Ok(written) => written.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); next.len()],
        }
    }

    fn enter(self: &Arc<Self>, next: &Session) -> Result<Entrance, StoreError> {
        let mut state = self.state();
        if state.writing < self.writers {
            state.writing += 1;
            return Ok(Entrance::Writer(Writer(Arc::clone(self))));
        }
        let queue = if sessions::has_new_pair(next) { &mut state.pairs } else { &mut state.claims };
        if queue.len() >= WAITING {
            return Err(StoreError::Unavailable("too many changes wait to be written".to_owned()));
        }
        let (written, told) = oneshot::channel();
        queue.push_back(Waiting { next: next.clone(), written });
        Ok(Entrance::Waits(told))
    }

    /// Those who go into the next statement. Who went away, or waited too long, is not written any more.
    fn next_batch(&self) -> Vec<Waiting> {
        let mut state = self.state();
        let Gathered { writing, pairs, claims } = &mut *state;
        let mut batch = Vec::new();
        while batch.len() < TOGETHER {
            let Some(next) = pairs.pop_front().or_else(|| claims.pop_front()) else { break };
            if !next.written.is_closed() {
                batch.push(next);
            }
        }
        if batch.is_empty() {
            *writing -= 1;
        }
        batch
    }

    fn state(&self) -> MutexGuard<'_, Gathered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entrance {
    Writer(Writer),
    Waits(oneshot::Receiver<Written>),
}

/// The right to write one statement. It goes on to those who wait when it is dropped, however that comes.
struct Writer(Arc<Gatherer>);

impl Drop for Writer {
    fn drop(&mut self) {
        let batch = self.0.next_batch();
        if !batch.is_empty() {
            self.0.runtime.spawn(Self(Arc::clone(&self.0)).write(batch));
        }
    }
}

impl Writer {
    /// Is a writer until the work is done, but not for as long as the work is kept waiting.
    async fn busy_with<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = timeout(KEPT_WAITING, &mut work).await {
            return done;
        }
        drop(self);
        work.await
    }

    async fn write(self, batch: Vec<Waiting>) {
        let (next, told): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.next, one.written)).unzip();
        let gatherer = Arc::clone(&self.0);
        let written = self.busy_with(gatherer.together(&next)).await;
        for (told, written) in told.into_iter().zip(written) {
            // Who went away meanwhile does not want to know.
            let _gone = told.send(written);
        }
    }
}
