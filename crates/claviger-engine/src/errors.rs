//! Why something could not be done, and who must act.

use std::time::Duration;

use claviger_core::{EndReason, Session, SessionId, State, limits};
use claviger_seal::{KeyId, OpenError};
use claviger_store::StoreError;

use crate::settings::SettingsError;

/// Why an engine does not start. The operator must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// No engine can work with these settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It shows no session of ours. The user may sign in.
    #[error("nobody is signed in")]
    NoSession,
    /// The session has ended. The user may sign in again.
    #[error("the session has ended: {}", .0.name())]
    Ended(EndReason),
    /// The session's tokens cannot be renewed. The user must sign in again; the cookie is left
    /// alone.
    #[error("the sign-in must be renewed")]
    SignInAgain,
    /// The provider does not answer. Nobody is signed out; try again.
    #[error("the provider cannot be asked at the moment")]
    ProviderUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// The provider refuses our own credentials. The operator must act; nobody is signed out.
    #[error("the provider refuses this app's credentials; the operator must check them")]
    Misconfigured,
    /// The session's time is over by our clock, and the provider has not confirmed the clock.
    /// Nobody is signed out; try again.
    #[error("the server's clock is not confirmed")]
    ClockUnconfirmed {
        /// When to try again.
        retry_after: Duration,
    },
    /// The store cannot be used. Nobody is signed out.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something was sealed with a key that is not configured. The operator must add it; nobody is
    /// signed out.
    #[error("key {} is not in the keyring; the operator must add it", .0.0)]
    UnknownKey(KeyId),
}

impl Denied {
    /// The denial for a cookie that does not open.
    pub fn from_cookie(error: OpenError) -> Self {
        match error {
            OpenError::UnknownKey(id) => Self::UnknownKey(id),
            OpenError::Invalid => Self::NoSession,
        }
    }

    /// The denial for a row that ended.
    pub(crate) fn of_ended(row: &Session) -> Self {
        match row.state {
            State::Ended { reason, .. } => Self::Ended(reason),
            _ => Self::NoSession,
        }
    }

    /// The denial after a task that ended without an answer. Nobody is signed out.
    pub(crate) fn lost_task() -> Self {
        tracing::error!("a task for a session ended without an outcome");
        Self::ProviderUnavailable { retry_after: limits::RETRY_AFTER }
    }

    /// For work on many rows: the store's failure ends it, and any other denial concerns this row
    /// alone. None then, so that the row is left out.
    pub(crate) fn leave_out<T>(result: Result<T, Self>, row: SessionId) -> Result<Option<T>, StoreError> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(Self::Store(error @ StoreError::Corrupt(_))) => {
                tracing::error!(session = %row, %error, "a token cannot be validated");
                Ok(None)
            }
            Err(Self::Store(error)) => Err(error),
            // A missing key was logged.
            Err(_) => Ok(None),
        }
    }

    /// The denial for a row whose tokens do not open.
    pub(crate) fn from_row(error: OpenError) -> Self {
        match error {
            OpenError::UnknownKey(id) => {
                tracing::error!(
                    key = id.0,
                    "stored tokens need a key that is not in the keyring; nobody was signed out"
                );
                Self::UnknownKey(id)
            }
            OpenError::Invalid => Self::Store(claviger_store::corrupt("a sealed token does not open")),
        }
    }
}

/// Why a sign-in did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// This browser has no such sign-in in progress: it took too long, or began elsewhere. Start
    /// again.
    #[error("no such sign-in is in progress in this browser")]
    Stale,
    /// The callback was used before, as by a reload. Start again.
    #[error("this sign-in was finished before")]
    AlreadyUsed,
    /// The user said no at the provider.
    #[error("the user denied access")]
    DeniedByUser,
    /// The provider sent the browser back with an error.
    #[error("the provider refused the sign-in: {0}")]
    RefusedByProvider(String),
    /// The callback names another provider than the one asked (RFC 9207).
    #[error("the answer came from another provider")]
    WrongIssuer,
    /// Too many codes of this client, or of all together, were exchanged in vain or are being
    /// exchanged. The same callback may be tried again, since nothing of it is used up.
    #[error("too many sign-ins at once")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The provider no longer accepts the code.
    #[error("the provider did not accept the code")]
    CodeRejected,
    /// The new token belongs to another app, or to no user.
    #[error("the provider issued a token that is not for this app")]
    NotOurToken,
    /// The user granted less than the app needs.
    #[error("the provider granted less than was asked for")]
    ScopesMissing,
    /// The session was to be repaired, but another user is signed in at the provider. Nothing is
    /// changed.
    #[error("another user than the session's is signed in at the provider")]
    AnotherUser,
    /// The session was to be repaired, but has ended. A repair revives nothing.
    #[error("the session that was to be repaired has ended")]
    SessionEnded,
    /// The provider cannot be asked. Try again.
    #[error("the provider cannot be asked at the moment")]
    ProviderUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// The provider refuses our own credentials. The operator must act.
    #[error("the provider refuses this app's credentials; the operator must check them")]
    Misconfigured,
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sign-in was sealed with a key that is not configured.
    #[error("key {} is not in the keyring; the operator must add it", .0.0)]
    UnknownKey(KeyId),
}

impl LoginError {
    /// A stable name of the kind, for programs, logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stale => "sign_in_stale",
            Self::AlreadyUsed => "sign_in_used",
            Self::DeniedByUser => "access_denied",
            Self::RefusedByProvider(_) => "refused_by_provider",
            Self::WrongIssuer => "wrong_issuer",
            Self::Busy { .. } => "too_many_sign_ins",
            Self::CodeRejected => "code_rejected",
            Self::NotOurToken => "not_our_token",
            Self::ScopesMissing => "scopes_missing",
            Self::AnotherUser => "another_user",
            Self::SessionEnded => "session_ended",
            Self::ProviderUnavailable { .. } => "provider_unavailable",
            Self::Misconfigured => "misconfigured",
            Self::Store(_) => "store_unavailable",
            Self::UnknownKey(_) => "key_missing",
        }
    }
}

/// Why a kept destination could not be looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// This client, or all together, look up too many.
    #[error("too many kept destinations are looked up at once")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why sessions could not be ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndError {
    /// There is no such session, or it belongs to another user.
    #[error("no such device")]
    NotFound,
    /// The store cannot be used. Whether anything ended is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
}
