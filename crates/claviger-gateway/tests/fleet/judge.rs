//! Judges a run by its records: the commits in the database, the final rows, the users' answers,
//! and what the provider received.

use std::{collections::BTreeMap, sync::Arc};

use claviger_core::SessionId;

use crate::{
    common::{
        history::{Claims, Commit, Found, History},
        operations::{Answer, Millis, Operation, Operations, Violation},
        sends::Sends,
        users::Device,
    },
    instances::Fleet,
    journal,
};

/// Instances with a change feed know of an end at once. An instance whose feed breaks notices
/// within five seconds (a beat every two, and three of silence), and reads the database from then
/// on.
pub(crate) const HEARD_WITHIN: Millis = 5_000;

/// The records.
pub(crate) struct Record<'a> {
    pub(crate) devices: &'a [Arc<Device>],
    /// The rows before the load began.
    pub(crate) before: Vec<Found>,
    pub(crate) commits: Vec<Commit>,
    /// The rows after everything had recovered.
    pub(crate) after: Vec<Found>,
    pub(crate) operations: &'a Operations,
    pub(crate) sends: Sends,
    pub(crate) reused: u64,
}

/// Reads what is left in the database, when nobody writes any more.
pub(crate) async fn record<'a>(
    fleet: &Fleet,
    devices: &'a [Arc<Device>],
    before: Vec<Found>,
    operations: &'a Operations,
) -> Record<'a> {
    let commits = journal::commits(&fleet.server, &fleet.database).await;
    let after = fleet.rows(devices).await;
    let (sends, reused) = (fleet.users.sends(), fleet.users.reused());
    Record { devices, before, commits, after, operations, sends, reused }
}

