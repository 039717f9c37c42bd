//! A lock for short critical sections.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex that a panic does not poison: no critical section leaves its value half changed.
#[derive(Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
