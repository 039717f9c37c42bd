//! SPENT: a refresh token is sent once, and at most once more after its answer was lost.
//!
//! This states the rule of docs/decisions/0006 a second time, by other means: what the instances
//! wrote, what they sent, and what came back. Earlier claims on the same pair that were not given
//! back decide what a claim may do:
//!
//! | claims before | this one is | allowed |
//! |---|---|---|
//! | none | the first sending | yes |
//! | one | the replay | if the first answer was lost or its lease is over, and if the replay arrives within the provider's window |
//! | two or more | a third sending | never |
//!
//! A claim is given back only if its token was not sent, or if the answer says that nothing was
//! done. A dead token, an answer that may hide a success, and no answer at all use it up. Each
//! request has its own claim.

use bytes::Bytes;
use claviger_core::{
    AttemptId, Claim, Fingerprint, ProviderHabits, Rotation, Session, SessionId, Timestamp, Version, limits,
};
use claviger_provider::Unanswered;
use http::{Response, StatusCode, header::RETRY_AFTER};

use crate::fate::CLOCKS_APART;

/// Every claim ever committed, oldest first.
pub(crate) struct Sends {
    habits: ProviderHabits,
    attempts: Vec<Attempt>,
}

/// A claim.
struct Attempt {
    id: AttemptId,
    by: usize,
    pair: (SessionId, Version),
    fingerprint: Fingerprint,
    sent_at: Option<Timestamp>,
    heard: Option<Heard>,
    given_back: bool,
}

/// What the sender of a refresh token received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// An answer which says that nothing was done.
    TurnedAway,
    /// A pair, a dead token, an answer that may hide a success, or nothing.
    Anything,
}

/// A refresh token that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) attempt: AttemptId,
    /// Whether it was sent before, and may be spent.
    pub(crate) again: bool,
}

impl Sends {
    pub(crate) fn new(habits: ProviderHabits) -> Self {
        Self { habits, attempts: Vec::new() }
    }

    /// Records a committed row. Returns how it breaks the rule.
    pub(crate) fn committed(
        &mut self,
        by: usize,
        before: &Session,
        next: &Session,
        now: Timestamp,
    ) -> Option<&'static str> {
        let claim = |row: &Session| row.active().and_then(|active| active.claim);
        match (claim(before), claim(next)) {
            (old, Some(new)) if old.is_none_or(|old| old.attempt != new.attempt) => {
                self.takes(by, (next.id, next.generation()?), old, new, now)
            }
            (Some(old), Some(new)) if old.replay && !new.replay => self.gives_back(old.attempt),
            (Some(old), None) if !next.ended() && before.generation() == next.generation() => {
                self.gives_back(old.attempt)
            }
            _ => None,
        }
    }

    fn takes(
        &mut self,
        by: usize,
        pair: (SessionId, Version),
        old: Option<Claim>,
        new: Claim,
        now: Timestamp,
    ) -> Option<&'static str> {
        let used = self.attempts.iter().filter(|own| own.pair == pair && !own.given_back).count();
        let lost = old.is_some_and(|old| old.ambiguous(now.after(CLOCKS_APART)));
        self.attempts.push(Attempt {
            id: new.attempt,
            by,
            pair,
            fingerprint: new.fingerprint,
            sent_at: None,
            heard: None,
            given_back: false,
        });
        match used {
            _ if !self.spends() => None,
            0 => None,
            1 if lost => None,
            1 => Some("a refresh token was claimed while its answer was not lost"),
            _ => Some("a refresh token was claimed again after its replay"),
        }
    }

    fn gives_back(&mut self, attempt: AttemptId) -> Option<&'static str> {
        let spends = self.spends();
        let own = self.attempts.iter_mut().find(|own| own.id == attempt)?;
        own.given_back = true;
        let unspent = own.sent_at.is_none() || own.heard == Some(Heard::TurnedAway);
        (spends && !unspent).then_some("a claim was given back whose refresh token may be spent")
    }

    /// Records that a request with this refresh token leaves.
    ///
    /// # Errors
    /// How it breaks the rule.
    pub(crate) fn leaves(
        &mut self,
        by: usize,
        fingerprint: Fingerprint,
        now: Timestamp,
    ) -> Result<Sent, &'static str> {
        let unsent = |own: &&mut Attempt| {
            own.by == by && own.fingerprint == fingerprint && own.sent_at.is_none() && !own.given_back
        };
        let own = self.attempts.iter_mut().rev().find(unsent);
        let own = own.ok_or("a refresh token was sent without a claim of its own")?;
        own.sent_at = Some(now);
        let (id, pair) = (own.id, own.pair);
        let others =
            self.attempts.iter().filter(|other| other.pair == pair && other.id != id && !other.given_back);
        let first = others.filter_map(|other| other.sent_at).min();
        if let Some(first) = first.filter(|_| self.spends()) {
            let arrives_after = now.since(first) + limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER;
            if !self.habits.may_replay(arrives_after.saturating_sub(CLOCKS_APART)) {
                return Err("a refresh token was sent again outside the provider's window");
            }
        }
        Ok(Sent { attempt: id, again: first.is_some() })
    }

    /// Records what came back to the request of this claim.
    pub(crate) fn heard(&mut self, attempt: AttemptId, heard: Heard) {
        if let Some(own) = self.attempts.iter_mut().find(|own| own.id == attempt) {
            own.heard = Some(heard);
        }
    }

    fn spends(&self) -> bool {
        self.habits.rotation != Rotation::None
    }
}

