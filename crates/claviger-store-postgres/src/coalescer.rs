//! Writes claims and new pairs of several sessions together. Changes that arrive while a statement
//! runs share the next statement and commit. No change waits for more to arrive.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::Change;
use claviger_store::{Applied, StoreError};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use crate::{
    apply,
    database::{Database, PooledConnection, Work},
    sessions,
};

/// At most this many rows go into one statement.
const TOGETHER: usize = 200;
/// At most this many changes wait. A database cannot write more than this before their callers give
/// up.
const WAITING: usize = 20_000;
/// A writer that gets no connection or answer for this long lets another start. Without a
/// connection it holds no row.
const KEPT_WAITING: Duration = Duration::from_millis(100);

/// Combines concurrent claims and new pairs into common statements.
pub(crate) struct WriteCoalescer {
    database: Database,
    writers: usize,
    /// How long a caller waits for its turn.
    patience: Duration,
    state: Mutex<CoalescerState>,
    runtime: Handle,
}

#[derive(Default)]
struct CoalescerState {
    /// Number of statements that are running.
    writing: usize,
    /// They go first: an unwritten pair is lost, and an unwritten claim only delays its refresh.
    pairs: VecDeque<Waiting>,
    claims: VecDeque<Waiting>,
}

/// A row and its waiting caller. A row whose caller was dropped or timed out is skipped.
struct Waiting {
    change: Change,
    turn: oneshot::Sender<Outcome>,
}

/// The outcome of the statement that a row went into. A caller that receives it has had its turn,
/// and waits for the result.
type Outcome = oneshot::Receiver<Written>;

/// False: the row was changed meanwhile or is locked, or nothing was written.
type Written = Result<bool, StoreError>;

/// The rows of one statement, and their callers in the same order.
type Batch = (Vec<Change>, Vec<oneshot::Sender<Written>>);

impl WriteCoalescer {
    /// At most `writers` statements run at a time.
    pub(crate) fn new(database: Database, writers: usize, patience: Duration) -> Arc<Self> {
        let (writers, state, runtime) = (writers.max(1), Mutex::default(), Handle::current());
        Arc::new(Self { database, writers, patience, state, runtime })
    }

    /// Writes a change: at once if a writer is free, else together with others as soon as one is.
    pub(crate) async fn write(self: &Arc<Self>, change: &Change) -> Result<Applied, StoreError> {
        let written = match self.enter(change)? {
            Entrance::Writer(writer) => return writer.write_one(change).await,
            Entrance::Waits(turn) => self.wait(turn).await?,
        };
        if written { Ok(Applied::Done) } else { self.alone(change).await }
    }

    /// Waits for the turn for limited time, then without limit for the result: a started write
    /// cannot be taken back.
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
        let cut_short = |_| Err(StoreError::Unavailable("the change was interrupted".to_owned()));
        outcome.await.unwrap_or_else(cut_short)
    }

    async fn alone(&self, change: &Change) -> Result<Applied, StoreError> {
        self.database.write("change", |connection| sessions::apply(connection, change)).await
    }

    async fn one(&self, connection: PooledConnection, change: &Change) -> Result<Applied, StoreError> {
        match self.database.on(connection, |connection| sessions::apply(connection, change)).await {
            Err(fault) if fault.is_collision() => self.alone(change).await,
            done => Ok(done?),
        }
    }

    async fn together(&self, connection: PooledConnection, changes: &[Change]) -> Vec<Written> {
        match self.database.on(connection, |connection| apply::claims_and_pairs(connection, changes)).await {
            Ok(written) => written.into_iter().map(Ok).collect(),
            Err(fault) => vec![Err(fault.into()); changes.len()],
        }
    }

    fn enter(self: &Arc<Self>, change: &Change) -> Result<Entrance, StoreError> {
        let mut state = self.state();
        if state.writing < self.writers {
            state.writing += 1;
            return Ok(Entrance::Writer(Writer(Arc::clone(self))));
        }
        let queue = if change.has_new_pair() { &mut state.pairs } else { &mut state.claims };
        if queue.len() >= WAITING {
            return Err(StoreError::Unavailable("too many changes wait to be written".to_owned()));
        }
        let (turn, comes) = oneshot::channel();
        queue.push_back(Waiting { change: change.clone(), turn });
        Ok(Entrance::Waits(comes))
    }

    /// Takes the next rows to write.
    fn next_batch(&self) -> Batch {
        let mut state = self.state();
        let CoalescerState { pairs, claims, .. } = &mut *state;
        let (mut rows, mut callers) = Batch::default();
        while rows.len() < TOGETHER {
            let Some(Waiting { change, turn }) = pairs.pop_front().or_else(|| claims.pop_front()) else {
                break;
            };
            let (written, outcome) = oneshot::channel();
            if turn.send(outcome).is_ok() {
                rows.push(change);
                callers.push(written);
            }
        }
        (rows, callers)
    }

    /// Whether anybody waits. If not, one writer ends.
    fn goes_on(&self) -> bool {
        let mut state = self.state();
        let waits = !(state.pairs.is_empty() && state.claims.is_empty());
        state.writing -= usize::from(!waits);
        waits
    }

    fn state(&self) -> MutexGuard<'_, CoalescerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entrance {
    Writer(Writer),
    Waits(oneshot::Receiver<Outcome>),
}

/// The right to write one statement. Dropping it in any way passes it on to the waiting callers.
struct Writer(Arc<WriteCoalescer>);

impl Drop for Writer {
    fn drop(&mut self) {
        if self.0.goes_on() {
            let coalescer = Arc::clone(&self.0);
            // The next writer exists only once the task runs. So a runtime that shuts down and
            // drops the task does not spawn another.
            self.0.runtime.spawn(async move { Self(coalescer).write_together().await });
        }
    }
}

impl Writer {
    async fn write_one(self, change: &Change) -> Result<Applied, StoreError> {
        let coalescer = Arc::clone(&self.0);
        let work = async { coalescer.one(coalescer.database.connection(Work::Write).await?, change).await };
        self.busy_with(work).await
    }

    /// No row gets its turn before there is a connection. Until then a waiting caller may still
    /// give up.
    async fn write_together(self) {
        let coalescer = Arc::clone(&self.0);
        let work = async {
            let connection = coalescer.database.connection(Work::Write).await;
            let (rows, callers) = coalescer.next_batch();
            let written = match connection {
                _ if rows.is_empty() => return,
                Ok(connection) => coalescer.together(connection, &rows).await,
                Err(fault) => vec![Err(fault.into()); rows.len()],
            };
            for (caller, written) in callers.into_iter().zip(written) {
                // A dropped caller needs no answer.
                let _gone = caller.send(written);
            }
        };
        self.busy_with(work).await;
    }

    /// Counts as a writer until the work is done, except while the work is kept waiting.
    async fn busy_with<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = timeout(KEPT_WAITING, &mut work).await {
            return done;
        }
        drop(self);
        work.await
    }
}
