//! Judges the commits to the store between the kills, and the rows found after each, in one pass
//! over the commits.

use std::collections::{BTreeMap, BTreeSet};

use claviger_core::{Session, SessionId, Version};

use super::operations::{Answer, Millis, Operation, Operations, Violation};

/// Maximum difference between the clocks of instances on one database, which they set by the
/// database's clock.
const CLOCKS: Millis = 1_000;

/// A commit of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub id: SessionId,
    /// The previous version.
    pub was: Version,
    pub version: Version,
    pub generation: Option<Version>,
    pub claim: Option<Claim>,
    pub ended: bool,
    /// The end reason, as stored.
    pub reason: Option<String>,
    /// Time of the write.
    pub at: Millis,
}

/// A claim on a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub attempt: [u8; 16],
    /// Whether it is for a second sending of the refresh token.
    pub replay: bool,
    /// From when on nobody waits for its answer: its lease is over, or the answer is known to be
    /// lost.
    pub ambiguous_from: Millis,
}

/// A row as found after a kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: SessionId,
    pub version: Version,
    pub generation: Option<Version>,
    pub claimed: bool,
}

impl Found {
    pub fn of(row: &Session) -> Self {
        Self {
            id: row.id,
            version: row.version,
            generation: row.generation(),
            claimed: row.active().is_some_and(|active| active.claim.is_some()),
        }
    }
}

/// The result of a claim on a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub taken: usize,
    /// Given back, since the provider had issued nothing for it.
    pub given_back: usize,
}

/// Everything known of the rows so far.
pub struct History {
    /// Each row as last committed.
    last: BTreeMap<SessionId, Commit>,
    /// The refresh tokens claimed for a second sending, by pair.
    replays: BTreeSet<(SessionId, Version)>,
    claims: BTreeMap<SessionId, Claims>,
    /// When each row was ambiguous: from, until.
    ambiguous: BTreeMap<SessionId, Vec<(Millis, Millis)>>,
    /// Rows whose users asked for the end.
    may_end: BTreeSet<SessionId>,
    violations: Vec<Violation>,
    pub commits: usize,
}

impl History {
    /// Begins with these rows, none of which may end.
    pub fn of(rows: &[Found]) -> Self {
        let commit = |row: &Found| Commit {
            id: row.id,
            was: row.version,
            version: row.version,
            generation: row.generation,
            claim: row.claimed.then_some(Claim { attempt: [0; 16], replay: false, ambiguous_from: 0 }),
            ended: false,
            reason: None,
            at: 0,
        };
        Self {
            last: rows.iter().map(|row| (row.id, commit(row))).collect(),
            replays: BTreeSet::new(),
            claims: BTreeMap::new(),
            ambiguous: BTreeMap::new(),
            may_end: BTreeSet::new(),
            violations: Vec::new(),
            commits: 0,
        }
    }

    /// Allows these rows to end, since their users ask for it.
    pub fn may_end(&mut self, ids: impl IntoIterator<Item = SessionId>) {
        self.may_end.extend(ids);
    }

    /// Judges a committed row.
    pub fn committed(&mut self, next: Commit) {
        self.commits += 1;
        let mut violated = |name, what: &str| self.violations.push((name, format!("{next:?}: {what}")));
        let Some(before) = self.last.get(&next.id) else {
            return violated("ISO", "nobody signed in");
        };
        if next.was != before.version || next.version != next.was.next() {
            violated("MONO", "it does not follow the commit before it");
        }
        if before.ended {
            violated("ENDED", "it was changed after its end");
        }
        if next.ended {
            if !self.may_end.contains(&next.id) {
                violated("TRANSIENT", "it ended, and nobody ended it");
            }
        } else if next.generation != before.generation && next.generation != Some(next.version) {
            violated("STRAND", "its pair is neither the one before nor a new one");
        }
        let before = before.clone();
        self.follow_claims(&before, &next);
        self.last.insert(next.id, next);
    }

    fn follow_claims(&mut self, before: &Commit, next: &Commit) {
        if let (Some(Claim { replay: true, .. }), Some(generation)) = (next.claim, next.generation) {
            self.replays.insert((next.id, generation));
        }
        let attempt = |commit: &Commit| commit.claim.map(|claim| claim.attempt);
        let claims = self.claims.entry(next.id).or_default();
        if attempt(before) != attempt(next) {
            claims.taken += usize::from(next.claim.is_some());
            let same_pair = before.generation == next.generation && !next.ended;
            claims.given_back += usize::from(before.claim.is_some() && next.claim.is_none() && same_pair);
            if let Some(claim) = before.claim.filter(|claim| claim.ambiguous_from < next.at) {
                self.ambiguous.entry(next.id).or_default().push((claim.ambiguous_from, next.at));
            }
        }
    }

    /// Judges a row as found.
    pub fn found(&mut self, row: &Found) {
        let agrees = self.last.get(&row.id).is_some_and(|last| {
            (last.version, last.generation, last.claim.is_some())
                == (row.version, row.generation, row.claimed)
        });
        if !agrees {
            self.violations.push(("MONO", format!("{row:?} is not as it was committed last")));
        }
    }

    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Counts this row's pairs whose refresh token was claimed for a second sending.
    pub fn replays_of(&self, id: SessionId) -> usize {
        self.replays.range((id, Version(0))..=(id, Version(u64::MAX))).count()
    }

    pub fn replays(&self) -> usize {
        self.replays.len()
    }

    pub fn claims_of(&self, id: SessionId) -> Claims {
        self.claims.get(&id).copied().unwrap_or_default()
    }

    pub fn has_ended(&self, id: SessionId) -> bool {
        self.last.get(&id).is_some_and(|last| last.ended)
    }

