//! The suspicion that a user disconnected the app, and what confirms or clears it.
//!
//! No single sign of a disconnect ends another session: a token may die alone, an event may be
//! late, and the user may have come back. So the provider is asked about the user, and its clear
//! answer decides.
//!
//! | provider about the user | its newest living session's token | what follows |
//! |---|---|---|
//! | disconnected, or no such user | is rejected, or there is none, or nothing is proven | all sessions older than the event end |
//! | disconnected, or no such user | is good | the answers contradict each other: ask again later |
//! | connected | | each session older than the event is validated |
//! | cannot be asked | | the same, and the suspicion stays |

use crate::{Cascade, EndReason, Session, State, Subject, Timestamp, Verdict, named};

/// The suspicion that a user disconnected the app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Suspicion {
    /// The user.
    pub subject: Subject,
    /// When. Sessions that began at this time or later are not concerned.
    pub at: Timestamp,
    /// The cause.
    pub cause: Cause,
}

named! {
    /// What causes a suspicion.
    #[derive(PartialOrd, Ord)]
    pub enum Cause {
        /// The provider sent an event.
        WebhookEvent = "notice",
        /// The provider rejected an access token before its time.
        AccessTokenRejected = "access_token_rejected",
        /// The provider rejected a refresh token.
        RefreshTokenRejected = "refresh_token_rejected",
        /// The provider said so when asked about the user.
        ConnectionCheck = "probe",
    }
}

impl Cause {
    /// Returns the response to a suspicion of this kind that the operator chose.
    pub fn response(self, cascade: Cascade) -> Response {
        match (self, cascade) {
            (Self::RefreshTokenRejected, Cascade::Always) => Response::EndAll(EndReason::Administrator),
            (Self::RefreshTokenRejected | Self::AccessTokenRejected, Cascade::Never) => Response::Nothing,
            _ => Response::Confirm,
        }
    }
}

/// The response to a suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Ask the provider.
    Confirm,
    /// End all of the user's older sessions at once. Nobody knows whether the user disconnected the
    /// app, so the reason is that the operator wants it.
    EndAll(EndReason),
    /// Do nothing: each session notices by itself.
    Nothing,
}

/// Whether a user has the app connected, as the provider says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Connection {
    /// Yes.
    Connected,
    /// No: the user disconnected the app, or never connected it.
    Disconnected,
    /// The user does not exist.
    Gone,
}

/// What to do about a suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is confirmed: end all of the user's sessions that are older than the event.
    EndAll(EndReason),
    /// It proves nothing about the user as a whole: validate each older session. If the provider
    /// sent an event and a session's token is dead, both together end that session.
    AskEach,
    /// The same, and ask about the user again later.
    AskEachAndAgain,
    /// Two answers contradict each other: ask again later, and end nothing now.
    Contradiction,
}

/// Decides what to do. `connection` is `None` if the provider could not say. `newest` is the
/// verdict on the access token of the user's newest living session, if there is one.
pub fn finding(connection: Option<Connection>, newest: Option<Verdict>) -> Finding {
    let reason = match connection {
        Some(Connection::Connected) => return Finding::AskEach,
        None => return Finding::AskEachAndAgain,
        Some(Connection::Disconnected) => EndReason::DisconnectedAtProvider,
        Some(Connection::Gone) => EndReason::AccountGone,
    };
    match newest {
        Some(Verdict::Valid) => Finding::Contradiction,
        // Our own misconfiguration may be why the provider does not know the user.
        Some(Verdict::Misconfigured) => Finding::Contradiction,
        Some(Verdict::Rejected | Verdict::Unknown) | None => Finding::EndAll(reason),
    }
}

impl Suspicion {
    /// Returns whether it concerns this session.
    pub fn concerns(&self, session: &Session) -> bool {
        !session.ended() && session.subject == self.subject && session.created_at < self.at
    }

