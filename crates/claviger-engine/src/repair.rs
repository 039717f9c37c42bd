//! Repairs a session whose pair no refresh can save: the user's browser goes to the provider and back, and the same row gets
//! a new pair.
//!
//! At a provider where the user agreed before, nobody sees more than a page that loads slowly. It is no new sign-in: the
//! session keeps its id, its cookie and its age. And it is only for a session that is in force: never after a sign-out or a
//! disconnect, and never for another user than the session's own.

use std::sync::Arc;

use claviger_core::{
    ids::SessionId,
    policy::limits,
    request::time_is_over,
    return_to::ReturnTo,
    session::{Refused, Session},
    verdict::{IssuedPair, Proof},
};
use claviger_seal::SessionCookie;
use claviger_store::StoreError;

use crate::{
    Engine,
    amend::Amended,
    errors::{Denied, LoginError},
    login::{Draft, LoginStarted, SignedIn},
    refresh::refresh_lock,
};

/// A new authorization that is to repair a session.
pub(crate) struct Repair {
    /// The session.
    pub(crate) session: SessionId,
    /// What the browser shows when it comes back.
    pub(crate) shown: SessionCookie,
    pub(crate) issued: IssuedPair,
    pub(crate) proof: Proof,
}

impl Engine {
    /// Begins the repair of the session that this cookie opens. None if it does not need one.
    ///
    /// # Errors
    /// See [`Engine::authenticate`].
    pub async fn begin_repair(
        &self,
        cookie: &SessionCookie,
        return_to: ReturnTo,
    ) -> Result<Option<LoginStarted>, Denied> {
        let now = self.now();
        let row = self.own_row(cookie, true).await?;
        let over = row.ended() || time_is_over(&row, now, &self.settings().lifetimes).is_some();
        if over || !row.beyond_refresh(now, &self.provider().habits) {
            return Ok(None);
        }
        Ok(Some(self.send_to_provider(return_to, Some(cookie.session), false)))
    }

    /// Puts the new pair into the session's row, for as long as the store takes. The browser waits for a while only.
    pub(crate) async fn repair(&self, repair: Repair, draft: Draft) -> Result<SignedIn, LoginError> {
        let engine = self.clone();
        let task = self.inner.tasks.spawn(async move { engine.repair_surely(repair, draft).await });
        let late = || StoreError::Unavailable("the repaired session is not written down yet".to_owned());
        match tokio::time::timeout(limits::ADOPTION_WAIT, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(LoginError::Store(late())),
        }
    }

    async fn repair_surely(&self, repair: Repair, draft: Draft) -> Result<SignedIn, LoginError> {
        let Repair { session, shown, issued, proof } = repair;
        let now = self.now();
        let subject = &draft.row.subject;
        let repaired = |row: Session| {
            if shown.session != session || !row.secret_hash.matches(&shown.secret) {
                return Err(Refused::Superseded);
            }
            let sealed_for = row.clone();
            let lock = refresh_lock(row.custody, Some(&shown.secret));
            let refresh = issued.refresh.as_ref().zip(lock);
            let next = row.repair(subject, now, &self.provider().habits, |generation| {
                self.seal_pair(&sealed_for, generation, &issued, now, proof.scopes.clone(), refresh)
            })?;
            Ok((next, None))
        };
        let outcome = match self.amend_surely(session, repaired).await {
            Amended::Done(row) => Ok(row),
            // A write whose outcome was unknown had succeeded after all.
            Amended::Refused(_, row) if self.holds(&row, &issued) => Ok(row),
            refused => Err(refused),
        };
        match outcome {
            Ok(row) => {
                tracing::info!(session = %row.id, "a session was repaired");
                self.resumed(&row, draft)
            }
            Err(refused) => {
                let outcome = self.not_repaired(refused, &shown, &draft);
                self.abandon(&draft.row, &issued);
                outcome.and_then(|row| self.resumed(&row, draft))
            }
        }
    }

    /// What to tell a browser whose session was not repaired; the row, if another tab was first.
    fn not_repaired(
        &self,
        refused: Amended,
        shown: &SessionCookie,
        draft: &Draft,
    ) -> Result<Arc<Session>, LoginError> {
        match refused {
            Amended::Refused(_, row) if !row.secret_hash.matches(&shown.secret) => Err(LoginError::Stale),
            Amended::Refused(Refused::Ended, _) => Err(LoginError::SessionEnded),
            Amended::Refused(_, row) if row.subject != draft.row.subject => Err(LoginError::AnotherUser),
            Amended::Refused(_, row) | Amended::Done(row) => Ok(row),
            Amended::Missing => Err(LoginError::SessionEnded),
        }
    }

    /// The session goes on with the cookie that it has.
    fn resumed(&self, row: &Session, draft: Draft) -> Result<SignedIn, LoginError> {
        let access_hint = self.grant_of(row).ok().and_then(|grant| self.access_hint(row.id, &grant));
        Ok(SignedIn { session: row.id, cookie: None, access_hint, return_to: draft.return_to })
    }
}
