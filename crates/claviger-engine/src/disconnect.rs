//! Finds out whether a user disconnected the app, and ends the user's sessions if so.
//!
//! Suspicions come from the provider's notices, from rejected tokens and from the probe. Each is written down, so that it
//! outlives a crash, and looked into by whichever instance takes it. What confirms and what clears one is decided in
//! [`claviger_core::suspicion`].

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{
    ids::{AttemptId, Subject},
    policy::limits,
    session::{EndReason, Session, State},
    suspicion::{Cause, Connection, Finding, Response, Suspicion, finding},
    time::Timestamp,
    verdict::Verdict,
};
use claviger_provider::{PROBE_USERS, ProbeAnswer};
use claviger_store::{StoreError, Suspected, SuspicionKey, Wheel};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    Engine,
    app_token::NoToken,
    errors::{Denied, EndError},
    meter,
    prove::Asked,
    visits::Leased,
};

/// What to do with a suspicion after a try.
enum AfterTry {
    Settle,
    Postpone,
}

/// What the provider says of some users, as far as it says anything.
type Known = Vec<(String, Connection)>;

impl Engine {
    /// Notes the suspicion that the user of this session disconnected the app, as soon as the store takes it.
    pub(crate) fn suspect_user(&self, row: &Session, cause: Cause) {
        if cause.response(self.settings().cascade) == Response::Nothing {
            return;
        }
        let suspicion = Suspicion { subject: row.subject.clone(), at: self.now(), cause };
        let version = row.version.0.to_be_bytes();
        let key = key_of([cause.name().as_bytes(), row.id.as_bytes(), &version]);
        let engine = self.clone();
        self.inner.tasks.spawn(async move {
            engine.surely(|| engine.note_suspicion(key, &suspicion)).await;
        });
    }

    /// Notes a suspicion, unless it was noted before.
    pub(crate) async fn note_suspicion(
        &self,
        key: SuspicionKey,
        suspicion: &Suspicion,
    ) -> Result<(), StoreError> {
        if self.inner.parts.store.suspect(key, suspicion, self.now()).await? {
            meter::suspected(suspicion.cause);
            self.inner.suspected.notify_one();
        }
        Ok(())
    }

    pub(crate) async fn keep_confirming(&self, stop: &CancellationToken) {
        loop {
            match stop.run_until_cancelled(self.confirm_suspicions()).await {
                None => return,
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::error!(%error, "suspicions of a disconnect have to wait"),
            }
            let wake = tokio::time::timeout(limits::SUSPICIONS_LOOK_EVERY, self.inner.suspected.notified());
            if stop.run_until_cancelled(wake).await.is_none() {
                return;
            }
        }
    }

    /// Looks into the suspicions that are due, until none is. Gives how many were settled.
    ///
    /// # Errors
    /// If the store cannot be used. A suspicion stays until it is settled.
    pub async fn confirm_suspicions(&self) -> Result<usize, StoreError> {
        let mut settled = 0;
        loop {
            let (attempt, now) = (AttemptId(self.random()), self.now());
            let until = now.after(limits::SUSPICION_LEASE);
            let taken = self.inner.parts.store.take_suspicions(attempt, now, until, PROBE_USERS).await?;
            if taken.is_empty() {
                return Ok(settled);
            }
            let known = self.connections_of(&taken).await?;
            let tries = taken.iter().map(|suspected| self.look_into(suspected, attempt, &known));
            // All come to their end, whatever becomes of one.
            for tried in join_all(tries).await {
                settled += usize::from(tried?);
            }
        }
    }

    async fn connections_of(&self, taken: &[Suspected]) -> Result<Known, StoreError> {
        let cascade = self.settings().cascade;
        let asks = |suspicion: &Suspicion| suspicion.cause.response(cascade) == Response::Confirm;
        let ids: Vec<_> = taken
            .iter()
            .filter(|suspected| asks(&suspected.suspicion))
            .map(|suspected| suspected.suspicion.subject.id.clone())
            .collect();
        if ids.is_empty() { Ok(Vec::new()) } else { self.probe(&ids).await }
    }

    async fn look_into(
        &self,
        suspected: &Suspected,
        attempt: AttemptId,
        known: &Known,
    ) -> Result<bool, StoreError> {
        let Suspected { key, suspicion, tries } = suspected;
        let given_up = self.now().since(suspicion.at) >= limits::SUSPICION_GIVEN_UP_AFTER;
        match self.try_to_confirm(suspicion, known).await? {
            AfterTry::Postpone if !given_up => {
                let due_at = self.now().after(pause_after(*tries));
                self.inner.parts.store.postpone_suspicion(*key, attempt, due_at).await?;
                Ok(false)
            }
            AfterTry::Settle | AfterTry::Postpone => {
                self.inner.parts.store.settle_suspicion(*key, attempt).await
            }
        }
    }

