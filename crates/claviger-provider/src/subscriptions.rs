//! Subscriptions to a provider's messages: what is known of them, and what is to be done.

use claviger_core::ProviderFailure;

use crate::app::Fault;

/// A subscription as the provider describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: String,
    /// Its status, in the provider's word.
    pub status: String,
    /// What it is about.
    pub kind: String,
    /// Which version of that.
    pub version: Option<String>,
    /// Where its messages go, if they go to an address.
    pub callback: Option<String>,
    /// Whose users it is about, if it says so.
    pub client_id: Option<String>,
}

/// What the provider answered to a request for a list of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListAnswer {
    /// A page of the list.
    Page {
        /// The subscriptions on it. One that has no readable id, type or status is left out.
        subscriptions: Vec<Subscription>,
        /// What to ask for the next page with, if there is one.
        next: Option<String>,
    },
    /// The app's token is dead: get a new one and ask again.
    TokenDead,
    /// Our client is wrong.
    Misconfigured,
    /// Nothing is known.
    Unknown(ProviderFailure),
}

/// What the provider answered to a request for a new subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateAnswer {
    /// It is there, under this id, and waits for the challenge to be answered.
    Created(String),
    /// There is one already with this type, condition and address.
    Exists,
    /// The app's token is dead: get a new one and ask again.
    TokenDead,
    /// Our client, or what we asked for, is wrong, and the operator must act. The provider's reason
    /// is for reading only.
    Refused(String),
    /// It may be there or not: look at the list. A limit on the number of subscriptions answers 429
    /// too.
    Unknown(ProviderFailure),
}

/// What the provider answered to a request that a subscription end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteAnswer {
    /// It is no longer there, now or already before.
    Done,
    /// The app's token is dead: get a new one and ask again.
    TokenDead,
    /// It may be there or not: look at the list.
    Unknown(ProviderFailure),
}

/// What is to be done so that there is one good subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The ids of those to end, before a new one is asked for.
    pub delete: Vec<String>,
    /// Whether one is missing.
    pub create: bool,
    /// Whether the one that stays works already. Otherwise it waits to be verified.
    pub works: bool,
}

impl From<Fault> for ListAnswer {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TokenDead => Self::TokenDead,
            Fault::Misconfigured => Self::Misconfigured,
            Fault::Unknown(failure) => Self::Unknown(failure),
        }
    }
}
