//! Singleflight: callers that want the same thing of one session at the same time share one task. A
//! caller that is dropped does not stop the task.

use std::{collections::HashMap, sync::Arc};

use claviger_core::SessionId;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::Lock;

/// What callers wait for. None if the task was lost, as in a panic.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, Option<T>>>;

/// One task per session at a time.
pub(crate) struct Singleflight<T: Clone> {
    in_flight: Arc<Lock<HashMap<SessionId, Flight<T>>>>,
    tasks: TaskTracker,
}

impl<T: Clone + Send + Sync + 'static> Singleflight<T> {
    pub(crate) fn new(tasks: &TaskTracker) -> Self {
        Self { in_flight: Arc::default(), tasks: tasks.clone() }
    }

    /// The task of this session that is in flight, else the one that `start` begins.
    pub(crate) fn join<F>(&self, id: SessionId, start: impl FnOnce() -> F) -> Flight<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let flight = answered.map(Result::ok).boxed().shared();
        {
            let mut in_flight = self.in_flight.lock();
            if let Some(flight) = in_flight.get(&id) {
                return flight.clone();
            }
            in_flight.insert(id, flight.clone());
        }
        // Not under the lock: a runtime that is shutting down drops the task at once, and with it
        // the guard.
        let guard = RemoveOnDrop { id, in_flight: Arc::clone(&self.in_flight) };
        let work = start();
        self.tasks.spawn(async move {
            let done = work.await;
            drop(guard);
            // It fails only while nobody waits.
            let _ = answer.send(done);
        });
        flight
    }

    /// Whether a task of this session is in flight.
    pub(crate) fn has(&self, id: SessionId) -> bool {
        self.in_flight.lock().contains_key(&id)
    }
}

/// Clears the way for the next task when one ends, however it ends.
struct RemoveOnDrop<T: Clone> {
    id: SessionId,
    in_flight: Arc<Lock<HashMap<SessionId, Flight<T>>>>,
}

impl<T: Clone> Drop for RemoveOnDrop<T> {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use claviger_core::Timestamp;

    use super::*;

    #[test]
    fn a_task_that_a_finished_runtime_drops_ends_its_flight() {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let handle = runtime.handle().clone();
            drop(runtime);
            let _entered = handle.enter();
            let singleflight = Singleflight::<()>::new(&TaskTracker::new());
            let id = SessionId::new(Timestamp::from_millis(1), [1; 10]);
            let flight = singleflight.join(id, || async {});
            tell.send((flight.now_or_never(), singleflight.has(id))).unwrap();
        });
        let came = told.recv_timeout(Duration::from_secs(10)).expect("no deadlock");
        assert_eq!(came, (Some(None), false));
    }
}
