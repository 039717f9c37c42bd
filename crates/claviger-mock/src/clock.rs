//! The one file that reads the clock and the system's randomness.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time now in Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "the socket is where time enters the mock")]
pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// A seed for a mock without one.
#[expect(clippy::disallowed_methods, reason = "the command line is where randomness enters the mock")]
pub(crate) fn random_seed() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
