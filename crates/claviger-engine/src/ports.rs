//! What the engine needs of the world.

use async_trait::async_trait;
use bytes::Bytes;
use claviger_core::time::Timestamp;
use claviger_provider::Unanswered;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Gives random bytes fit for keys.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the buffer.
    fn fill(&self, bytes: &mut [u8]);
}

/// Sends one request to the provider and gives the whole answer, or says how far the request got.
///
/// It never sends twice by itself: neither a retry nor a redirect.
#[async_trait]
pub trait ProviderHttp: Send + Sync + 'static {
    /// Sends.
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