    async fn try_to_confirm(&self, suspicion: &Suspicion, known: &Known) -> Result<AfterTry, StoreError> {
        match suspicion.cause.response(self.settings().cascade) {
            Response::Nothing => return Ok(AfterTry::Settle),
            Response::EndAll => {
                return self.end_disconnected(suspicion, EndReason::DisconnectedAtProvider).await;
            }
            Response::Confirm => {}
        }
        let devices = self.devices(&suspicion.subject).await?;
        if !devices.iter().any(|row| suspicion.concerns(row)) {
            return Ok(AfterTry::Settle);
        }
        let connection =
            known.iter().find(|(id, _)| *id == suspicion.subject.id).map(|(_, connection)| *connection);
        let asks = matches!(connection, Some(Connection::Disconnected | Connection::Gone));
        let newest = if asks { self.verdict_on_newest(&devices).await? } else { None };
        match finding(connection, newest) {
            Finding::EndAll(reason) => self.end_disconnected(suspicion, reason).await,
            Finding::AskEach => self.ask_each(suspicion, &devices, AfterTry::Settle).await,
            Finding::AskEachAndAgain => self.ask_each(suspicion, &devices, AfterTry::Postpone).await,
            Finding::Contradiction => {
                let subject = &suspicion.subject.id;
                tracing::warn!(
                    subject,
                    "the provider contradicts itself on whether a user disconnected the app"
                );
                Ok(AfterTry::Postpone)
            }
        }
    }

    /// The verdict on the access token of the user's youngest session that has a living one.
    async fn verdict_on_newest(&self, devices: &[Session]) -> Result<Option<Verdict>, StoreError> {
        let now = self.now();
        let living = devices.iter().filter(|row| matches!(row.state, State::Live(_)));
        let living = living.filter_map(|row| Some((row, row.pair()?)));
        let Some((row, pair)) =
            living.filter(|(_, pair)| !pair.expiry.passed(now)).max_by_key(|(row, _)| row.id)
        else {
            return Ok(None);
        };
        match self.ask_about(row, pair, limits::PACE_PATIENCE).await {
            Ok((_, answer)) => Ok(Some(answer.verdict(&self.provider().client_id, Some(&row.subject.id)))),
            Err(Denied::Store(error)) if !matches!(error, StoreError::Corrupt(_)) => Err(error),
            Err(_) => Ok(Some(Verdict::Unknown)),
        }
    }

    async fn end_disconnected(
        &self,
        suspicion: &Suspicion,
        reason: EndReason,
    ) -> Result<AfterTry, StoreError> {
        let ended = self.end_selection(suspicion.subject.clone(), None, suspicion.at, reason).await?;
        let (cause, subject) = (suspicion.cause.name(), &suspicion.subject.id);
        tracing::info!(subject, count = ended, cause, reason = reason.name(), "a user disconnected the app");
        Ok(AfterTry::Settle)
    }

    /// Asks about each session that the suspicion concerns, by itself.
    async fn ask_each(
        &self,
        suspicion: &Suspicion,
        devices: &[Session],
        after: AfterTry,
    ) -> Result<AfterTry, StoreError> {
        let mut after = after;
        let margin = self.settings().lifetimes.refresh_margin;
        for row in devices.iter().filter(|row| suspicion.concerns(row)) {
            // That an expired token is rejected says nothing.
            let tells = row.pair().is_some_and(|pair| !pair.expiry.within(self.now(), margin));
            if !tells || !matches!(row.state, State::Live(_)) {
                continue;
            }
            match self.prove(row.id).await {
                Ok(Asked::Settled(_)) => {}
                Ok(Asked::Nothing(_)) => after = AfterTry::Postpone,
                Err(Denied::Store(error @ StoreError::Corrupt(_))) => {
                    tracing::error!(session = %row.id, %error, "a token cannot be validated");
                }
                Err(Denied::Store(error)) => return Err(error),
                Err(_) => {}
            }
        }
        let lives_beyond = self.now().after(margin);
        for row in self.devices(&suspicion.subject).await? {
            if let Some(reason) = suspicion.ends_alone(&row, lives_beyond) {
                let meant = |row: &Session| suspicion.ends_alone(row, lives_beyond).is_some();
                if let Err(EndError::Store(error)) = self.end_one(row.id, reason, meant).await {
                    return Err(error);
                }
            }
        }
        Ok(after)
    }

