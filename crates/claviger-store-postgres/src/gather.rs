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
/// A writer that is kept waiting for longer, by who has its row locked, makes room for another.
const KEPT_WAITING: Duration = Duration::from_millis(100);

/// Writes rows that differ in claim or pair from those that they were made from.
pub(crate) struct Gatherer {
    database: Database,
    writers: usize,
    state: Mutex<Gathered>,
    runtime: Handle,
}

#[derive(Default)]
struct Gathered {
    /// So many statements are under way.
    writing: usize,
    waiting: VecDeque<Waiting>,
}

/// A row, and who wants to know whether it was written.
struct Waiting {
    next: Session,
    written: oneshot::Sender<Result<bool, StoreError>>,
}

impl Gatherer {
    /// So many `writers` are busy at a time.
    pub(crate) fn new(database: Database, writers: usize) -> Arc<Self> {
        let (writers, state, runtime) = (writers.max(1), Mutex::default(), Handle::current());
        Arc::new(Self { database, writers, state, runtime })
    }

    /// Writes `next`: at once, or together with others as soon as a writer is free.
    pub(crate) async fn write(self: &Arc<Self>, next: &Session) -> Result<Replaced, StoreError> {
        match self.enter(next) {
            Entrance::Writer(writer) => {
                let mut alone = pin!(self.alone(next));
                if let Ok(replaced) = timeout(KEPT_WAITING, &mut alone).await {
                    return replaced;
                }
                drop(writer);
                alone.await
            }
            Entrance::Waits(told) => match told.await {
                Ok(Ok(true)) => Ok(Replaced::Done),
                // Something else is stored by now, or somebody has the row locked.
                Ok(Ok(false)) => self.alone(next).await,
                Ok(Err(error)) => Err(error),
                Err(_) => Err(StoreError::Unavailable("the change was cut short".to_owned())),
            },
        }
    }

    async fn alone(&self, next: &Session) -> Result<Replaced, StoreError> {
        self.database.write("change", |link| sessions::change_one(link, next)).await
    }

    fn enter(self: &Arc<Self>, next: &Session) -> Entrance {
        let mut state = self.state();
        if state.writing < self.writers {
            state.writing += 1;
            return Entrance::Writer(Writer(Arc::clone(self)));
        }
        let (written, told) = oneshot::channel();
        state.waiting.push_back(Waiting { next: next.clone(), written });
        Entrance::Waits(told)
    }

    fn state(&self) -> MutexGuard<'_, Gathered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entrance {
    Writer(Writer),
    Waits(oneshot::Receiver<Result<bool, StoreError>>),
}

/// The right to write one statement. It goes on to those who wait when it is dropped, however that comes.
struct Writer(Arc<Gatherer>);

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let together = state.waiting.len().min(TOGETHER);
        let batch: Vec<Waiting> = state.waiting.drain(..together).collect();
        if batch.is_empty() {
            state.writing -= 1;
            return;
        }
        drop(state);
        let next = Self(Arc::clone(&self.0));
        self.0.runtime.spawn(next.write(batch));
    }
}

impl Writer {
    async fn write(self, batch: Vec<Waiting>) {
        let (next, told): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.next, one.written)).unzip();
        let work = |link| sessions::change_all(link, &next);
        let written = match self.0.database.write("change all", work).await {
            Ok(written) => written.into_iter().map(Ok).collect(),
            // Nothing was written, and one damaged row must not keep the others: each is written alone.
            Err(StoreError::Corrupt(_)) => vec![Ok(false); next.len()],
            Err(error) => vec![Err(error); next.len()],
        };
        for (told, written) in told.into_iter().zip(written) {
            // Who went away meanwhile does not want to know.
            let _gone = told.send(written);
        }
    }
}
