//! What a provider says of whether users still let the app in.

use claviger_core::{Connection, ProviderFailure};

use crate::app::Fault;

/// What a provider answered to a connection check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionsAnswer {
    /// What is known of each user, in the order of the question. Nothing is proven of a user who is
    /// not named here.
    Known(Vec<(String, Connection)>),
    /// The app's token is dead: get a new one and ask again.
    TokenDead,
    /// Our client is wrong.
    Misconfigured,
    /// Nothing is proven.
    Unknown(ProviderFailure),
}

impl From<Fault> for ConnectionsAnswer {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TokenDead => Self::TokenDead,
            Fault::Misconfigured => Self::Misconfigured,
            Fault::Unknown(failure) => Self::Unknown(failure),
        }
    }
}
