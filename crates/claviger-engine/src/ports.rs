//! What the engine needs of the world: a clock, random bytes, and HTTP to the provider.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use claviger_core::Timestamp;
use claviger_provider::Unanswered;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;

    /// The time since some moment, by a clock that nobody sets. It tells when [`Clock::now`] jumps.
    /// By default no jump is noticed.
    fn monotonic(&self) -> Duration {
        self.now().since(Timestamp::EPOCH)
    }
}

/// Gives random bytes fit for keys.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the buffer.
    fn fill(&self, bytes: &mut [u8]);
}

/// Sends one request to the provider and gives the whole answer, or says how far the request got.
///
/// An implementation neither retries nor follows redirects.
#[async_trait]
pub trait ProviderHttp: Send + Sync + 'static {
    /// Sends the request once.
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Unanswered>;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place of the engine that reads the clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::EPOCH.after(since_epoch)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place of the engine that reads this clock")]
    fn monotonic(&self) -> Duration {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        FIRST.get_or_init(Instant::now).elapsed()
    }
}

/// The operating system's random bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    #[expect(clippy::disallowed_methods, reason = "the one place of the engine that draws random bytes")]
    #[expect(clippy::panic, reason = "without random bytes nothing safe can be done")]
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            panic!("the operating system gives no random bytes: {error}");
        }
    }
}
