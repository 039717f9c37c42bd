//! Finds out whether a user disconnected the app, and ends the user's sessions if so.
//!
//! Suspicions come from webhook events (`webhook_events.rs`), from rejected tokens, and from the
//! connection checks (`connection_sweep.rs`). Each is written down, so that it survives a crash,
//! and investigated by the instance that takes it. [`claviger_core::suspicion`] decides what
//! confirms one and what clears it.

pub(crate) mod connection_checks;
pub(crate) mod connection_sweep;
mod registration;
pub(crate) mod subscription;
pub(crate) mod webhook_events;

use std::sync::Arc;

use claviger_core::{
    Cause, Connection, EndReason, Finding, Purpose, Session, State, Suspicion, Verdict, limits, suspicion,
};
use claviger_store::{Item, Lease, Queue, Store, StoreError, SuspicionKey};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::{
    CheckedClock, Denied, EndError, Env, ForWhom, Rows, Validated, Validator, metrics, part::part, retry,
};
use connection_checks::{ConnectionChecks, Connections};

part! {
    /// The suspicions that users disconnected the app.
    pub(crate) struct Disconnects needs {
        env: Env,
        store: Arc<dyn Store>,
        rows: Arc<Rows>,
        clock: Arc<CheckedClock>,
        validator: Arc<Validator>,
        checks: Arc<ConnectionChecks>,
    } owns {
        noted: Notify = Notify::new(),
    }
}

/// What to do with a suspicion after a try.
#[derive(Clone, Copy)]
enum AfterTry {
    Acknowledge,
    Reschedule,
}

/// What came of a try to confirm a suspicion.
struct Tried {
    after: AfterTry,
    /// Number of sessions that it ended.
    ended: usize,
}

impl From<AfterTry> for Tried {
    fn from(after: AfterTry) -> Self {
        Self { after, ended: 0 }
    }
}

impl Disconnects {
    /// Is notified when a suspicion was noted.
    pub(crate) fn noted(&self) -> &Notify {
        &self.noted
    }

    /// Notes the suspicion that the user of this session disconnected the app, as soon as the store
    /// takes it.
    pub(crate) fn suspect_user(self: &Arc<Self>, row: &Session, cause: Cause) {
        if cause.response(self.env.settings().cascade) == suspicion::Response::Nothing {
            return;
        }
        let suspicion = Suspicion { subject: row.subject.clone(), at: self.clock.known_of_provider(), cause };
        let version = row.version.0.to_be_bytes();
        let key = key_of([cause.name().as_bytes(), row.id.as_bytes(), &version]);
        let disconnects = Arc::clone(self);
        self.env.spawn(async move {
            retry::until_stored(|| disconnects.note(key, &suspicion)).await;
        });
    }

    /// Notes a suspicion, unless it was noted before.
    pub(crate) async fn note(&self, key: SuspicionKey, suspicion: &Suspicion) -> Result<(), StoreError> {
        let item = Item::Suspicion { key, suspicion: suspicion.clone(), noted_at: self.env.now() };
        if self.store.enqueue(&item).await? {
            metrics::suspected(suspicion.cause);
            self.noted.notify_one();
        }
        Ok(())
    }

    /// Investigates the suspicions that are due, until none is. Gives the number of those that are
    /// closed.
    ///
    /// # Errors
    /// If the store cannot be used. A suspicion stays until it is closed.
    pub(crate) async fn investigate_due(self: &Arc<Self>) -> Result<usize, StoreError> {
        let mut closed = 0;
        loop {
            let terms = self.env.lease(limits::SUSPICION_LEASE, limits::SUSPICION_PAUSE_MAX);
            let at_once = self.checks.users_at_once().unwrap_or(limits::SUSPICIONS_AT_ONCE);
            let taken = self.store.take_as(Queue::Suspicions, terms, at_once, Item::suspicion).await?;
            if taken.is_empty() {
                return Ok(closed);
            }
            let connections = self.connections_of(&taken).await?;
            let tries = taken.iter().map(|suspected| self.investigate(suspected, &connections));
            // All are finished, even if one fails.
            for tried in join_all(tries).await {
                closed += usize::from(tried?);
            }
        }
    }