impl Record<'_> {
    /// Returns all violations, and a summary of the commits.
    pub(crate) fn judge(self) -> (Vec<Violation>, History) {
        let mut history = History::of(&self.before);
        let leaving = self.operations.leaving();
        history.may_end(leaving.filter(|(_, leaving)| leaving.asked.is_some()).map(|(id, _)| id));
        self.commits.iter().for_each(|commit| history.committed(commit.clone()));
        self.after.iter().for_each(|row| history.found(row));
        let mut violations = history.violations().to_vec();
        violations.extend(self.operations.violations(HEARD_WITHIN));
        violations.extend(self.unkept_ends(&history));
        violations.extend(history.renewals_without_need(self.operations));
        violations.extend(self.lost_pairs(&history));
        violations.extend(self.sent_again(&history));
        violations.extend(self.not_recovered());
        (violations, history)
    }

    /// A sign-out that was answered as done is in the database.
    fn unkept_ends(&self, history: &History) -> Vec<Violation> {
        let done = self.operations.leaving().filter(|(_, leaving)| leaving.done.is_some());
        let lost = done.filter(|(id, _)| !history.has_ended(*id));
        lost.map(|(id, leaving)| ("ENDED", format!("{id}: {leaving:?}, and the row goes on"))).collect()
    }

    /// A pair that the provider issued belongs to a claim that was not given back: it was stored,
    /// or the row ended, or it was ambiguous.
    fn lost_pairs(&self, history: &History) -> Vec<Violation> {
        let mut by_user: BTreeMap<&str, Claims> = BTreeMap::new();
        for device in self.devices {
            let claims = history.claims_of(device.session);
            let of_user = by_user.entry(&device.user).or_default();
            of_user.taken += claims.taken;
            of_user.given_back += claims.given_back;
        }
        let issued = by_user.into_iter().map(|(user, claims)| (user, claims, self.sends.issued_to(user)));
        let lost = issued.filter(|(_, claims, issued)| *issued > claims.taken - claims.given_back);
        lost.map(|(user, claims, issued)| ("STRAND", format!("{user}: {issued} pairs for {claims:?}")))
            .collect()
    }

    /// This provider allows no second sending, so there must be none.
    fn sent_again(&self, history: &History) -> Vec<Violation> {
        let counts = (self.sends.most() > 1, self.reused > 0, history.replays() > 0);
        let told = format!("{} sends of one token, {} reused", self.sends.most(), self.reused);
        if counts == (false, false, false) { Vec::new() } else { vec![("SPENT", told)] }
    }

    /// In the end every row that has not ended is there and unclaimed.
    fn not_recovered(&self) -> Vec<Violation> {
        let claimed = self.after.iter().filter(|row| row.claimed).map(|row| ("LIVE", format!("{row:?}")));
        let found: BTreeMap<SessionId, ()> = self.after.iter().map(|row| (row.id, ())).collect();
        let gone = self.devices.iter().filter(|device| !found.contains_key(&device.session));
        claimed.chain(gone.map(|device| ("TRANSIENT", format!("{} is gone", device.session)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use claviger_core::{Timestamp, Version};
    use claviger_mock::{Endpoint, LogEntry, Outcome};

    use super::*;
    use crate::common::{history::Claim, operations::Asked};

    const ADA: &str = "ada";

    fn id() -> SessionId {
        SessionId::new(Timestamp::EPOCH, [1; 10])
    }

    fn devices() -> [Arc<Device>; 1] {
        [Arc::new(Device::new(id(), ADA.to_owned(), String::new()))]
    }

    fn found(version: u64, generation: u64) -> Found {
        let (version, generation) = (Version(version), Some(Version(generation)));
        Found { id: id(), version, generation, claimed: false }
    }

    fn commit(version: u64, generation: u64) -> Commit {
        Commit {
            id: id(),
            was: Version(version - 1),
            version: Version(version),
            generation: Some(Version(generation)),
            claim: None,
            ended: false,
            reason: None,
            at: i64::try_from(version).unwrap() * 100_000,
        }
    }

    /// A claim whose lease ends before the next commit.
    fn claimed(version: u64, generation: u64) -> Commit {
        let commit = commit(version, generation);
        let claim = Claim { attempt: [1; 16], replay: false, ambiguous_from: commit.at + 30_000 };
        Commit { claim: Some(claim), ..commit }
    }

    fn operation(asked: Asked, began: Millis, answer: Answer) -> Operation {
        let (ended, user) = (began + 10, ADA.to_owned());
        Operation { session: id(), user, asked, began, ended, answer, by: None, cookie_touched: false }
    }

    /// A refresh as the provider logs it.
    fn sent(sequence: u64, token: &str) -> LogEntry {
        LogEntry {
            sequence,
            at_ms: 0,
            endpoint: Endpoint::Token,
            method: "POST".to_owned(),
            outcome: Outcome::Answered(200),
            faulty: false,
            grant_type: Some("refresh_token".to_owned()),
            client_id: None,
            user_id: Some(ADA.to_owned()),
            token: Some(token.to_owned()),
            reused: false,
        }
    }

    /// One faultless refresh from the first pair to the second.
    struct Run {
        commits: Vec<Commit>,
        after: Vec<Found>,
        operations: Vec<Operation>,
        log: Vec<LogEntry>,
        reused: u64,
    }

    impl Default for Run {
        fn default() -> Self {
            Self {
                commits: vec![claimed(2, 1), commit(3, 3)],
                after: vec![found(3, 3)],
                operations: vec![
                    operation(Asked::Call, 50_000, Answer::Served(ADA.to_owned())),
                    // The lease is over, and the claim is still there.
                    operation(Asked::Call, 250_000, Answer::RenewalNeeded),
                ],
                log: vec![sent(1, "first")],
                reused: 0,
            }
        }
    }

    fn names(run: Run) -> Vec<&'static str> {
        let (devices, mut operations, mut sends) = (devices(), Operations::default(), Sends::default());
        run.operations.into_iter().for_each(|operation| operations.add(operation));
        sends.look_at(run.log.iter());
        let record = Record {
            devices: &devices,
            before: vec![found(1, 1)],
            commits: run.commits,
            after: run.after,
            operations: &operations,
            sends,
            reused: run.reused,
        };
        record.judge().0.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_run_without_a_fault_violates_nothing() {
        assert_eq!(names(Run::default()), Vec::<&str>::new());
    }

    #[test]
    fn each_planted_fault_is_found() {
        let run = Run::default;
        let renewal = |at| vec![operation(Asked::Call, at, Answer::RenewalNeeded)];
        let signed_out = vec![operation(Asked::SignOut, 0, Answer::Done)];
        let twice = vec![sent(1, "first"), sent(2, "first")];
        let given_back = vec![claimed(2, 1), commit(3, 1)];
        let open = vec![claimed(2, 1)];
        let table = [
            ("a sign-out that was undone", Run { operations: signed_out, ..run() }, vec!["ENDED"]),
            ("a renewal before any claim", Run { operations: renewal(100_000), ..run() }, vec!["TRANSIENT"]),
            (
                "a renewal while it is leased",
                Run { operations: renewal(210_000), ..run() },
                vec!["TRANSIENT"],
            ),
            (
                "a renewal after the new pair",
                Run { operations: renewal(302_000), ..run() },
                vec!["TRANSIENT"],
            ),
            (
                "a pair that nobody kept",
                Run { commits: given_back, after: vec![found(3, 1)], ..run() },
                vec!["STRAND"],
            ),
            (
                "a pair without a claim",
                Run { commits: vec![], after: vec![found(1, 1)], operations: vec![], ..run() },
                vec!["STRAND"],
            ),
            ("a token that came twice", Run { log: twice, ..run() }, vec!["STRAND", "SPENT"]),
            ("a spent token", Run { reused: 1, ..run() }, vec!["SPENT"]),
            (
                "a row that stays ambiguous",
                Run { commits: open, after: vec![Found { claimed: true, ..found(2, 1) }], ..run() },
                vec!["LIVE"],
            ),
            ("a row that is gone", Run { after: vec![], ..run() }, vec!["TRANSIENT"]),
            ("a commit that is undone", Run { after: vec![found(1, 1)], ..run() }, vec!["MONO"]),
        ];
        for (name, run, expected) in table {
            assert_eq!(names(run), expected, "{name}");
        }
    }
}
