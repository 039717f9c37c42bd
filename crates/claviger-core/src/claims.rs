//! The undo rules of a refresh: what becomes of a claim that was written, or may have been, before
//! its refresh token is sent.
//!
//! A refresh writes its claim first and sends the token after that. These rules decide whether it
//! may send, and how a claim is taken back that was not sent.
//!
//! | write of the claim | time left | what follows |
//! |---|---|---|
//! | written | enough | send |
//! | written | not enough | take the claim back |
//! | another writer was first | | read the row again |
//! | outcome unknown | | take the claim back, since it may be written, even later |
//! | not written | | nothing to take back |
//!
//! | row when the claim is taken back | token was to be sent | undo |
//! |---|---|---|
//! | still as before the claim | | bump the version, so that a late write of the claim fails |
//! | changed since | for the first time | release the claim |
//! | changed since | a second time | keep the lost answer, and allow the replay again |

use crate::{Change, Claim, ProviderHabits, Refused, Session, Timestamp, Version, limits};

/// What the store says of the write of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimWrite {
    /// The row holds the claim.
    Written,
    /// Another writer was first, and the row does not hold the claim.
    Conflict,
    /// It was written, or will be yet, or not.
    Unknown,
    /// It was certainly not written.
    Failed,
}

/// Whether the provider's answer can arrive before it is too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLeft {
    /// It arrives while the claim's lease holds, and a replay while the provider accepts it.
    Enough,
    /// Somebody else may soon send the same token, or the provider would not accept the replay.
    NotEnough,
}

/// What follows from the write of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterClaim {
    /// The refresh token is sent.
    Send,
    /// The row is read again.
    ReadAgain,
    /// Nothing is sent, and the claim is taken back.
    TakeBack,
    /// Nothing is sent, and there is nothing to take back.
    GiveUp,
}

/// How a claim that was not sent is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Bump the version and change nothing else. A late write of the claim then fails.
    BumpVersion,
    /// Remove the claim.
    Release,
    /// Leave the row with a lost answer, as before the claim, and its replay not used up.
    AllowReplay,
}

/// Decides what follows from the write of a claim.
pub fn after_claim(write: ClaimWrite, time_left: TimeLeft) -> AfterClaim {
    match (write, time_left) {
        (ClaimWrite::Written, TimeLeft::Enough) => AfterClaim::Send,
        (ClaimWrite::Written, TimeLeft::NotEnough) | (ClaimWrite::Unknown, _) => AfterClaim::TakeBack,
        (ClaimWrite::Conflict, _) => AfterClaim::ReadAgain,
        (ClaimWrite::Failed, _) => AfterClaim::GiveUp,
    }
}

/// Decides how to take back a claim on a row. The row had the version `before` when the claim was
/// made for it, and has the version `now`.
pub fn undo(claim: &Claim, before: Version, now: Version) -> Undo {
    match (now == before, claim.replay) {
        (true, _) => Undo::BumpVersion,
        (false, false) => Undo::Release,
        (false, true) => Undo::AllowReplay,
    }
}

impl Claim {
    /// Whether the provider's answer can arrive before it is too late, if the token is sent now.
    pub fn time_left(&self, now: Timestamp, habits: &ProviderHabits) -> TimeLeft {
        // To another instance the lease may seem to be over sooner.
        let answered = limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER + limits::CLOCK_SKEW;
        let leased = now.after(answered) < self.lease_until;
        if leased && (!self.replay || self.replay_arrives(now, habits)) {
            TimeLeft::Enough
        } else {
            TimeLeft::NotEnough
        }
    }
}

impl Session {
    /// Takes back a claim that was made for the row when it had the version `before`, and was not
    /// sent.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Claimed`] if the row does not hold the claim.
    pub fn take_back(self, claim: &Claim, before: Version) -> Result<Change, Refused> {
        match undo(claim, before, self.version) {
            Undo::BumpVersion => self.bump_version(),
            Undo::Release => self.release(claim.attempt),
            Undo::AllowReplay => self.lose_answer(claim.attempt, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{AttemptId, Fingerprint};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn claim(replay: bool) -> Claim {
        Claim {
            attempt: AttemptId([1; 16]),
            taken_at: NOW,
            lease_until: NOW.after(limits::CLAIM_LEASE),
            fingerprint: Fingerprint([0; 16]),
            replay,
            answer_lost: false,
        }
    }

    #[test]
    fn a_token_is_sent_only_under_a_claim_that_is_written_in_time() {
        let table = [
            (ClaimWrite::Written, TimeLeft::Enough, AfterClaim::Send),
            (ClaimWrite::Written, TimeLeft::NotEnough, AfterClaim::TakeBack),
            (ClaimWrite::Conflict, TimeLeft::Enough, AfterClaim::ReadAgain),
            (ClaimWrite::Conflict, TimeLeft::NotEnough, AfterClaim::ReadAgain),
            (ClaimWrite::Unknown, TimeLeft::Enough, AfterClaim::TakeBack),
            (ClaimWrite::Unknown, TimeLeft::NotEnough, AfterClaim::TakeBack),
            (ClaimWrite::Failed, TimeLeft::Enough, AfterClaim::GiveUp),
            (ClaimWrite::Failed, TimeLeft::NotEnough, AfterClaim::GiveUp),
        ];
        for (write, time_left, expected) in table {
            assert_eq!(after_claim(write, time_left), expected, "{write:?} {time_left:?}");
        }
    }

    #[test]
    fn a_claim_is_taken_back_by_what_became_of_its_row() {
        let (before, written) = (Version(7), Version(8));
        let table = [
            (false, before, Undo::BumpVersion),
            (true, before, Undo::BumpVersion),
            (false, written, Undo::Release),
            (true, written, Undo::AllowReplay),
        ];
        for (replay, now, expected) in table {
            assert_eq!(undo(&claim(replay), before, now), expected, "replay {replay}, version {now:?}");
        }
    }

    #[test]
    fn there_is_time_while_the_answer_arrives_within_lease_and_window() {
        let answer = limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER;
        let too_late = limits::CLAIM_LEASE.checked_sub(answer + limits::CLOCK_SKEW).unwrap();
        let short = ProviderHabits { replay_window: answer, ..ProviderHabits::FORGIVING };
        let (second, long) = (Duration::from_secs(1), ProviderHabits::FORGIVING);
        let table = [
            (false, Duration::ZERO, long, TimeLeft::Enough),
            (false, too_late.checked_sub(second).unwrap(), long, TimeLeft::Enough),
            (false, too_late, long, TimeLeft::NotEnough),
            (true, Duration::ZERO, long, TimeLeft::Enough),
            (true, too_late, long, TimeLeft::NotEnough),
            (true, Duration::ZERO, short, TimeLeft::NotEnough),
            (false, Duration::ZERO, short, TimeLeft::Enough),
        ];
        for (replay, waited, habits, expected) in table {
            let time_left = claim(replay).time_left(NOW.after(waited), &habits);
            assert_eq!(time_left, expected, "replay {replay}, after {waited:?}");
        }
    }
}
