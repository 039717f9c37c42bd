//! Why a sign-in failed, and the one line about it in the log.

use claviger_core::Timestamp;
use claviger_provider::Said;

use crate::{LogThrottles, LoginError};

/// Why a sign-in failed, and what the provider said if it was asked.
pub(super) struct Failed {
    pub(super) error: LoginError,
    said: Option<Said>,
}

impl Failed {
    pub(super) fn at_provider(error: LoginError, said: Said) -> Self {
        Self { error, said: Some(said) }
    }

    /// Logs one failure of each kind in a minute, since anybody can cause one.
    pub(super) fn log(&self, throttles: &LogThrottles, now: Timestamp) {
        let Self { error, said } = self;
        let Some(left_out) = throttles.allows(error.name(), now) else { return };
        let endpoint = said.as_ref().map(|said| said.endpoint.as_str());
        let status = said.as_ref().and_then(|said| said.status);
        let words = said.as_ref().and_then(|said| said.words.as_deref());
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    %error, endpoint, status, said = words, left_out,
                    "a sign-in failed; more of this kind within a minute are only counted, in left_out"
                )
            };
        }
        match error {
            LoginError::Misconfigured | LoginError::NotOurToken if said.is_some() => log!(error),
            LoginError::ProviderUnavailable { .. } if said.is_some() => log!(warn),
            _ => log!(info),
        }
    }
}

impl<E: Into<LoginError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), said: None }
    }
}