    /// Asks the provider about users, ten at most. Of those that are not in the answer nothing is known.
    pub(crate) async fn probe(&self, ids: &[String]) -> Result<Known, StoreError> {
        let witness = self.witness_beside(ids).await?;
        let asked: Vec<_> = ids.iter().chain(&witness).cloned().collect();
        let mut dead = None;
        for _ in 0..2 {
            let token = match self.app_token(dead.as_ref()).await {
                Ok(token) => token,
                Err(NoToken::Store(error)) => return Err(error),
                Err(NoToken::Trouble(_) | NoToken::Misconfigured) => return Ok(Vec::new()),
            };
            let request = self.provider().authorizations_request(&token, &asked);
            let answer = self.inner.parts.http.send(request).await;
            let answer = self.provider().read_authorizations(answer, &asked, self.now());
            meter::probe_answered(&answer);
            match answer {
                ProbeAnswer::Known(known) => return Ok(self.inner.probes.sift(known, witness.as_ref())),
                ProbeAnswer::TokenDead => dead = Some(token),
                ProbeAnswer::Misconfigured => {
                    tracing::error!("the provider refuses this app's client id: check the configuration");
                    return Ok(Vec::new());
                }
                ProbeAnswer::Unknown(trouble) => {
                    tracing::warn!(?trouble, "the provider does not say whether users are still connected");
                    return Ok(Vec::new());
                }
            }
        }
        Ok(Vec::new())
    }

    pub(crate) async fn keep_probing(&self, stop: &CancellationToken) {
        self.every(limits::PROBE_LOOK_EVERY, stop, || async { self.probe_due().await }).await;
    }

    /// Visits the slots whose users are to be asked about: those without a living token, of whom no validation tells.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn probe_due(&self) -> Result<(), StoreError> {
        let visit = |engine: Self, slot| async move { engine.probe_slot(slot).await };
        self.visit_due(Wheel::Probe, || limits::PROBES_AT_ONCE, visit).await
    }

    async fn probe_slot(&self, slot: Leased) -> Result<(), StoreError> {
        let next_visit = slot.visit.slot.next_visit(self.settings().sweep.probe_period, self.now());
        let again_at = |now: Timestamp| next_visit.min(now.after(limits::PROBE_AGAIN));
        let (mut asked, mut suspicions, mut answered) = (0, Vec::new(), true);
        let probed = self.holding(&slot, async {
            let mut after = None;
            loop {
                let store = &self.inner.parts.store;
                let page = store.in_slot(slot.wheel, slot.visit.slot, after, limits::BATCH_ROWS).await?;
                after = page.last().map(|row| row.id);
                for ids in away(&page).chunks(PROBE_USERS) {
                    match self.probe_surely(ids, &slot).await? {
                        Some(gone) => {
                            asked += ids.len();
                            suspicions.extend(gone);
                        }
                        None => answered = false,
                    }
                }
                if page.len() < limits::BATCH_ROWS {
                    return Ok(());
                }
            }
        });
        if !probed.await? {
            return Ok(());
        }
        if !self.inner.probes.believes(asked, suspicions.len()) {
            tracing::error!(
                count = suspicions.len(),
                asked,
                "the provider says that most users disconnected the app: nobody was signed out"
            );
            return self.leave(&slot, again_at(self.now())).await;
        }
        for (key, suspicion) in suspicions {
            self.note_suspicion(key, &suspicion).await?;
        }
        self.leave(&slot, if answered { next_visit } else { again_at(self.now()) }).await
    }

    /// Asks about users until the provider answers, not too often, and not faster than it bears beside the app's own calls.
    async fn probe_surely(
        &self,
        ids: &[String],
        slot: &Leased,
    ) -> Result<Option<Vec<(SuspicionKey, Suspicion)>>, StoreError> {
        for _ in 0..limits::PROBE_TRIES {
            let suspicions = self.probe_users(ids, slot).await?;
            let pause = if suspicions.is_some() { limits::PROBE_PAUSE } else { limits::PROVIDER_PAUSE_MAX };
            tokio::time::sleep(pause).await;
            if suspicions.is_some() {
                return Ok(suspicions);
            }
        }
        Ok(None)
    }

    /// Asks about users, and gives the suspicions against those who are gone. None if the provider did not answer.
    async fn probe_users(
        &self,
        ids: &[String],
        slot: &Leased,
    ) -> Result<Option<Vec<(SuspicionKey, Suspicion)>>, StoreError> {
        let at = self.now();
        let known = self.probe(ids).await?;
        let visit = slot.visit.due_at.as_millis().to_be_bytes();
        let suspect = |id: &String| {
            let subject = Subject { provider: self.provider().name.clone(), id: id.clone() };
            let key = key_of([Cause::Probe.name().as_bytes(), id.as_bytes(), &visit]);
            (key, Suspicion { subject, at, cause: Cause::Probe })
        };
        let gone = known.iter().filter(|(_, connection)| *connection != Connection::Connected);
        let gone = gone.map(|(id, _)| suspect(id)).collect();
        Ok((!known.is_empty()).then_some(gone))
    }
}

