//! Ends sessions at somebody's request. What follows from a provider's answer or from a session's
//! age ends by the same rule, [`Session::end`], where that is found out.

use std::sync::Arc;

use claviger_core::{EndReason, Refused, Session, SessionId, Subject, Timestamp};
use claviger_seal::SessionCookie;

use crate::{CheckedClock, EndError, Env, Keys, Rows, part::part};

/// Which sessions to end.
#[derive(Clone, Debug)]
pub enum Target {
    /// This one.
    One(SessionId),
    /// This one, if it is one of the user's.
    DeviceOf(Subject, SessionId),
    /// All of the user's that exist now, except for the one given.
    Others(Subject, SessionId),
    /// All of the user's that were created before this time.
    AllOf(Subject, Timestamp),
}

part! {
    /// Signs users out.
    pub(crate) struct SignOut needs {
        env: Env,
        rows: Arc<Rows>,
        keys: Arc<Keys>,
        clock: Arc<CheckedClock>,
    }
}

impl SignOut {
    /// Ends the sessions and gives how many had not ended before. It is safe to repeat.
    ///
    /// # Errors
    /// [`EndError::NotFound`] for a single session that does not exist or is not the user's. If the
    /// store fails, some or all may have ended: repeat it.
    pub(crate) async fn end(&self, target: Target, reason: EndReason) -> Result<usize, EndError> {
        let rows = &self.rows;
        Ok(match target {
            Target::One(id) => rows.end_one(id, reason, |_| true).await?,
            Target::DeviceOf(subject, id) => rows.end_one(id, reason, |row| row.subject == subject).await?,
            Target::Others(subject, except) => {
                // Without a time on which all agree nobody knows which began before, so all end.
                let created_before = self.clock.agreed().unwrap_or(Timestamp::MAX);
                rows.end_selection(subject, Some(except), created_before, reason).await?
            }
            Target::AllOf(subject, before) => rows.end_selection(subject, None, before, reason).await?,
        })
    }

    /// Ends the session that this cookie opens. A cookie that only names it ends nothing.
    ///
    /// # Errors
    /// [`EndError::NotFound`] if there is no such session.
    pub(crate) async fn end_own(&self, cookie: &SessionCookie, reason: EndReason) -> Result<usize, EndError> {
        let at = self.env.now();
        let rule = |row: Session| {
            if !row.secret_hash.matches(&cookie.secret) {
                return Err(Refused::Superseded);
            }
            let refresh = self.keys.refresh_to_revoke(&row, &cookie.secret);
            row.end_with(reason, at, refresh)
        };
        self.rows.end_by(cookie.session, rule).await
    }
}
