//! Notices an app that does not run the background jobs.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether an app runs the jobs. Without them nothing is validated in the background, and nobody
/// notices for days.
#[derive(Default)]
pub(crate) struct JobsWatch {
    begun: AtomicBool,
    warned: AtomicBool,
}

impl JobsWatch {
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Warns once if nobody began them.
    pub(crate) fn warn_unless_begun(&self) {
        if !self.begun.load(Ordering::Relaxed) && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the background jobs do not run: tokens are not validated, and sign-outs reach the provider late or \
                 never; the app must spawn Engine::run"
            );
        }
    }
}
