//! Which of a user's sessions a new sign-in ends.

use super::{EndReason, Session};
use crate::SessionId;

/// What a sign-in does to other sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Maximum number of sessions of the user, the new one included. At least one.
    pub limit: u32,
    /// The session of the same browser that the new one replaces. It may be another user's.
    pub replaces: Option<SessionId>,
}

impl Placement {
    /// Whether the sign-in of `newcomer` ends no session. `open` is the number of the user's
    /// sessions that have not ended, `newcomer` included. A store that gets a yes need not read
    /// them.
    pub fn has_room(&self, newcomer: SessionId, open: usize) -> bool {
        self.replaced(newcomer).is_none() && self.surplus(open) == 0
    }

    /// The sessions to end and why, in the order in which they end: the replaced one first, then as
    /// many of the user's as are over the limit, those used least recently first. `newcomer` never
    /// ends.
    ///
    /// `candidates` are the user's sessions that have not ended, and the replaced one.
    pub fn ends(&self, newcomer: &Session, candidates: &[Session]) -> Vec<(SessionId, EndReason)> {
        let open = || candidates.iter().filter(|row| !row.ended() && row.id != newcomer.id);
        let replaced = self.replaced(newcomer.id).filter(|id| open().any(|row| row.id == *id));
        let mut others: Vec<_> =
            open().filter(|row| row.subject == newcomer.subject && Some(row.id) != replaced).collect();
        others.sort_by_key(|row| (row.last_seen_at, row.id));
        let surplus = others.iter().take(self.surplus(others.len() + 1));
        let replaced = replaced.map(|id| (id, EndReason::ReplacedBySignIn));
        replaced.into_iter().chain(surplus.map(|row| (row.id, EndReason::DeviceLimit))).collect()
    }

    fn replaced(&self, newcomer: SessionId) -> Option<SessionId> {
        self.replaces.filter(|replaced| *replaced != newcomer)
    }

    fn surplus(&self, open: usize) -> usize {
        open.saturating_sub(usize::try_from(self.limit.max(1)).unwrap_or(usize::MAX))
    }
}