    /// Returns whether the row was ambiguous at any time in this span.
    pub fn was_ambiguous(&self, id: SessionId, from: Millis, until: Millis) -> bool {
        let now = self.last.get(&id).and_then(|last| last.claim).map(|claim| claim.ambiguous_from);
        let past = self.ambiguous.get(&id).map(Vec::as_slice).unwrap_or_default();
        past.iter().any(|(begun, over)| *begun <= until && from <= *over)
            || now.is_some_and(|begun| begun <= until)
    }

    /// A user is sent to the provider only while the answer to a refresh is lost.
    pub fn renewals_without_need(&self, operations: &Operations) -> Vec<Violation> {
        let asked_for = operations.iter().filter(|operation| operation.answer == Answer::RenewalNeeded);
        let without_need = asked_for.filter(|Operation { session, began, ended, .. }| {
            !self.was_ambiguous(*session, began - CLOCKS, ended + CLOCKS)
        });
        without_need.map(|operation| ("TRANSIENT", format!("no answer was lost: {operation:?}"))).collect()
    }

    /// Returns how often a row was ambiguous.
    pub fn ambiguities(&self) -> usize {
        self.ambiguous.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use claviger_core::Timestamp;

    use super::*;

    fn found(version: u64, generation: u64) -> Found {
        let id = SessionId::new(Timestamp::EPOCH, [1; 10]);
        Found { id, version: Version(version), generation: Some(Version(generation)), claimed: false }
    }

    fn commit(was: u64, version: u64, generation: u64) -> Commit {
        let Found { id, version, generation, .. } = found(version, generation);
        let (was, claim, at) = (Version(was), None, 1_000 * Millis::try_from(version.0).unwrap());
        Commit { id, was, version, generation, claim, ended: false, reason: None, at }
    }

    /// A claim whose lease ends half a second after this commit.
    fn claimed(commit: Commit, replay: bool) -> Commit {
        let claim = Claim { attempt: [1; 16], replay, ambiguous_from: commit.at + 500 };
        Commit { claim: Some(claim), ..commit }
    }

    fn names(commits: &[Commit]) -> Vec<&'static str> {
        let mut history = History::of(&[found(4, 4)]);
        commits.iter().for_each(|commit| history.committed(commit.clone()));
        history.violations().iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn a_history_without_a_fault_violates_nothing() {
        let claimed = claimed(commit(4, 5, 4), true);
        assert_eq!(names(&[claimed.clone(), commit(5, 6, 6), commit(6, 7, 6)]), Vec::<&str>::new());
        let mut history = History::of(&[found(4, 4)]);
        history.committed(claimed.clone());
        assert_eq!((history.replays_of(claimed.id), history.replays()), (1, 1));
        history.found(&Found { claimed: true, ..found(5, 4) });
        assert_eq!(history.violations(), []);
    }

    #[test]
    fn each_planted_fault_is_found() {
        let ended = |commit: Commit| Commit { ended: true, generation: None, ..commit };
        let stranger = SessionId::new(Timestamp::EPOCH, [2; 10]);
        let table = [
            ("a version that goes back", vec![commit(4, 3, 4)], vec!["MONO"]),
            ("a version that is left out", vec![commit(4, 6, 4)], vec!["MONO"]),
            ("two commits of one version", vec![commit(4, 5, 4), commit(4, 5, 4)], vec!["MONO"]),
            ("an older pair", vec![commit(4, 5, 3)], vec!["STRAND"]),
            ("a pair from the future", vec![commit(4, 5, 7)], vec!["STRAND"]),
            ("an end", vec![ended(commit(4, 5, 4))], vec!["TRANSIENT"]),
            ("a revival", vec![ended(commit(4, 5, 4)), commit(5, 6, 6)], vec!["TRANSIENT", "ENDED"]),
            ("a stranger", vec![Commit { id: stranger, ..commit(4, 5, 4) }], vec!["ISO"]),
        ];
        for (name, commits, expected) in table {
            assert_eq!(names(&commits), expected, "{name}");
        }
    }

    #[test]
    fn a_requested_end_is_no_violation() {
        let mut history = History::of(&[found(4, 4)]);
        history.may_end([found(4, 4).id]);
        history.committed(Commit { ended: true, generation: None, ..commit(4, 5, 4) });
        assert_eq!(history.violations(), []);
        assert!(history.has_ended(found(4, 4).id));
    }

    #[test]
    fn claims_are_followed_to_their_ends() {
        let id = found(4, 4).id;
        let table = [
            ("a new pair", commit(5, 6, 6), 0),
            ("given back", commit(5, 6, 4), 1),
            ("ended", Commit { ended: true, generation: None, ..commit(5, 6, 4) }, 0),
        ];
        for (name, next, given_back) in table {
            let mut history = History::of(&[found(4, 4)]);
            history.may_end([id]);
            history.committed(claimed(commit(4, 5, 4), false));
            assert!(!history.was_ambiguous(id, 0, 5_400), "{name}: somebody waits for the answer");
            assert!(history.was_ambiguous(id, 0, 5_600), "{name}: nobody does");
            history.committed(next);
            assert_eq!(history.claims_of(id), Claims { taken: 1, given_back }, "{name}");
            assert!(history.was_ambiguous(id, 5_600, 5_700), "{name}");
            assert!(!history.was_ambiguous(id, 6_100, 9_000), "{name}: it is over");
        }
    }

    #[test]
    fn a_row_that_differs_from_its_commit_is_found() {
        for row in [found(3, 3), found(5, 4), Found { claimed: true, ..found(4, 4) }] {
            let mut history = History::of(&[found(4, 4)]);
            history.found(&row);
            assert_eq!(history.violations().len(), 1, "{row:?}");
        }
    }
}