/// What probes go by, besides the provider's answers.
#[derive(Default)]
pub(crate) struct Probes(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// A user who lets the app in.
    witness: Option<String>,
    /// When the other instances were told of one.
    shared_at: Option<Timestamp>,
    /// Of the last users that were asked about: how many there were, and how many the provider said are gone.
    asked: usize,
    gone: usize,
}

impl Probes {
    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a user who lets the app in. True if it is time to tell the other instances.
    pub(crate) fn note_connected(&self, id: &str, now: Timestamp) -> bool {
        let mut remembered = self.remembered();
        if remembered.witness.as_deref() != Some(id) {
            remembered.witness = Some(id.to_owned());
        }
        let due = remembered.shared_at.is_none_or(|at| now.since(at) >= limits::WITNESS_EVERY);
        if due {
            remembered.shared_at = Some(now);
        }
        due
    }

    /// The user whom this process knows to let the app in, if it is none of these.
    pub(crate) fn witness_beside(&self, ids: &[String]) -> Option<String> {
        self.remembered().witness.clone().filter(|witness| !ids.contains(witness))
    }

    /// What counts of an answer.
    fn sift(&self, mut known: Known, witness: Option<&String>) -> Known {
        let names_somebody = known.iter().any(|(_, connection)| *connection != Connection::Gone);
        let connected = known.iter().find(|(_, connection)| *connection == Connection::Connected);
        // A witness of whom the answer does not say so is none any more.
        if connected.is_some() || witness.is_some() {
            self.remembered().witness = connected.map(|(id, _)| id.clone());
        }
        known.retain(|(id, connection)| {
            Some(id) != witness && (names_somebody || *connection != Connection::Gone)
        });
        known
    }

    /// Whether to believe that so many are gone of those asked about in a visit. One visit may concern few users, so those before
    /// it count as well: trouble of the provider that touches everybody must not sign them out one by one.
    fn believes(&self, asked: usize, gone: usize) -> bool {
        let mut remembered = self.remembered();
        if remembered.asked >= limits::PROBE_REMEMBERED {
            remembered.asked /= 2;
            remembered.gone /= 2;
        }
        remembered.asked += asked;
        remembered.gone += gone;
        gone == 0 || remembered.asked < limits::PROBE_BELIEVED_OF || remembered.gone * 2 <= remembered.asked
    }
}

/// The users of sessions that hold no living token, each once.
fn away(page: &[Session]) -> Vec<String> {
    let away = page.iter().filter(|row| !matches!(row.state, State::Live(_)) || row.pair().is_none());
    let ids: std::collections::BTreeSet<_> = away.map(|row| row.subject.id.clone()).collect();
    ids.into_iter().collect()
}

/// A key that no other suspicion has: a hash of where this one comes from.
pub(crate) fn key_of<const N: usize>(parts: [&[u8]; N]) -> SuspicionKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    SuspicionKey(hash.finalize().into())
}

fn pause_after(tries: u32) -> Duration {
    (limits::SUSPICION_PAUSE * 2u32.saturating_pow(tries.min(16))).min(limits::SUSPICION_PAUSE_MAX)
}

impl Engine {
    /// Forgets closed suspicions whose word cannot come again.
    pub(crate) async fn forget_suspicions(&self, now: Timestamp) -> Result<(), StoreError> {
        let until = now.before(limits::SUSPICION_GIVEN_UP_AFTER);
        let store = &self.inner.parts.store;
        while store.forget_suspicions(until, limits::BATCH_ROWS).await? == limits::BATCH_ROWS {}
        Ok(())
    }
}
