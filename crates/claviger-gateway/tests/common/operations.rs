//! The users' requests and answers, and the rules for them, judged in one pass.

use std::collections::BTreeMap;

use claviger_core::SessionId;

/// Milliseconds since 1970 by the clock of this computer, which the database uses too.
pub type Millis = i64;

/// A device's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A call of the provider's API with the session's token.
    Call,
    /// The session's identity, which a gateway may answer from memory.
    Look,
    /// Another route that needs a session.
    Page,
    /// A sign-out.
    SignOut,
    /// The callback after the renewal at the provider.
    Renewal,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No answer, so it is unknown whether the request was received.
    None,
    /// Served, as this user.
    Served(String),
    /// Done, with nothing to serve.
    Done,
    /// Come back later.
    Later,
    /// The session is in force, and the device must go to the provider and back.
    RenewalNeeded,
    /// Refused by the provider's API, whose answer was passed on: the token expired on the way.
    PassedOn,
    /// Signed out, for this reason.
    Over(Option<String>),
    /// Anything else.
    Other(String),
}

/// One request of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub session: SessionId,
    /// The session.
    pub user: String,
    pub asked: Asked,
    pub began: Millis,
    pub ended: Millis,
    pub answer: Answer,
    /// The gateway that answered.
    pub by: Option<String>,
    /// Whether the answer cleared the session's cookie or replaced it by another session's.
    pub cookie_touched: bool,
}

/// What is known of a session's end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leaving {
    /// When its user first asked for it.
    pub asked: Option<Millis>,
    /// When its user was first told that it was done.
    pub done: Option<Millis>,
    /// When its user was first told, by any answer, that the session is over.
    pub told: Option<Millis>,
}

impl Leaving {
    fn note(&mut self, operation: &Operation) {
        let earlier = |known: &mut Option<Millis>, at| *known = Some(known.map_or(at, |known| at.min(known)));
        if operation.asked == Asked::SignOut {
            earlier(&mut self.asked, operation.began);
            if operation.answer == Answer::Done {
                earlier(&mut self.done, operation.ended);
            }
        }
        if matches!(operation.answer, Answer::Over(_)) {
            earlier(&mut self.told, operation.ended);
        }
    }

    /// Returns from when on the session must not be served.
    fn known(self) -> Option<Millis> {
        self.done.into_iter().chain(self.told).min()
    }
}