    async fn connections_of(&self, taken: &[Lease<Suspicion>]) -> Result<Connections, StoreError> {
        let cascade = self.env.settings().cascade;
        let asks = |suspicion: &Suspicion| suspicion.cause.response(cascade) == suspicion::Response::Confirm;
        let ids: Vec<_> = taken
            .iter()
            .filter(|suspected| asks(&suspected.item))
            .map(|suspected| suspected.item.subject.id.clone())
            .collect();
        if ids.is_empty() { Ok(Vec::new()) } else { self.checks.ask(&ids).await }
    }

    /// Investigates one suspicion. True if it is closed.
    async fn investigate(
        self: &Arc<Self>,
        suspected: &Lease<Suspicion>,
        connections: &Connections,
    ) -> Result<bool, StoreError> {
        let suspicion = &suspected.item;
        let waited = self.clock.known().map(|now| now.since(suspicion.at));
        let given_up = waited.is_some_and(|waited| waited >= limits::SUSPICION_GIVEN_UP_AFTER);
        let tried = self.try_to_confirm(suspicion, connections).await?;
        match tried.after {
            AfterTry::Reschedule if !given_up => {
                let pause = retry::doubled_pause(
                    limits::SUSPICION_PAUSE,
                    suspected.tries,
                    limits::SUSPICION_PAUSE_MAX,
                );
                suspected.reschedule(&*self.store, self.env.now().after(pause)).await?;
                Ok(false)
            }
            AfterTry::Acknowledge | AfterTry::Reschedule => {
                let closed = suspected.acknowledge(&*self.store).await?;
                if closed && suspicion.cause == Cause::WebhookEvent {
                    log_outcome(suspicion, connections, tried.ended);
                }
                Ok(closed)
            }
        }
    }

    async fn try_to_confirm(
        self: &Arc<Self>,
        suspicion: &Suspicion,
        connections: &Connections,
    ) -> Result<Tried, StoreError> {
        match suspicion.cause.response(self.env.settings().cascade) {
            suspicion::Response::Nothing => return Ok(AfterTry::Acknowledge.into()),
            suspicion::Response::EndAll(reason) => return self.end_all(suspicion, reason).await,
            suspicion::Response::Confirm => {}
        }
        let devices = self.rows.devices(&suspicion.subject).await?;
        if !devices.iter().any(|row| suspicion.concerns(row)) {
            return Ok(AfterTry::Acknowledge.into());
        }
        let connection =
            connections.iter().find(|(id, _)| *id == suspicion.subject.id).map(|(_, connection)| *connection);
        let asks = matches!(connection, Some(Connection::Disconnected | Connection::Gone));
        let newest = if asks { self.verdict_on_newest(&devices).await? } else { None };
        match suspicion::finding(connection, newest) {
            Finding::EndAll(reason) => self.end_all(suspicion, reason).await,
            Finding::AskEach => self.ask_each(suspicion, &devices, AfterTry::Acknowledge).await,
            Finding::AskEachAndAgain => {
                // A provider without a connection check will not say more later.
                let offered = self.checks.users_at_once().is_some();
                let after = if offered { AfterTry::Reschedule } else { AfterTry::Acknowledge };
                self.ask_each(suspicion, &devices, after).await
            }
            Finding::Contradiction => {
                let subject = &suspicion.subject.id;
                tracing::warn!(
                    subject,
                    "the provider contradicts itself on whether a user disconnected the app"
                );
                Ok(AfterTry::Reschedule.into())
            }
        }
    }

    /// The verdict on the access token of the user's newest session that has a living one.
    async fn verdict_on_newest(&self, devices: &[Session]) -> Result<Option<Verdict>, StoreError> {
        let now = self.env.now();
        let living = devices.iter().filter(|row| matches!(row.state, State::Live(_)));
        let living = living.filter_map(|row| Some((row, row.pair()?)));
        let Some((row, pair)) =
            living.filter(|(_, pair)| !pair.expiry.passed(now)).max_by_key(|(row, _)| row.id)
        else {
            return Ok(None);
        };
        let asked = self.validator.ask(row, pair, Purpose::Due).await;
        Ok(match Denied::leave_out(asked, row.id)? {
            Some(asked) => asked.map(|asked| asked.verdict),
            None => Some(Verdict::Unknown),
        })
    }

