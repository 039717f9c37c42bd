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

use crate::{
    database::{Database, Link, Work},
    replace,
};

/// So many rows go into one statement at most.
const TOGETHER: usize = 200;
/// So many wait at most. More than a database writes while anybody has the patience to wait.
const WAITING: usize = 20_000;
/// A writer that gets no connection, or no answer, for so long makes room for another. Without a connection it holds nobody's row.
const KEPT_WAITING: Duration = Duration::from_millis(100);

/// Writes rows that differ in claim or pair from those that they were made from.
pub(crate) struct Gatherer {
    database: Database,
    writers: usize,
    /// Somebody waits for a writer so long.
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

/// A row, and the caller that wants it written. Who went away, or waited too long, takes no turn any more, and is not written.
struct Waiting {
    next: Session,
    turn: oneshot::Sender<Outcome>,
}

/// What a statement that a row went into will come to. Whoever has it is written, and waits for it.
type Outcome = oneshot::Receiver<Written>;

/// False: something else is stored by now, or somebody has the row locked, or nothing was written.
type Written = Result<bool, StoreError>;

/// Rows that go into one statement, and their callers in the same order.
type Batch = (Vec<Session>, Vec<oneshot::Sender<Written>>);

impl Gatherer {
    /// So many `writers` are busy at a time.
    pub(crate) fn new(database: Database, writers: usize, patience: Duration) -> Arc<Self> {
        let (writers, state, runtime) = (writers.max(1), Mutex::default(), Handle::current());
        Arc::new(Self { database, writers, patience, state, runtime })
    }

    /// Writes `next`: at once, or together with others as soon as a writer is free.
    pub(crate) async fn write(self: &Arc<Self>, next: &Session) -> Result<Replaced, StoreError> {
        let written = match self.enter(next)? {
            Entrance::Writer(writer) => return writer.write_one(next).await,
            Entrance::Waits(turn) => self.wait(turn).await?,
        };
        if written { Ok(Replaced::Done) } else { self.alone(next).await }
    }

    /// Waits for the turn for so long only, but then for what it comes to, since that can no longer be taken back.
    async fn wait(&self, mut turn: oneshot::Receiver<Outcome>) -> Written {
        let outcome = match timeout(self.patience, &mut turn).await {
            Ok(outcome) => outcome.ok(),
            Err(_) => {
                turn.close();
                turn.try_recv().ok()
            }
        };
        let Some(outcome) = outcome else {
            return Err(StoreError::Unavailable("the change was not written in time".to_owned()));
        };
        let cut_short = |_| Err(StoreError::Unavailable("the change was cut short".to_owned()));
        outcome.await.unwrap_or_else(cut_short)
    }

    async fn alone(&self, next: &Session) -> Result<Replaced, StoreError> {
        self.database.write("change", |link| replace::change_one(link, next)).await
    }

    async fn one(&self, link: Link, next: &Session) -> Result<Replaced, StoreError> {
        match self.database.on(link, |link| replace::change_one(link, next)).await {
            Err(fault) if fault.is_collision() => self.alone(next).await,
            done => Ok(done?),
        }
    }

    async fn together(&self, link: Link, next: &[Session]) -> Vec<Written> {
        match self.database.on(link, |link| replace::change_all(link, next)).await {
            Ok(written) => written.into_iter().map(Ok).collect(),
            Err(fault) => vec![Err(fault.into()); next.len()],
        }
    }

    fn enter(self: &Arc<Self>, next: &Session) -> Result<Entrance, StoreError> {
        let mut state = self.state();
        if state.writing < self.writers {
            state.writing += 1;
            return Ok(Entrance::Writer(Writer(Arc::clone(self))));
        }
        let queue = if replace::has_new_pair(next) { &mut state.pairs } else { &mut state.claims };
        if queue.len() >= WAITING {
            return Err(StoreError::Unavailable("too many changes wait to be written".to_owned()));
        }
        let (turn, comes) = oneshot::channel();
        queue.push_back(Waiting { next: next.clone(), turn });
        Ok(Entrance::Waits(comes))
    }

    /// Those whose turn it is.
    fn next_batch(&self) -> Batch {
        let mut state = self.state();
        let Gathered { pairs, claims, .. } = &mut *state;
        let (mut rows, mut callers) = Batch::default();
        while rows.len() < TOGETHER {
            let Some(Waiting { next, turn }) = pairs.pop_front().or_else(|| claims.pop_front()) else {
                break;
            };
            let (written, outcome) = oneshot::channel();
            if turn.send(outcome).is_ok() {
                rows.push(next);
                callers.push(written);
            }
        }
        (rows, callers)
    }

    /// Whether anybody waits. If not, there is a writer less.
    fn goes_on(&self) -> bool {
        let mut state = self.state();
        let waits = !(state.pairs.is_empty() && state.claims.is_empty());
        state.writing -= usize::from(!waits);
        waits
    }

    fn state(&self) -> MutexGuard<'_, Gathered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entrance {
    Writer(Writer),
    Waits(oneshot::Receiver<Outcome>),
}

/// The right to write one statement. It goes on to those who wait when it is dropped, however that comes.
struct Writer(Arc<Gatherer>);

impl Drop for Writer {
    fn drop(&mut self) {
        if self.0.goes_on() {
            let gatherer = Arc::clone(&self.0);
            // Nobody is the next writer before the task runs, so a runtime that ends and drops it is not asked for another.
            self.0.runtime.spawn(async move { Self(gatherer).write_together().await });
        }
    }
}

impl Writer {
    async fn write_one(self, next: &Session) -> Result<Replaced, StoreError> {
        let gatherer = Arc::clone(&self.0);
        let work = async { gatherer.one(gatherer.database.link(Work::Write).await?, next).await };
        self.busy_with(work).await
    }

    /// Nobody's turn comes before there is a connection: until then who waits may still give up.
    async fn write_together(self) {
        let gatherer = Arc::clone(&self.0);
        let work = async {
            let link = gatherer.database.link(Work::Write).await;
            let (rows, callers) = gatherer.next_batch();
            let written = match link {
                _ if rows.is_empty() => return,
                Ok(link) => gatherer.together(link, &rows).await,
                Err(fault) => vec![Err(fault.into()); rows.len()],
            };
            for (caller, written) in callers.into_iter().zip(written) {
                // Who went away meanwhile does not want to know.
                let _gone = caller.send(written);
            }
        };
        self.busy_with(work).await;
    }

    /// Is a writer until the work is done, but not for as long as the work is kept waiting.
    async fn busy_with<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = timeout(KEPT_WAITING, &mut work).await {
            return done;
        }
        drop(self);
        work.await
    }
}
