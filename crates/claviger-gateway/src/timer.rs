//! The runtime's clock, by which connections and bodies are timed. Tests pause it.

use tokio::time::Instant;

/// The present.
#[expect(clippy::disallowed_methods, reason = "how long a client is silent concerns no session")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
