//! The suspicion that a user disconnected the app, and what confirms or clears it.
//!
//! Nothing that hints at a disconnect ends another session by itself: a token may die alone, a notice may be late, and the
//! user may have come back meanwhile. So the provider is asked about the user, and its clear word decides.
//!
//! | provider on the user | its newest living session's token | what follows |
//! |---|---|---|
//! | disconnected, or no such user | is rejected, or there is none, or nothing is proven | all sessions older than the event end |
//! | disconnected, or no such user | is good | the two contradict each other: ask again later |
//! | connected | | each session older than the event is asked about by itself |
//! | cannot be asked | | the same, and the question stays |

use crate::{
    ids::Subject,
    policy::Cascade,
    session::{EndReason, Session, State},
    time::Timestamp,
    verdict::Verdict,
};

/// The suspicion that a user disconnected the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Who.
    pub subject: Subject,
    /// When. Sessions that began at this time or later are not meant.
    pub at: Timestamp,
    /// What gave rise to it.
    pub cause: Cause,
}

/// What gives rise to a suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The provider sent word of it.
    Notice,
    /// The provider rejected an access token before its time.
    AccessTokenRejected,
    /// The provider rejected a refresh token.
    RefreshTokenRejected,
    /// The provider, asked about the user, said so.
    Probe,
}

impl Cause {
    /// Every cause with its stable name, as stores write it.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Notice, "notice"),
        (Self::AccessTokenRejected, "access_token_rejected"),
        (Self::RefreshTokenRejected, "refresh_token_rejected"),
        (Self::Probe, "probe"),
    ];

    /// The stable name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(cause, _)| *cause == self).map_or("unknown", |(_, name)| name)
    }

    /// The cause with this stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(cause, _)| *cause)
    }

    /// What a suspicion of this kind leads to by the operator's choice.
    pub fn response(self, cascade: Cascade) -> Response {
        match (self, cascade) {
            (Self::RefreshTokenRejected, Cascade::Always) => Response::EndAll,
            (Self::RefreshTokenRejected | Self::AccessTokenRejected, Cascade::Never) => Response::Nothing,
            _ => Response::Confirm,
        }
    }
}

/// What a suspicion leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// The provider is asked.
    Confirm,
    /// All of the user's sessions that are older end at once.
    EndAll,
    /// Nothing: each session is on its own.
    Nothing,
}

/// Whether a user still lets the app in, as the provider says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Connection {
    /// Yes.
    Connected,
    /// No: the user took the app's access away, or never gave it.
    Disconnected,
    /// There is no such user.
    Gone,
}

/// What to do about a suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is confirmed: end all of the user's sessions that are older than the event.
    EndAll(EndReason),
    /// It says nothing of the user as a whole: ask about each older session by itself. Where the provider sent word and a
    /// session's token is dead, these two end that session.
    AskEach,
    /// The same, and ask about the user again later.
    AskEachAndAgain,
    /// Two answers contradict each other: ask again later, and end nothing now.
    Contradiction,
}

/// Decides what to do. `connection` is None if the provider could not say; `newest` is the verdict on the access token of the
/// user's youngest living session, if there is one.
pub fn finding(connection: Option<Connection>, newest: Option<Verdict>) -> Finding {
    let reason = match connection {
        Some(Connection::Connected) => return Finding::AskEach,
        None => return Finding::AskEachAndAgain,
        Some(Connection::Disconnected) => EndReason::DisconnectedAtProvider,
        Some(Connection::Gone) => EndReason::AccountGone,
    };
    match newest {
        Some(Verdict::Valid) => Finding::Contradiction,
        // Our own misconfiguration may be why the user is unknown to the app that is asked about.
        Some(Verdict::Misconfigured) => Finding::Contradiction,
        Some(Verdict::Rejected | Verdict::Unknown) | None => Finding::EndAll(reason),
    }
}

impl Suspicion {
    /// Whether it is about this session.
    pub fn concerns(&self, session: &Session) -> bool {
        !session.ended() && session.subject == self.subject && session.created_at < self.at
    }

    /// Why a session that it concerns ends by itself, now that its access token was rejected; None if it does not.
    ///
    /// The provider's signed word and its rejection of this very token agree. Without such a word a rejected token makes the
    /// session suspect, and its refresh decides. So it does where the token did not live beyond `lives_beyond`: then it may
    /// have been rejected because it expired.
    pub fn ends_alone(&self, session: &Session, lives_beyond: Timestamp) -> Option<EndReason> {
        let rejected = matches!(session.state, State::Suspect(_)) && self.concerns(session);
        let in_its_time = session.pair().is_some_and(|pair| !pair.expiry.passed(lives_beyond));
        (rejected && in_its_time && self.cause == Cause::Notice).then_some(EndReason::DisconnectedAtProvider)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ids::Version, time::Expiry};

