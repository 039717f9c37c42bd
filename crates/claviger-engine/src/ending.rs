//! Ends sessions that somebody asked to end, or whose time is over: commit the end, take note of it, owe the revocations.
//! What a provider's answer ends, the file that reads the answer ends by the same rule ([`Session::end`]).

use claviger_core::{
    ids::{SessionId, Subject},
    policy::limits,
    session::{EndReason, Refused, Session},
    time::Timestamp,
};
use claviger_seal::SessionCookie;
use claviger_store::{Selection, StoreError};

use crate::{
    Engine,
    amend::{Amended, Rule},
    errors::EndError,
    meter,
};

/// News of sessions that ended, for whoever keeps something open for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// This one ended.
    Of(SessionId),
    /// Some may have ended of which nothing was heard: [`Engine::doubts`] says which.
    Unheard,
}

/// Which sessions to end.
#[derive(Clone, Debug)]
pub enum Target {
    /// This one.
    One(SessionId),
    /// This one, if it is one of the user's.
    DeviceOf(Subject, SessionId),
    /// All of the user's that exist now, but for the one given.
    Others(Subject, SessionId),
    /// All of the user's that were created before this time.
    AllOf(Subject, Timestamp),
}

impl Engine {
    /// Ends the sessions and gives how many had not ended before. Safe to repeat.
    ///
    /// When it returns, the end is durable, no request of this process is served with them any more, and their
    /// revocations are owed. Trouble with the provider neither delays nor undoes it. Of sessions that another instance ended
    /// before, this process learns when it reads their rows.
    ///
    /// # Errors
    /// [`EndError::NotFound`] for a single session that does not exist or is not the user's. If the store fails, some may have ended,
    /// or all: repeat it.
    pub async fn end(&self, target: Target, reason: EndReason) -> Result<usize, EndError> {
        let ended = match target {
            Target::One(id) => self.end_one(id, reason, |_| true).await?,
            Target::DeviceOf(subject, id) => self.end_one(id, reason, |row| row.subject == subject).await?,
            Target::Others(subject, except) => {
                self.end_selection(subject, Some(except), self.now(), reason).await?
            }
            Target::AllOf(subject, before) => self.end_selection(subject, None, before, reason).await?,
        };
        tracing::info!(count = ended, reason = reason.name(), "sessions ended");
        Ok(ended)
    }

    /// Ends the session that this cookie opens; a cookie that merely names it ends nothing.
    ///
    /// # Errors
    /// [`EndError::NotFound`] if there is no such session.
    pub async fn end_own(&self, cookie: &SessionCookie, reason: EndReason) -> Result<usize, EndError> {
        let at = self.now();
        let rule = |row: Session| {
            if !row.secret_hash.matches(&cookie.secret) {
                return Err(Refused::Superseded);
            }
            let refresh = self.refresh_to_revoke(&row, &cookie.secret);
            row.end_with(reason, at, refresh)
        };
        self.end_by(cookie.session, rule).await
    }

    /// The sessions of a user that have not ended, last used first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn devices(&self, subject: &Subject) -> Result<Vec<Session>, StoreError> {
        self.inner.parts.store.devices(subject, limits::DEVICES_LISTED).await
    }

    pub(crate) async fn end_one(
        &self,
        id: SessionId,
        reason: EndReason,
        meant: impl Fn(&Session) -> bool + Send + Sync,
    ) -> Result<usize, EndError> {
        let at = self.now();
        let rule = |row: Session| if meant(&row) { row.end(reason, at) } else { Err(Refused::Superseded) };
        self.end_by(id, rule).await
    }

    /// Ends a row by a rule, and says whether it had not ended before.
    async fn end_by(&self, id: SessionId, rule: impl Rule) -> Result<usize, EndError> {
        match self.amend(id, rule).await? {
            Amended::Done(_) => Ok(1),
            // It may be our own end, of which we did not hear at the time.
            Amended::Refused(Refused::Ended, row) => {
                self.note_change(&row);
                Ok(0)
            }
            Amended::Refused(..) | Amended::Missing => Err(EndError::NotFound),
        }
    }

    pub(crate) async fn end_selection(
        &self,
        subject: Subject,
        except: Option<SessionId>,
        created_before: Timestamp,
        reason: EndReason,
    ) -> Result<usize, StoreError> {
        debug_assert!(except.is_some() || reason.user_wide(), "BLAST");
        let selection = Selection { subject, except, created_before };
        let engine = self.clone();
        self.detached(async move {
            match engine.inner.parts.store.end_all(&selection, reason, engine.now()).await {
                Ok(ended) => {
                    engine.note_endings(&ended);
                    // The others may have been ended before, by a write of ours of which we have not heard yet.
                    engine.hear_of_endings().await?;
                    Ok(ended.len())
                }
                Err(error) => {
                    engine.note_unknown(&error);
                    Err(error)
                }
            }
        })
        .await
    }

    /// Takes note of rows that the store ended in one step.
    pub(crate) fn note_endings(&self, ended: &[Session]) {
        for session in ended {
            meter::ended(session);
            self.note_change(session);
        }
        if !ended.is_empty() {
            self.inner.owed.notify_one();
        }
    }
}