/// Returns what an answer says of the refresh token.
pub(crate) fn heard(answer: &Result<Response<Bytes>, Unanswered>, habits: &ProviderHabits) -> Heard {
    let Ok(answer) = answer else { return Heard::Anything };
    let dead = String::from_utf8_lossy(answer.body()).contains("Invalid refresh token");
    match answer.status() {
        // Some gateways answer 503 after they passed the request on and lost the provider.
        StatusCode::SERVICE_UNAVAILABLE
            if habits.reuse_is_harmful() && !answer.headers().contains_key(RETRY_AFTER) =>
        {
            Heard::Anything
        }
        StatusCode::NOT_IMPLEMENTED | StatusCode::SERVICE_UNAVAILABLE => Heard::TurnedAway,
        status if status.is_client_error() && !dead => Heard::TurnedAway,
        _ => Heard::Anything,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    /// An event, with the number of its claim. The instance of the same number takes the claim.
    #[derive(Clone, Copy)]
    enum Event {
        Take(u8),
        Leave(u8),
        Hear(u8, Heard),
        GiveBack(u8),
        /// The row records that the answer to its claim was lost.
        Lose,
        Pass(Duration),
    }

    use Event::{GiveBack, Hear, Leave, Lose, Pass, Take};
    use Heard::{Anything, TurnedAway};

    fn check(name: &str, habits: ProviderHabits, events: &[Event], expected: &[&str]) {
        let mut sends = Sends::new(habits);
        let pair = (SessionId::new(Timestamp::EPOCH, [1; 10]), Version::FIRST);
        let fingerprint = Fingerprint([7; 16]);
        let (mut now, mut row, mut violations) = (Timestamp::EPOCH, None::<Claim>, Vec::new());
        for event in events {
            match *event {
                Take(n) => {
                    let claim = Claim {
                        attempt: AttemptId([n; 16]),
                        taken_at: now,
                        lease_until: now.after(limits::CLAIM_LEASE),
                        fingerprint,
                        replay: row.is_some(),
                        answer_lost: false,
                    };
                    violations.extend(sends.takes(n.into(), pair, row, claim, now));
                    row = Some(claim);
                }
                Leave(n) => violations.extend(sends.leaves(n.into(), fingerprint, now).err()),
                Hear(n, heard) => sends.heard(AttemptId([n; 16]), heard),
                GiveBack(n) => {
                    violations.extend(sends.gives_back(AttemptId([n; 16])));
                    row = row.map(|claim| Claim { answer_lost: true, ..claim }).filter(|claim| claim.replay);
                }
                Lose => row = row.map(|claim| Claim { answer_lost: true, ..claim }),
                Pass(span) => now = now.after(span),
            }
        }
        assert_eq!(violations, expected, "{name}");
    }

    const ONE_TIME: ProviderHabits = ProviderHabits {
        rotation: Rotation::OneTime,
        replay_window: HOUR,
        reuse_kills_connection: false,
        old_access_token_survives: true,
    };
    const STRICT: ProviderHabits = ProviderHabits { replay_window: Duration::ZERO, ..ONE_TIME };

    #[test]
    fn what_the_rule_allows_is_allowed() {
        let lease = Pass(limits::CLAIM_LEASE);
        let turned_away = [Take(1), Leave(1), Hear(1, TurnedAway), GiveBack(1), Take(2), Leave(2)];
        check("the first was turned away", STRICT, &turned_away, &[]);
        check("the first did not leave", STRICT, &[Take(1), GiveBack(1), Take(2), Leave(2)], &[]);
        check("the first died unsent", ONE_TIME, &[Take(1), lease, Take(2), Leave(2)], &[]);
        let lost = [Take(1), Leave(1), Hear(1, Anything), Lose, Take(2), Leave(2)];
        check("one replay of a lost answer", ONE_TIME, &lost, &[]);
        let died = [Take(1), Leave(1), lease, Take(2), Leave(2)];
        check("one replay after its sender died", ONE_TIME, &died, &[]);
        let again = [Hear(2, TurnedAway), GiveBack(2), Take(3), Leave(3), Hear(3, TurnedAway), GiveBack(3)];
        let later = [Pass(HOUR / 2), Take(4), Leave(4)];
        let many: Vec<_> = lost.iter().chain(&again).chain(&later).copied().collect();
        check("a replay that was turned away is not used up", ONE_TIME, &many, &[]);
        let none = ProviderHabits { rotation: Rotation::None, ..STRICT };
        let often = [Take(1), Leave(1), Lose, Take(2), Leave(2), Lose, Take(3), Leave(3), Lose, GiveBack(3)];
        check("where no refresh spends a token", none, &often, &[]);
    }

    #[test]
    fn each_planted_fault_is_found_and_named() {
        let own = "a refresh token was sent without a claim of its own";
        check("no claim", ONE_TIME, &[Leave(1)], &[own]);
        check("two requests of one claim", ONE_TIME, &[Take(1), Leave(1), Leave(1)], &[own]);
        check("another's claim", ONE_TIME, &[Take(1), Leave(2)], &[own]);
        check("a claim that was given back", ONE_TIME, &[Take(1), GiveBack(1), Leave(1)], &[own]);

        let early = "a refresh token was claimed while its answer was not lost";
        check("within the lease", ONE_TIME, &[Take(1), Pass(Duration::from_secs(20)), Take(2)], &[early]);

        let third = "a refresh token was claimed again after its replay";
        let replayed = [Take(1), Leave(1), Lose, Take(2), Leave(2), Hear(2, Anything), Lose];
        let lost: Vec<_> = replayed.iter().copied().chain([Take(3)]).collect();
        check("the replay was lost too", ONE_TIME, &lost, &[third]);

        let spent = "a claim was given back whose refresh token may be spent";
        let first = [Take(1), Leave(1), Hear(1, Anything), GiveBack(1), Take(2), Leave(2)];
        check("a first sending that may have worked", ONE_TIME, &first, &[spent]);
        check("an answer that did not come yet", ONE_TIME, &[Take(1), Leave(1), GiveBack(1)], &[spent]);
        let replay: Vec<_> = replayed.iter().copied().chain([GiveBack(2)]).collect();
        check("a replay that may have worked", ONE_TIME, &replay, &[spent]);

        let window = "a refresh token was sent again outside the provider's window";
        let strict = [Take(1), Leave(1), Lose, Take(2), Leave(2)];
        check("no window", STRICT, &strict, &[window]);
        let late = [Take(1), Leave(1), Lose, Pass(HOUR - Duration::from_secs(10)), Take(2), Leave(2)];
        check("it leaves within the window, and arrives outside", ONE_TIME, &late, &[window]);
    }

    #[test]
    fn an_answer_says_whether_something_was_done() {
        let says = |status: u16, body: &'static str, retry_after: Option<&'static str>| {
            let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
            if let Some(value) = retry_after {
                answer.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static(value));
            }
            Ok(answer)
        };
        let harmless = ProviderHabits::FORGIVING;
        let table = [
            (says(200, "{}", None), Anything, Anything),
            (says(400, r#"{"message":"Invalid refresh token"}"#, None), Anything, Anything),
            (says(403, r#"{"message":"invalid client secret"}"#, None), TurnedAway, TurnedAway),
            (says(404, "", None), TurnedAway, TurnedAway),
            (says(429, "", None), TurnedAway, TurnedAway),
            (says(500, "", None), Anything, Anything),
            (says(501, "", None), TurnedAway, TurnedAway),
            (says(502, "", None), Anything, Anything),
            (says(503, "", None), Anything, TurnedAway),
            (says(503, "", Some("20")), TurnedAway, TurnedAway),
            (Err(Unanswered::NoAnswer), Anything, Anything),
        ];
        for (answer, harmful_says, harmless_says) in table {
            assert_eq!(heard(&answer, &ONE_TIME), harmful_says, "{answer:?}");
            assert_eq!(heard(&answer, &harmless), harmless_says, "{answer:?}");
        }
    }
}
