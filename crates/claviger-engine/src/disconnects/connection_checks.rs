//! Connection checks: asks the provider whether users are still connected.

use std::sync::Arc;

use claviger_core::{Connection, limits};
use claviger_provider::ConnectionsAnswer;
use claviger_store::StoreError;

use crate::{AppToken, ControlUser, Lock, NoToken, ProviderClient, metrics, part::part};

/// What the provider says about some users. Users that it says nothing about are left out.
pub(crate) type Connections = Vec<(String, Connection)>;

part! {
    /// Asks about users.
    pub(crate) struct ConnectionChecks needs {
        provider: Arc<ProviderClient>,
        app_token: Arc<AppToken>,
        control_user: Arc<ControlUser>,
    } owns {
        recent: Lock<Recent> = Lock::default(),
    }
}

/// The answers about the users that were checked last.
#[derive(Default)]
struct Recent {
    /// Number of users.
    asked: usize,
    /// Number of those that are gone, as the provider says.
    gone: usize,
}

impl ConnectionChecks {
    /// At most this many users are asked about at a time. None if the provider has no connection
    /// check.
    pub(crate) fn users_at_once(&self) -> Option<usize> {
        self.provider.connection_check().map(|check| check.users_at_once().max(1))
    }

    /// Asks the provider about users, as many at most as it allows at a time. The answer is empty
    /// if the provider did not say anything.
    pub(crate) async fn ask(&self, ids: &[String]) -> Result<Connections, StoreError> {
        let Some(check) = self.provider.connection_check() else { return Ok(Vec::new()) };
        let has_room = ids.len() < check.users_at_once();
        let control_user = if has_room { self.control_user.beside(ids).await? } else { None };
        let asked: Vec<_> = ids.iter().chain(&control_user).cloned().collect();
        let mut dead = None;
        for _ in 0..2 {
            let token = match self.app_token.get(dead.as_ref()).await {
                Ok(token) => token,
                Err(NoToken::Store(error)) => return Err(error),
                Err(_) => return Ok(Vec::new()),
            };
            let answer = self.provider.connections(check, &token, &asked).await;
            metrics::connection_check_answered(&answer);
            match answer {
                ConnectionsAnswer::Known(connections) => {
                    return Ok(self.classify(connections, control_user.as_ref()));
                }
                ConnectionsAnswer::TokenDead => dead = Some(token),
                ConnectionsAnswer::Misconfigured => {
                    tracing::error!("the provider refuses this app's client id: check the configuration");
                    return Ok(Vec::new());
                }
                ConnectionsAnswer::Unknown(failure) => {
                    tracing::warn!(?failure, "the provider does not say whether users are still connected");
                    return Ok(Vec::new());
                }
            }
        }
        Ok(Vec::new())
    }

    /// The part of an answer that counts.
    fn classify(&self, mut connections: Connections, control_user: Option<&String>) -> Connections {
        let names_somebody = connections.iter().any(|(_, connection)| *connection != Connection::Gone);
        let connected = connections.iter().find(|(_, connection)| *connection == Connection::Connected);
        // A control user that the answer does not call connected is none any more.
        if connected.is_some() || control_user.is_some() {
            self.control_user.set(connected.map(|(id, _)| id.clone()));
        }
        connections.retain(|(id, connection)| {
            Some(id) != control_user && (names_somebody || *connection != Connection::Gone)
        });
        connections
    }

    /// Whether it is plausible that `gone` of the `asked` users of a slot are gone.
    ///
    /// One slot may have few users, so the answers about those before count as well. A fault of the
    /// provider that affects everybody must not sign users out one by one.
    pub(crate) fn plausible(&self, asked: usize, gone: usize) -> bool {
        let mut recent = self.recent.lock();
        if recent.asked >= limits::CONNECTION_CHECK_REMEMBERED {
            recent.asked /= 2;
            recent.gone /= 2;
        }
        recent.asked += asked;
        recent.gone += gone;
        gone == 0 || recent.asked < limits::CONNECTION_CHECK_BELIEVED_OF || recent.gone * 2 <= recent.asked
    }
}