    /// Returns why a session that it concerns ends now that its access token was rejected, or
    /// `None` if it does not end.
    ///
    /// The provider's signed event and its rejection of this very token agree. Without an event a
    /// rejected token makes the session suspect, and its refresh decides. The same holds if the
    /// token does not live beyond `lives_beyond`, since it may have been rejected because it
    /// expired.
    pub fn ends_alone(&self, session: &Session, lives_beyond: Timestamp) -> Option<EndReason> {
        let rejected = matches!(session.state, State::Suspect(_)) && self.concerns(session);
        let in_its_time = session.pair().is_some_and(|pair| !pair.expiry.passed(lives_beyond));
        (rejected && in_its_time && self.cause == Cause::WebhookEvent)
            .then_some(EndReason::DisconnectedAtProvider)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Expiry, Version};

    #[test]
    fn only_an_uncontradicted_answer_ends_all_sessions() {
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
    fn reasons_for_all_sessions_are_user_wide() {
        for connection in [Connection::Disconnected, Connection::Gone] {
            let Finding::EndAll(reason) = finding(Some(connection), None) else { panic!("{connection:?}") };
            assert!(reason.user_wide(), "BLAST: {reason:?}");
        }
        let Response::EndAll(reason) = Cause::RefreshTokenRejected.response(Cascade::Always) else {
            panic!("it ends all")
        };
        assert!(reason.user_wide(), "BLAST: {reason:?}");
    }

    #[test]
    fn cascade_decides_about_the_other_sessions() {
        use Cause::{AccessTokenRejected, ConnectionCheck, RefreshTokenRejected, WebhookEvent};
        let table = [
            (RefreshTokenRejected, Cascade::Confirm, Response::Confirm),
            (RefreshTokenRejected, Cascade::Always, Response::EndAll(EndReason::Administrator)),
            (RefreshTokenRejected, Cascade::Never, Response::Nothing),
            (AccessTokenRejected, Cascade::Confirm, Response::Confirm),
            (AccessTokenRejected, Cascade::Always, Response::Confirm),
            (AccessTokenRejected, Cascade::Never, Response::Nothing),
            (WebhookEvent, Cascade::Never, Response::Confirm),
            (WebhookEvent, Cascade::Always, Response::Confirm),
            (ConnectionCheck, Cascade::Never, Response::Confirm),
        ];
        for (cause, cascade, expected) in table {
            assert_eq!(cause.response(cascade), expected, "{cause:?} {cascade:?}");
        }
    }

    #[test]
    fn an_event_and_a_dead_token_end_one_session() {
        use crate::session::tests::live;
        let rejected = live().suspect(Version::FIRST).unwrap().into_next();
        let Expiry::At(expires_at) = rejected.pair().unwrap().expiry else { panic!("it expires") };
        let (t0, later) = (rejected.created_at, rejected.created_at.after(Duration::from_secs(1)));
        let other = Subject { id: "another".to_owned(), ..rejected.subject.clone() };
        let ends = Some(EndReason::DisconnectedAtProvider);
        let table = [
            (&rejected, Cause::WebhookEvent, later, t0, ends),
            (&rejected, Cause::WebhookEvent, t0, t0, None),
            (&rejected, Cause::WebhookEvent, later, expires_at, None),
            (&rejected, Cause::AccessTokenRejected, later, t0, None),
            (&rejected, Cause::ConnectionCheck, later, t0, None),
            (&live(), Cause::WebhookEvent, later, t0, None),
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
    fn a_suspicion_concerns_the_users_older_open_sessions() {
        use crate::{EndReason, session::tests::live};
        let row = live();
        let (before, at) = (row.created_at, row.created_at.after(Duration::from_millis(1)));
        let concerns = |row: &Session, subject: &Subject, at| {
            Suspicion { subject: subject.clone(), at, cause: Cause::WebhookEvent }.concerns(row)
        };
        let another = Subject { id: "another".to_owned(), ..row.subject.clone() };
        let ended = row.clone().end(EndReason::SignedOut, at).unwrap().into_next();
        assert!(concerns(&row, &row.subject, at));
        assert!(!concerns(&row, &row.subject, before), "OTHERS: one that began at that moment is spared");
        assert!(!concerns(&row, &another, at), "BLAST");
        assert!(!concerns(&ended, &row.subject, at));
    }
}