    #[test]
    fn only_a_clear_word_that_nothing_contradicts_ends_all() {
        use Connection::{Connected, Disconnected, Gone};
        use EndReason::{AccountGone, DisconnectedAtProvider};
        let table = [
            (Some(Disconnected), None, Finding::EndAll(DisconnectedAtProvider)),
            (Some(Disconnected), Some(Verdict::Rejected), Finding::EndAll(DisconnectedAtProvider)),
            (Some(Disconnected), Some(Verdict::Unknown), Finding::EndAll(DisconnectedAtProvider)),
            (Some(Disconnected), Some(Verdict::Valid), Finding::Contradiction),
            (Some(Disconnected), Some(Verdict::Misconfigured), Finding::Contradiction),
            (Some(Gone), None, Finding::EndAll(AccountGone)),
            (Some(Gone), Some(Verdict::Rejected), Finding::EndAll(AccountGone)),
            (Some(Gone), Some(Verdict::Valid), Finding::Contradiction),
            (Some(Connected), None, Finding::AskEach),
            (Some(Connected), Some(Verdict::Rejected), Finding::AskEach),
            (None, None, Finding::AskEachAndAgain),
            (None, Some(Verdict::Rejected), Finding::AskEachAndAgain),
        ];
        for (connection, newest, expected) in table {
            assert_eq!(finding(connection, newest), expected, "{connection:?} {newest:?}");
        }
    }

    #[test]
    fn every_reason_for_all_is_user_wide() {
        for connection in [Connection::Disconnected, Connection::Gone] {
            let Finding::EndAll(reason) = finding(Some(connection), None) else { panic!("{connection:?}") };
            assert!(reason.user_wide(), "BLAST: {reason:?}");
        }
    }

    #[test]
    fn the_operator_chooses_what_a_dead_token_means_for_the_others() {
        use Cause::{AccessTokenRejected, Notice, Probe, RefreshTokenRejected};
        let table = [
            (RefreshTokenRejected, Cascade::Confirm, Response::Confirm),
            (RefreshTokenRejected, Cascade::Always, Response::EndAll),
            (RefreshTokenRejected, Cascade::Never, Response::Nothing),
            (AccessTokenRejected, Cascade::Confirm, Response::Confirm),
            (AccessTokenRejected, Cascade::Always, Response::Confirm),
            (AccessTokenRejected, Cascade::Never, Response::Nothing),
            (Notice, Cascade::Never, Response::Confirm),
            (Notice, Cascade::Always, Response::Confirm),
            (Probe, Cascade::Never, Response::Confirm),
        ];
        for (cause, cascade, expected) in table {
            assert_eq!(cause.response(cascade), expected, "{cause:?} {cascade:?}");
        }
    }

    #[test]
    fn a_word_and_a_token_that_died_before_its_time_end_one_session() {
        use crate::session::tests::live;
        let rejected = live().suspect(Version::FIRST).unwrap();
        let Expiry::At(expires_at) = rejected.pair().unwrap().expiry else { panic!("it expires") };
        let (t0, later) = (rejected.created_at, rejected.created_at.after(Duration::from_secs(1)));
        let other = Subject { id: "another".to_owned(), ..rejected.subject.clone() };
        let ends = Some(EndReason::DisconnectedAtProvider);
        let table = [
            (&rejected, Cause::Notice, later, t0, ends),
            (&rejected, Cause::Notice, t0, t0, None),
            (&rejected, Cause::Notice, later, expires_at, None),
            (&rejected, Cause::AccessTokenRejected, later, t0, None),
            (&rejected, Cause::Probe, later, t0, None),
            (&live(), Cause::Notice, later, t0, None),
        ];
        for (session, cause, at, now, expected) in table {
            let suspicion = Suspicion { subject: session.subject.clone(), at, cause };
            assert_eq!(suspicion.ends_alone(session, now), expected, "{cause:?} {at:?} {now:?}");
            let of_another = Suspicion { subject: other.clone(), ..suspicion };
            assert_eq!(of_another.ends_alone(session, now), None, "BLAST");
        }
    }

    #[test]
    fn causes_have_names() {
        for (cause, name) in Cause::NAMES {
            assert_eq!((cause.name(), Cause::from_name(name)), (name, Some(cause)));
        }
        assert_eq!(Cause::from_name("nonsense"), None);
    }

    #[test]
    fn a_suspicion_concerns_the_users_older_sessions_that_have_not_ended() {
        use crate::session::{EndReason, tests::live};
        let row = live();
        let (before, at) = (row.created_at, row.created_at.after(Duration::from_millis(1)));
        let concerns = |row: &Session, subject: &Subject, at| {
            Suspicion { subject: subject.clone(), at, cause: Cause::Notice }.concerns(row)
        };
        let another = Subject { id: "another".to_owned(), ..row.subject.clone() };
        let (ended, _) = row.clone().end(EndReason::SignedOut, at).unwrap();
        assert!(concerns(&row, &row.subject, at));
        assert!(!concerns(&row, &row.subject, before), "OTHERS: one that began at that moment is spared");
        assert!(!concerns(&row, &another, at), "BLAST");
        assert!(!concerns(&ended, &row.subject, at));
    }
}
