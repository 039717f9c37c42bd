//! Why something could not be done, and who must act.

use std::time::Duration;

use claviger_core::{
    policy::limits,
    session::{EndReason, Session, State},
};
use claviger_seal::{KeyId, OpenError};
use claviger_store::StoreError;

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It shows no session of ours. The user may sign in.
    #[error("nobody is signed in")]
    NoSession,
    /// The session has ended. The user may sign in again.
    #[error("the session has ended: {}", .0.name())]
    Ended(EndReason),
    /// The session's tokens cannot be renewed. The user must sign in again; the cookie is left alone.
    #[error("the sign-in must be renewed")]
    SignInAgain,
    /// The provider cannot say. Nobody is signed out; try again.
    #[error("the provider cannot be asked at the moment")]
    ProviderTrouble {
        /// When to try again.
        retry_after: Duration,
    },
    /// The provider refuses our own credentials. The operator must act; nobody is signed out.
    #[error("the provider refuses this app's credentials; the operator must check them")]
    Misconfigured,
    /// The store cannot be used. Nobody is signed out.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something was sealed with a key that is not configured. The operator must add it; nobody is signed out.
    #[error("key {} is not in the keyring; the operator must add it", .0.0)]
    UnknownKey(KeyId),
}

impl Denied {
    /// The denial that follows from a cookie that does not open.
    pub fn from_cookie(error: OpenError) -> Self {
        match error {
            OpenError::UnknownKey(id) => Self::UnknownKey(id),
            OpenError::Invalid => Self::NoSession,
        }
    }

    /// The denial that follows from a row that ended.
    pub(crate) fn of_ended(row: &Session) -> Self {
        match row.state {
            State::Ended { reason, .. } => Self::Ended(reason),
            _ => Self::NoSession,
        }
    }

    /// A task ended without an answer. Nobody is signed out.
    pub(crate) fn lost_task() -> Self {
        tracing::error!("a task for a session ended without an outcome");
        Self::ProviderTrouble { retry_after: limits::RETRY_AFTER }
    }

    /// The denial that follows from a row whose tokens do not open.
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
    /// This browser has no such sign-in under way: it took too long, or began elsewhere. Start again.
    #[error("no such sign-in is under way in this browser")]
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
    /// Too many sign-ins ask the provider at the moment. Nothing of this one is used up: the same callback may be tried again.
    #[error("too many sign-ins at once")]
    Busy,
    /// The provider does not accept the code any more.
    #[error("the provider did not accept the code")]
    CodeRejected,
    /// The new token belongs to another app, or to no user.
    #[error("the provider issued a token that is not for this app")]
    NotOurToken,
    /// The user granted less than the app needs.
    #[error("the provider granted less than was asked for")]
    ScopesMissing,
    /// The session was to be repaired, and the provider knows the browser as somebody else. Nothing is changed.
    #[error("the provider knows the browser as another user than the session's")]
    AnotherUser,
    /// The session was to be repaired, and has ended meanwhile. A repair revives nothing.
    #[error("the session that was to be repaired has ended")]
    SessionEnded,
    /// The provider cannot be asked. Try again.
    #[error("the provider cannot be asked at the moment")]
    ProviderTrouble {
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

/// Why sessions could not be ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndError {
    /// There is no such session, or it is somebody else's.
    #[error("no such device")]
    NotFound,
    /// The store cannot be used: nothing ended, or nobody can say.
    #[error(transparent)]
    Store(#[from] StoreError),
}
