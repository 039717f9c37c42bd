//! Carries out the pending revocations. They outlive the sessions they came
//! from, and restarts.

use std::{sync::Arc, time::Duration};

use claviger_core::{
    AccessToken, Expiry, IssuedPair, PendingRevocation, RefreshToken, RevokeAnswer, Session, Timestamp,
    limits,
};
use claviger_seal::{OpenError, PairBinding, RefreshLock};
use claviger_store::{Backlog, Item, Lease, Queue, Store, StoreError};
use futures_util::future::try_join_all;
use tokio::sync::Notify;

use crate::{CheckedClock, Env, Keys, ProviderClient, Rows, keys::Resealed, metrics, part::part, retry};

part! {
    /// The pending revocations.
    pub(crate) struct Outbox needs {
        env: Env,
        store: Arc<dyn Store>,
        rows: Arc<Rows>,
        keys: Arc<Keys>,
        clock: Arc<CheckedClock>,
        provider: Arc<ProviderClient>,
    }
}

/// What to do with a revocation after a try.
enum AfterTry {
    Acknowledge,
    Reschedule(Duration),
}

/// A token that is still to be revoked.
enum Revocable {
    Refresh(RefreshToken),
    Access(AccessToken),
}

impl Outbox {
    /// Is notified when a revocation may have been added.
    pub(crate) fn added(&self) -> &Notify {
        self.rows.revocation_added()
    }

