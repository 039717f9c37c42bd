//! The sweep of connection checks: checks the users that no validation tells about, because they
//! have no living token.

use std::sync::Arc;

use claviger_core::{Cause, Connection, Session, Slot, State, Subject, Suspicion, Timestamp, limits};
use claviger_store::{Lease, StoreError, SuspicionKey, SweepKind};

use super::{Disconnects, connection_checks::ConnectionChecks, key_of};
use crate::{CheckedClock, Env, ProviderClient, Rows, Slots, part::part};

part! {
    /// Goes through all slots, and suspects the users that are gone.
    pub(crate) struct ConnectionSweep needs {
        env: Env,
        rows: Arc<Rows>,
        clock: Arc<CheckedClock>,
        slots: Arc<Slots>,
        provider: Arc<ProviderClient>,
        checks: Arc<ConnectionChecks>,
        disconnects: Arc<Disconnects>,
    }
}

/// Suspicions, each with its key.
type Suspicions = Vec<(SuspicionKey, Suspicion)>;

/// The suspicions against the users of a slot.
#[derive(Default)]
struct Checked {
    /// Number of users that the provider answered about.
    asked: usize,
    suspicions: Suspicions,
    /// The provider did not answer about some users.
    unanswered: bool,
}

impl ConnectionSweep {
    /// Checks the users of the slots that are due, if the provider has a connection check.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub(crate) async fn check_due(self: &Arc<Self>) -> Result<(), StoreError> {
        let Some(users_at_once) = self.checks.users_at_once() else { return Ok(()) };
        let work = |slot| {
            let sweep = Arc::clone(self);
            async move { sweep.check_slot(slot, users_at_once).await }
        };
        self.slots.for_each_due(SweepKind::Connections, || limits::CONNECTION_CHECKS_AT_ONCE, work).await
    }

    /// Checks the users of a slot, and suspects those that are gone. Gives the time of its next
    /// visit.
    async fn check_slot(&self, slot: Lease<Slot>, users_at_once: usize) -> Result<Timestamp, StoreError> {
        let period = self.env.settings().sweep.connection_check_period;
        let next_visit = slot.item.next_visit(period, self.env.now());
        let Checked { asked, suspicions, unanswered } = self.check_users_of(&slot, users_at_once).await?;
        let again_at = next_visit.min(self.env.now().after(limits::CONNECTION_CHECK_AGAIN));
        if !self.checks.plausible(asked, suspicions.len()) {
            tracing::error!(
                count = suspicions.len(),
                asked,
                "the provider says that most users disconnected the app: nobody was signed out"
            );
            return Ok(again_at);
        }
        for (key, suspicion) in suspicions {
            self.disconnects.note(key, &suspicion).await?;
        }
        Ok(if unanswered { again_at } else { next_visit })
    }

    async fn check_users_of(&self, slot: &Lease<Slot>, users_at_once: usize) -> Result<Checked, StoreError> {
        let (mut checked, mut after) = (Checked::default(), None);
        loop {
            let page = self.rows.in_slot(SweepKind::Connections, slot.item, after).await?;
            after = page.last().map(|row| row.id);
            for ids in away(&page).chunks(users_at_once) {
                match self.check_until_answered(ids, slot).await? {
                    Some(gone) => {
                        checked.asked += ids.len();
                        checked.suspicions.extend(gone);
                    }
                    None => checked.unanswered = true,
                }
            }
            if page.len() < limits::BATCH_ROWS {
                return Ok(checked);
            }
        }
    }

    /// Asks about users until the provider answers, at most [`limits::CONNECTION_CHECK_TRIES`]
    /// times. It pauses after each question, since the app's own calls share the provider's limit.
    async fn check_until_answered(
        &self,
        ids: &[String],
        slot: &Lease<Slot>,
    ) -> Result<Option<Suspicions>, StoreError> {
        for _ in 0..limits::CONNECTION_CHECK_TRIES {
            let suspicions = self.check(ids, slot).await?;
            let pause = if suspicions.is_some() {
                limits::CONNECTION_CHECK_PAUSE
            } else {
                limits::PROVIDER_PAUSE_MAX
            };
            tokio::time::sleep(pause).await;
            if suspicions.is_some() {
                return Ok(suspicions);
            }
        }
        Ok(None)
    }

    /// Asks about users, and gives the suspicions against those that are gone. None if the provider
    /// did not answer.
    async fn check(&self, ids: &[String], slot: &Lease<Slot>) -> Result<Option<Suspicions>, StoreError> {
        let at = self.clock.of_provider().await;
        let connections = self.checks.ask(ids).await?;
        let visit = slot.due_at.as_millis().to_be_bytes();
        let suspect = |id: &String| {
            let subject = Subject { provider: self.provider.provider().name.clone(), id: id.clone() };
            let key = key_of([Cause::ConnectionCheck.name().as_bytes(), id.as_bytes(), &visit]);
            (key, Suspicion { subject, at, cause: Cause::ConnectionCheck })
        };
        let gone = connections.iter().filter(|(_, connection)| *connection != Connection::Connected);
        let gone = gone.map(|(id, _)| suspect(id)).collect();
        Ok((!connections.is_empty()).then_some(gone))
    }
}

/// The users of sessions without a living token, each once.
fn away(page: &[Session]) -> Vec<String> {
    let away = page.iter().filter(|row| !matches!(row.state, State::Live(_)) || row.pair().is_none());
    let ids: std::collections::BTreeSet<_> = away.map(|row| row.subject.id.clone()).collect();
    ids.into_iter().collect()
}