pub type Violation = (&'static str, String);

/// Every request of the users.
#[derive(Default)]
pub struct Operations {
    all: Vec<Operation>,
    leaving: BTreeMap<SessionId, Leaving>,
}

impl Operations {
    pub fn add(&mut self, operation: Operation) {
        self.leaving.entry(operation.session).or_default().note(&operation);
        self.all.push(operation);
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Counts the requests like this.
    pub fn count_of(&self, like: impl Fn(&Operation) -> bool) -> usize {
        self.all.iter().filter(|operation| like(operation)).count()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Operation> {
        self.all.iter()
    }

    /// Returns the requests that failed.
    pub fn failed(&self) -> Vec<&Operation> {
        let given = |answer: &Answer| matches!(answer, Answer::Served(_) | Answer::Done);
        self.all.iter().filter(|operation| !given(&operation.answer)).collect()
    }

    /// Returns what is known of the ends of sessions that users asked for, or that an answer
    /// reported.
    pub fn leaving(&self) -> impl Iterator<Item = (SessionId, Leaving)> {
        self.leaving.iter().map(|(id, leaving)| (*id, *leaving))
    }

    /// Returns the violations. Every instance must know of an end within this many milliseconds of
    /// its answer.
    pub fn violations(&self, heard_within: Millis) -> Vec<Violation> {
        self.all.iter().flat_map(|operation| self.judge(operation, heard_within)).collect()
    }

    fn judge(&self, operation: &Operation, heard_within: Millis) -> Vec<Violation> {
        let leaving = self.leaving[&operation.session];
        let may_be_over = leaving.asked.is_some_and(|asked| asked <= operation.ended);
        let mut violations = Vec::new();
        let mut violated = |name, what: &str| violations.push((name, format!("{what}: {operation:?}")));
        match &operation.answer {
            Answer::Served(user) => {
                if *user != operation.user {
                    violated("ISO", "served as somebody else");
                }
                if leaving.known().is_some_and(|known| operation.began > known + heard_within) {
                    violated("ENDED", "served after the end");
                }
            }
            Answer::Over(_) if !may_be_over => violated("TRANSIENT", "signed out, and nobody asked for it"),
            Answer::Over(reason) if reason.as_deref() != Some("signed_out") => {
                violated("TRANSIENT", "signed out for another reason than the user's wish");
            }
            Answer::Other(_) => violated("TRANSIENT", "answered as no device in force may be"),
            Answer::None
            | Answer::Done
            | Answer::Later
            | Answer::RenewalNeeded
            | Answer::PassedOn
            | Answer::Over(_) => {}
        }
        if operation.cookie_touched && !may_be_over {
            violated("LOSER", "the cookie of a session in force was touched");
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use claviger_core::Timestamp;

    use super::*;

    fn at(began: Millis, asked: Asked, answer: Answer) -> Operation {
        Operation {
            session: SessionId::new(Timestamp::EPOCH, [1; 10]),
            user: "ada".to_owned(),
            asked,
            began,
            ended: began + 10,
            answer,
            by: None,
            cookie_touched: false,
        }
    }

    fn call(began: Millis, answer: Answer) -> Operation {
        at(began, Asked::Call, answer)
    }

    fn served(began: Millis) -> Operation {
        call(began, Answer::Served("ada".to_owned()))
    }

    fn over(began: Millis) -> Operation {
        call(began, Answer::Over(Some("signed_out".to_owned())))
    }

    fn names(operations: Vec<Operation>) -> Vec<&'static str> {
        let mut all = Operations::default();
        operations.into_iter().for_each(|operation| all.add(operation));
        all.violations(100).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn permitted_answers_violate_nothing() {
        let passing = [Answer::None, Answer::Later, Answer::RenewalNeeded, Answer::PassedOn];
        let cleared = |operation| Operation { cookie_touched: true, ..operation };
        let mut operations: Vec<_> = passing.into_iter().map(|answer| call(0, answer)).collect();
        operations.extend([
            served(5),
            at(20, Asked::Renewal, Answer::Done),
            cleared(at(100, Asked::SignOut, Answer::Done)),
            // It began before every instance knew of the end.
            served(205),
            cleared(over(150)),
            over(5_000),
        ]);
        assert_eq!(names(operations), Vec::<&str>::new());
        let unanswered = at(100, Asked::SignOut, Answer::None);
        assert_eq!(names(vec![unanswered, served(5_000)]), Vec::<&str>::new(), "nobody knows that it ended");
    }

    #[test]
    fn each_planted_fault_is_found() {
        let signed_out = at(100, Asked::SignOut, Answer::Done);
        let unanswered = at(100, Asked::SignOut, Answer::None);
        let table = [
            ("another user's answer", vec![call(0, Answer::Served("eve".to_owned()))], "ISO"),
            ("served after a sign-out", vec![signed_out.clone(), served(211)], "ENDED"),
            ("served after a refusal", vec![unanswered, over(200), served(311)], "ENDED"),
            ("an end that nobody asked for", vec![over(0)], "TRANSIENT"),
            ("an end before it was asked for", vec![over(80), signed_out.clone()], "TRANSIENT"),
            (
                "an end for another reason",
                vec![signed_out.clone(), call(200, Answer::Over(Some("disconnected".to_owned())))],
                "TRANSIENT",
            ),
            ("no session", vec![call(0, Answer::Over(None))], "TRANSIENT"),
            (
                "an answer that nobody understands",
                vec![call(0, Answer::Other("500".to_owned()))],
                "TRANSIENT",
            ),
            ("a cookie cleared", vec![Operation { cookie_touched: true, ..served(0) }], "LOSER"),
            (
                "a cookie cleared before the sign-out",
                vec![Operation { cookie_touched: true, ..served(80) }, signed_out],
                "LOSER",
            ),
        ];
        for (name, operations, expected) in table {
            assert_eq!(names(operations), [expected], "{name}");
        }
    }
}
