//! One flight a session: callers that want the same thing at the same time share one task, and a caller that goes away
//! does not take the task with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use claviger_core::ids::SessionId;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// What callers wait for. None if the task was lost, as in a panic.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, Option<T>>>;

pub(crate) struct Flights<T: Clone> {
    under_way: Arc<Mutex<HashMap<SessionId, Flight<T>>>>,
    tasks: TaskTracker,
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    pub(crate) fn new(tasks: TaskTracker) -> Self {
        Self { under_way: Arc::default(), tasks }
    }

    /// The flight of this session that is under way, else the one that `start` begins.
    pub(crate) fn join<F>(&self, id: SessionId, start: impl FnOnce() -> F) -> Flight<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (land, landed) = oneshot::channel();
        let flight = landed.map(Result::ok).boxed().shared();
        {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = under_way.get(&id) {
                return flight.clone();
            }
            under_way.insert(id, flight.clone());
        }
        // Not under the lock: a runtime that is shutting down drops the task at once, and with it the landing.
        let landing = Landing { id, under_way: Arc::clone(&self.under_way) };
        let work = start();
        self.tasks.spawn(async move {
            let done = work.await;
            drop(landing);
            // Nobody waiting is fine.
            let _gone = land.send(done);
        });
        flight
    }

    /// Whether a flight of this session is under way.
    pub(crate) fn has(&self, id: SessionId) -> bool {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }
}

/// Clears the way for the next flight when a task ends, however it ends.
struct Landing<T: Clone> {
    id: SessionId,
    under_way: Arc<Mutex<HashMap<SessionId, Flight<T>>>>,
}

impl<T: Clone> Drop for Landing<T> {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use claviger_core::time::Timestamp;

    use super::*;

    #[test]
    fn what_a_runtime_drops_that_is_over_lands() {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let handle = runtime.handle().clone();
            drop(runtime);
            let _entered = handle.enter();
            let flights = Flights::<()>::new(TaskTracker::new());
            let id = SessionId::new(Timestamp::from_millis(1), [1; 10]);
            let flight = flights.join(id, || async {});
            tell.send((flight.now_or_never(), flights.has(id))).unwrap();
        });
        let came = told.recv_timeout(Duration::from_secs(10)).expect("nobody waits for a lock of its own");
        assert_eq!(came, (Some(None), false));
    }
}
