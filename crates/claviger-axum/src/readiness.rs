//! Whether the store can be used, asked at most once a second.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use claviger_core::Timestamp;
use claviger_engine::Engine;
use tokio::sync::Mutex;

/// The last answer about the store. A check costs a write, and anybody may ask.
#[derive(Default)]
pub(crate) struct Readiness {
    last: Mutex<Option<(Timestamp, bool)>>,
    /// Whether the process is about to stop.
    stopping: AtomicBool,
}

/// How long an answer is kept.
const FRESH: Duration = Duration::from_secs(1);

impl Readiness {
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Returns whether the store can be used, or could a moment ago.
    pub(crate) async fn of(&self, engine: &Engine) -> bool {
        let mut last = self.last.lock().await;
        match *last {
            Some((at, ready)) if at.age(engine.now()).is_some_and(|age| age < FRESH) => ready,
            _ => {
                let ready = engine
                    .store()
                    .check()
                    .await
                    .inspect_err(|error| tracing::debug!(%error, "not ready: the store failed"))
                    .is_ok();
                *last = Some((engine.now(), ready));
                ready
            }
        }
    }
}