    async fn end_all(
        self: &Arc<Self>,
        suspicion: &Suspicion,
        reason: EndReason,
    ) -> Result<Tried, StoreError> {
        let ended = self.rows.end_selection(suspicion.subject.clone(), None, suspicion.at, reason).await?;
        let (cause, subject) = (suspicion.cause.name(), &suspicion.subject.id);
        let reason = reason.name();
        tracing::info!(subject, count = ended, cause, reason, "the older sessions of a user ended");
        Ok(Tried { after: AfterTry::Acknowledge, ended })
    }

    /// Has each session that the suspicion concerns refreshed before its next use, where the
    /// provider sent word of a disconnect and has no validation. What one session's token met says
    /// nothing of the others (invariant BLAST).
    async fn suspect_each(
        &self,
        suspicion: &Suspicion,
        devices: &[Session],
        after: AfterTry,
    ) -> Result<Tried, StoreError> {
        if suspicion.cause == Cause::WebhookEvent {
            for row in devices.iter().filter(|row| suspicion.concerns(row)) {
                let Some(generation) = row.generation() else { continue };
                let suspect = |row: Session| row.suspect(generation);
                match self.rows.update(row.id, suspect).await {
                    Ok(_) | Err(StoreError::Corrupt(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(after.into())
    }

    /// Validates each session that the suspicion concerns, by itself.
    async fn ask_each(
        self: &Arc<Self>,
        suspicion: &Suspicion,
        devices: &[Session],
        after: AfterTry,
    ) -> Result<Tried, StoreError> {
        if !self.validator.is_offered() {
            return self.suspect_each(suspicion, devices, after).await;
        }
        let mut tried = Tried::from(after);
        let margin = self.env.settings().lifetimes.refresh_margin;
        for row in devices.iter().filter(|row| suspicion.concerns(row)) {
            // The rejection of an expired token proves nothing.
            let tells = row.pair().is_some_and(|pair| !pair.expiry.within(self.env.now(), margin));
            if !tells || !matches!(row.state, State::Live(_)) {
                continue;
            }
            let validated = self.validator.validate(row.id, ForWhom::Nobody).await;
            if let Some(Validated::NoAnswer(_)) = Denied::leave_out(validated, row.id)? {
                tried.after = AfterTry::Reschedule;
            }
        }
        let lives_beyond = self.env.now().after(margin);
        for row in self.rows.devices(&suspicion.subject).await? {
            if let Some(reason) = suspicion.ends_alone(&row, lives_beyond) {
                let meant = |row: &Session| suspicion.ends_alone(row, lives_beyond).is_some();
                match self.rows.end_one(row.id, reason, meant).await {
                    Ok(ended) => tried.ended += ended,
                    Err(EndError::NotFound) => {}
                    Err(EndError::Store(error)) => return Err(error),
                }
            }
        }
        Ok(tried)
    }
}

/// Logs what came of a webhook event: what the provider said when it was asked about the user, and
/// how many sessions ended in the last try.
fn log_outcome(suspicion: &Suspicion, connections: &Connections, ended: usize) {
    let connection = connections.iter().find(|(id, _)| *id == suspicion.subject.id);
    let answer = match connection {
        Some((_, Connection::Connected)) => "connected",
        Some((_, Connection::Disconnected)) => "disconnected",
        Some((_, Connection::Gone)) => "gone",
        None => "nothing",
    };
    tracing::info!(
        subject = suspicion.subject.id,
        answer,
        ended,
        "the provider sent word of a disconnect, and was asked whether the user is connected"
    );
}

/// A suspicion's key: a hash of its source, so that none is noted twice.
pub(crate) fn key_of<const N: usize>(parts: [&[u8]; N]) -> SuspicionKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    SuspicionKey(hash.finalize().into())
}
