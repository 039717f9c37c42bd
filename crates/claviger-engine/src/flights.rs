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
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = under_way.get(&id) {
            return flight.clone();
        }
        let landing = Landing { id, under_way: Arc::clone(&self.under_way) };
        let work = start();
        let task = self.tasks.spawn(async move {
            let _landing = landing;
            work.await
        });
        let flight = task.map(Result::ok).boxed().shared();
        under_way.insert(id, flight.clone());
        flight
    }

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
