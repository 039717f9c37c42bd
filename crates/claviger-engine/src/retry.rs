//! Repeats a write that must not be lost until the store takes it, and spaces out tries.

use std::time::Duration;

use claviger_core::limits;
use claviger_store::StoreError;

/// Repeats `write` until the store takes it. It ends only with the write, or with the process.
pub(crate) async fn until_stored<T, F>(write: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = limits::COMMIT_PAUSE;
    loop {
        match write().await {
            Ok(done) => return done,
            Err(error) => {
                tracing::warn!(%error, "a write that must not be lost is retried");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(limits::COMMIT_PAUSE_MAX);
    }
}

/// The pause after this number of earlier tries: it doubles with each of them, up to `max`.
pub(crate) fn doubled_pause(first: Duration, tries: u32, max: Duration) -> Duration {
    (first * 2u32.pow(tries.min(16))).min(max)
}