    /// The number of pending revocations, and the age of the oldest.
    pub(crate) async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.store.backlog(Queue::Revocations).await
    }

    /// Adds the revocation of a pair that no row will hold.
    pub(crate) async fn add_issued(&self, row: &Session, issued: &IssuedPair) -> Result<(), StoreError> {
        self.add(&self.revocation_of(row, issued)).await
    }

    /// The same. It retries while the store fails.
    pub(crate) async fn add_issued_until_stored(&self, row: &Session, issued: &IssuedPair) {
        let revocation = self.revocation_of(row, issued);
        retry::until_stored(|| self.add(&revocation)).await;
    }

    /// Carries out the revocations that are due, until none is. Gives the number of those that are
    /// done.
    ///
    /// # Errors
    /// If the store cannot be used. Then they stay in the outbox.
    pub(crate) async fn revoke_due(&self) -> Result<usize, StoreError> {
        let mut done = 0;
        loop {
            let terms = self.env.lease(limits::REVOCATION_LEASE, limits::RETRY_AFTER_MAX);
            let at_once = limits::REVOCATIONS_AT_ONCE;
            let taken = self.store.take_as(Queue::Revocations, terms, at_once, Item::revocation).await?;
            if taken.is_empty() {
                return Ok(done);
            }
            // All at the same time, so that one slow answer does not delay the others.
            let tries = taken.iter().map(|pending| self.carry_out(pending));
            done += try_join_all(tries).await?.into_iter().filter(|done| *done).count();
        }
    }

    /// Carries out one revocation. True if it is done.
    async fn carry_out(&self, pending: &Lease<PendingRevocation>) -> Result<bool, StoreError> {
        if pending.tries > 0
            && let Some(resealed) = self.resealed(&pending.item)
        {
            // It is due at once, so the next round carries it out. A crash in between leaves both
            // in the outbox, which does no harm.
            self.store.enqueue(&Item::Revocation(resealed)).await?;
            pending.acknowledge(&*self.store).await?;
            return Ok(false);
        }
        let after = self.try_to_revoke(pending).await;
        metrics::revocation_tried(matches!(after, AfterTry::Acknowledge));
        match after {
            AfterTry::Acknowledge => pending.acknowledge(&*self.store).await,
            AfterTry::Reschedule(pause) => {
                pending.reschedule(&*self.store, self.env.now().after(pause)).await?;
                Ok(false)
            }
        }
    }

    async fn try_to_revoke(&self, pending: &Lease<PendingRevocation>) -> AfterTry {
        let tokens = match self.open(&pending.item) {
            Ok(tokens) => tokens,
            Err(error) => {
                let key = if let OpenError::UnknownKey(id) = error { Some(id.0) } else { None };
                let session = pending.item.session;
                tracing::error!(%session, ?key, "a token that must be revoked does not open: check the keyring");
                return AfterTry::Reschedule(limits::REVOCATION_PAUSE_MAX);
            }
        };
        let PendingRevocation { session, provider, .. } = &pending.item;
        if !tokens.is_empty() && self.provider.require_issuer(*session, provider).is_err() {
            return AfterTry::Reschedule(limits::REVOCATION_PAUSE_MAX);
        }
        let mut after = AfterTry::Acknowledge;
        // What becomes of one token does not delay the other.
        for token in tokens {
            let answer = match token {
                Revocable::Refresh(token) => self.provider.revoke_refresh(&token).await,
                Revocable::Access(token) => self.provider.revoke_access(&token).await,
            };
            match answer {
                RevokeAnswer::Done => {}
                RevokeAnswer::Unknown(failure) => {
                    let asked = failure.retry_after.unwrap_or_default().min(limits::RETRY_AFTER_MAX);
                    after = AfterTry::Reschedule(pause_after(pending.tries).max(asked));
                }
                RevokeAnswer::Misconfigured => {
                    tracing::error!(
                        "the provider does not know this app; revocations wait until the operator fixes that"
                    );
                    return AfterTry::Reschedule(limits::REVOCATION_PAUSE_MAX);
                }
            }
        }
        after
    }

    /// The tokens that are still to be revoked; none if the provider has no revocation. The refresh
    /// token comes first, since it could bring a new access token. No token counts as expired while
    /// our clock is not confirmed.
    fn open(&self, pending: &PendingRevocation) -> Result<Vec<Revocable>, OpenError> {
        if self.provider.provider().capabilities.revocation.is_none() {
            return Ok(Vec::new());
        }
        let PendingRevocation { session, generation, provider, access, refresh, .. } = pending;
        let binding = PairBinding { provider, session: *session, generation: *generation };
        let confirmed = self.clock.known();
        let given_up = confirmed.is_some_and(|now| is_given_up(pending, now));
        let keyring = self.keys.keyring();
        let mut tokens = Vec::new();
        let custody = self.env.settings().custody;
        let revokes_refresh = self.provider.provider().revokes_refresh_tokens(custody) && !given_up;
        if let Some(refresh) = refresh.as_ref().filter(|_| revokes_refresh) {
            tokens.push(Revocable::Refresh(keyring.open_refresh(binding, RefreshLock::Server, refresh)?));
        }
        if !confirmed.is_some_and(|now| is_expired(pending, now)) {
            tokens.push(Revocable::Access(keyring.open_access(binding, access)?.token));
        }
        Ok(tokens)
    }

    /// The revocation sealed with the key that seals now, if an older one sealed it.
    fn resealed(&self, pending: &PendingRevocation) -> Option<PendingRevocation> {
        let PendingRevocation { session, generation, provider, access, refresh, .. } = pending;
        let at = PairBinding { provider, session: *session, generation: *generation };
        // What does not open is logged when it is tried.
        let resealed = self.keys.reseal_pair(at, access, refresh.as_ref()).ok().flatten()?;
        let Resealed { access, refresh } = resealed;
        Some(PendingRevocation { access, refresh, ..pending.clone() })
    }

    async fn add(&self, revocation: &Item) -> Result<(), StoreError> {
        self.store.enqueue(revocation).await?;
        self.rows.revocation_added().notify_one();
        Ok(())
    }

    /// The revocation of a pair that no row will hold. Its tokens are at hand, so the server can
    /// open both.
    fn revocation_of(&self, row: &Session, issued: &IssuedPair) -> Item {
        let generation = row.version.next();
        let revokes_refresh = self.provider.provider().revokes_refresh_tokens(row.custody);
        let refresh = issued.refresh.as_ref().filter(|_| revokes_refresh);
        let refresh = refresh.map(|token| (token, RefreshLock::Server));
        let pair = self.keys.seal_pair(row, generation, issued, self.env.now(), Vec::new(), refresh);
        Item::Revocation(PendingRevocation {
            session: row.id,
            generation,
            provider: row.subject.provider.clone(),
            access: pair.access,
            refresh: pair.refresh,
            expiry: pair.expiry,
            pending_since: self.env.now(),
        })
    }
}

/// Whether the access token has expired by itself.
fn is_expired(pending: &PendingRevocation, now: Timestamp) -> bool {
    match pending.expiry {
        Expiry::At(_) => pending.expiry.passed(now),
        Expiry::Unknown | Expiry::Never => is_given_up(pending, now),
    }
}

fn is_given_up(pending: &PendingRevocation, now: Timestamp) -> bool {
    now.since(pending.pending_since) >= limits::REVOCATION_GIVEN_UP_AFTER
}

fn pause_after(tries: u32) -> Duration {
    retry::doubled_pause(limits::REVOCATION_PAUSE, tries, limits::REVOCATION_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        assert_eq!(pause_after(0), limits::REVOCATION_PAUSE);
        assert_eq!(pause_after(1), limits::REVOCATION_PAUSE * 2);
        assert_eq!(pause_after(u32::MAX), limits::REVOCATION_PAUSE_MAX);
    }
}
