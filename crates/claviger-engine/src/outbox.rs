//! Carries out the revocations that providers are owed. They outlive the sessions they came from, and restarts.

use std::time::Duration;

use bytes::Bytes;
use claviger_core::{
    ids::AttemptId,
    policy::limits,
    session::OwedRevocation,
    time::{Expiry, Timestamp},
    verdict::RevokeAnswer,
};
use claviger_seal::{OpenError, PairBinding, RefreshLock};
use claviger_store::{Owed, StoreError};
use futures_util::future::try_join_all;

use crate::{Engine, meter};

/// What to do with a revocation after a try.
enum AfterTry {
    Settle,
    Postpone(Duration),
}

impl Engine {
    /// Carries out what is owed and due, until nothing is. Gives how many were settled.
    ///
    /// # Errors
    /// If the store cannot be used; what is owed stays owed.
    pub async fn settle_owed(&self) -> Result<usize, StoreError> {
        let mut settled = 0;
        loop {
            let (attempt, now) = (AttemptId(self.random()), self.now());
            let lease_until = now.after(limits::REVOCATION_LEASE);
            let taken = self
                .inner
                .parts
                .store
                .take_owed(attempt, now, lease_until, limits::REVOCATIONS_AT_ONCE)
                .await?;
            if taken.is_empty() {
                return Ok(settled);
            }
            // At once, so that one slow answer does not hold up the others.
            let tries = taken.iter().map(|owed| self.settle(owed, attempt));
            settled += try_join_all(tries).await?.into_iter().filter(|settled| *settled).count();
        }
    }

    async fn settle(&self, owed: &Owed, attempt: AttemptId) -> Result<bool, StoreError> {
        if owed.tries > 0
            && let Some(anew) = self.owed_anew(&owed.revocation)
        {
            // Due at once, so the next round carries it out. A crash in between leaves both, which does no harm.
            self.inner.parts.store.owe(&anew).await?;
            self.inner.parts.store.settle_owed(owed.id, attempt).await?;
            return Ok(false);
        }
        let after = self.try_revocation(owed).await;
        meter::revocation_tried(matches!(after, AfterTry::Settle));
        match after {
            AfterTry::Settle => self.inner.parts.store.settle_owed(owed.id, attempt).await,
            AfterTry::Postpone(pause) => {
                let due_at = self.now().after(pause);
                self.inner.parts.store.postpone_owed(owed.id, attempt, due_at).await?;
                Ok(false)
            }
        }
    }

    async fn try_revocation(&self, owed: &Owed) -> AfterTry {
        let now = self.now();
        let requests = match self.requests(&owed.revocation, now) {
            Ok(requests) => requests,
            Err(error) => {
                let key = if let OpenError::UnknownKey(id) = error { Some(id.0) } else { None };
                let session = owed.revocation.session;
                tracing::error!(%session, ?key, "a token that must be revoked does not open: check the keyring");
                return AfterTry::Postpone(limits::REVOCATION_PAUSE_MAX);
            }
        };
        let OwedRevocation { session, provider, .. } = &owed.revocation;
        if !requests.is_empty() && self.require_issuer(*session, provider).is_err() {
            return AfterTry::Postpone(limits::REVOCATION_PAUSE_MAX);
        }
        for request in requests {
            if let Some(pause) = self.revoke(request, owed.tries).await {
                return AfterTry::Postpone(pause);
            }
        }
        AfterTry::Settle
    }

    /// The revocation sealed with the key that seals now, if an older one sealed it.
    fn owed_anew(&self, owed: &OwedRevocation) -> Option<OwedRevocation> {
        let OwedRevocation { session, generation, provider, access, refresh, .. } = owed;
        let at = PairBinding { provider, session: *session, generation: *generation };
        // What does not open is told of when it is tried.
        let (access, refresh) = self.blobs_anew(at, access, refresh.as_ref()).ok().flatten()?;
        Some(OwedRevocation { access, refresh, ..owed.clone() })
    }

    /// What is still to be sent: the refresh token first, since it could bring a new access token.
    fn requests(
        &self,
        owed: &OwedRevocation,
        now: Timestamp,
    ) -> Result<Vec<http::Request<Bytes>>, OpenError> {
        let OwedRevocation { session, generation, provider, access, refresh, .. } = owed;
        let binding = PairBinding { provider, session: *session, generation: *generation };
        let given_up = now.since(owed.owed_at) >= limits::REVOCATION_GIVEN_UP_AFTER;
        let mut requests = Vec::new();
        let refresh = refresh.as_ref().filter(|_| self.provider().revokes_refresh_tokens && !given_up);
        if let Some(refresh) = refresh {
            let token = self.keyring().open_refresh(binding, RefreshLock::Server, refresh)?;
            requests.push(self.provider().revoke_refresh(&token));
        }
        if !moot(owed, now) {
            requests.push(self.provider().revoke(&self.keyring().open_access(binding, access)?.token));
        }
        Ok(requests)
    }

    /// Sends one revocation. Gives a pause if it has to be sent again.
    async fn revoke(&self, request: http::Request<Bytes>, tries: u32) -> Option<Duration> {
        let answer = self.inner.parts.http.send(request).await;
        match self.provider().read_revoke(answer, self.now()) {
            RevokeAnswer::Done => None,
            RevokeAnswer::Unknown(trouble) => {
                Some(pause_after(tries).max(trouble.retry_after.unwrap_or_default()))
            }
            RevokeAnswer::Misconfigured => {
                tracing::error!("the provider does not know this app: revocations wait until that is mended");
                Some(limits::REVOCATION_PAUSE_MAX)
            }
        }
    }
}

/// Whether the access token is dead by itself by now.
fn moot(owed: &OwedRevocation, now: Timestamp) -> bool {
    match owed.expiry {
        Expiry::At(_) => owed.expiry.passed(now),
        Expiry::Unknown | Expiry::Never => now.since(owed.owed_at) >= limits::REVOCATION_GIVEN_UP_AFTER,
    }
}

fn pause_after(tries: u32) -> Duration {
    (limits::REVOCATION_PAUSE * 2u32.saturating_pow(tries.min(16))).min(limits::REVOCATION_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!(pause_after(0), limits::REVOCATION_PAUSE);
        assert_eq!(pause_after(1), limits::REVOCATION_PAUSE * 2);
        assert_eq!(pause_after(u32::MAX), limits::REVOCATION_PAUSE_MAX);
    }
}
