//! Judges what was committed to the store between the kills, and what was found in it after each. One pass over each commit.

use std::collections::{BTreeMap, BTreeSet};

use claviger_core::{
    ids::{SessionId, Version},
    session::Session,
};

/// One commit of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) id: SessionId,
    /// The version before it.
    pub(crate) was: Version,
    pub(crate) version: Version,
    pub(crate) generation: Option<Version>,
    /// Whether the row is claimed, and if so, for a second sending of its refresh token.
    pub(crate) replay: Option<bool>,
    pub(crate) ended: bool,
    /// Why, as the store has it.
    pub(crate) reason: Option<String>,
}

/// A row as it was found after a kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: SessionId,
    pub(crate) version: Version,
    pub(crate) generation: Option<Version>,
    pub(crate) claimed: bool,
}

impl Found {
    pub(crate) fn of(row: &Session) -> Self {
        Self {
            id: row.id,
            version: row.version,
            generation: row.generation(),
            claimed: row.holding().is_some_and(|holding| holding.claim.is_some()),
        }
    }
}

/// All that is known of the rows so far.
pub(crate) struct History {
    /// Each row as it was committed last.
    last: BTreeMap<SessionId, Commit>,
    /// Which refresh tokens were claimed for a second sending, by the pairs that they belong to.
    replays: BTreeSet<(SessionId, Version)>,
    violations: Vec<(&'static str, String)>,
    pub(crate) commits: usize,
}

impl History {
    /// Begins with these rows, which nobody ends.
    pub(crate) fn of(rows: &[Found]) -> Self {
        let commit = |row: &Found| Commit {
            id: row.id,
            was: row.version,
            version: row.version,
            generation: row.generation,
            replay: row.claimed.then_some(false),
            ended: false,
            reason: None,
        };
        let last = rows.iter().map(|row| (row.id, commit(row))).collect();
        Self { last, replays: BTreeSet::new(), violations: Vec::new(), commits: 0 }
    }

    /// A row was committed.
    pub(crate) fn committed(&mut self, next: Commit) {
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
            violated("TRANSIENT", "it ended, and nobody ended it");
        } else if next.generation != before.generation && next.generation != Some(next.version) {
            violated("STRAND", "its pair is neither the one before nor a new one");
        }
        if let (Some(true), Some(generation)) = (next.replay, next.generation) {
            self.replays.insert((next.id, generation));
        }
        self.last.insert(next.id, next);
    }

    /// A row was found.
    pub(crate) fn found(&mut self, row: &Found) {
        let agrees = self.last.get(&row.id).is_some_and(|last| {
            (last.version, last.generation, last.replay.is_some())
                == (row.version, row.generation, row.claimed)
        });
        if !agrees {
            self.violations.push(("MONO", format!("{row:?} is not as it was committed last")));
        }
    }

    pub(crate) fn violations(&self) -> &[(&'static str, String)] {
        &self.violations
    }

    /// How many pairs of this row had their refresh token claimed for a second sending.
    pub(crate) fn replays_of(&self, id: SessionId) -> usize {
        self.replays.range((id, Version(0))..=(id, Version(u64::MAX))).count()
    }

    pub(crate) fn replays(&self) -> usize {
        self.replays.len()
    }
}

#[cfg(test)]
mod tests {
    use claviger_core::time::Timestamp;

    use super::*;

    fn found(version: u64, generation: u64) -> Found {
        let id = SessionId::new(Timestamp::EPOCH, [1; 10]);
        Found { id, version: Version(version), generation: Some(Version(generation)), claimed: false }
    }

    fn commit(was: u64, version: u64, generation: u64) -> Commit {
        let Found { id, version, generation, .. } = found(version, generation);
        Commit { id, was: Version(was), version, generation, replay: None, ended: false, reason: None }
    }

    fn names(commits: &[Commit]) -> Vec<&'static str> {
        let mut history = History::of(&[found(4, 4)]);
        commits.iter().for_each(|commit| history.committed(commit.clone()));
        history.violations().iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn a_history_without_a_fault_violates_nothing() {
        let claimed = Commit { replay: Some(true), ..commit(4, 5, 4) };
        assert_eq!(names(&[claimed.clone(), commit(5, 6, 6), commit(6, 7, 6)]), Vec::<&str>::new());
        let mut history = History::of(&[found(4, 4)]);
        history.committed(claimed.clone());
        assert_eq!((history.replays_of(claimed.id), history.replays()), (1, 1));
        history.found(&Found { claimed: true, ..found(5, 4) });
        assert_eq!(history.violations(), []);
    }

    #[test]
    fn each_planted_fault_is_found_and_named() {
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
    fn a_row_that_is_not_as_it_was_committed_is_found() {
        for row in [found(3, 3), found(5, 4), Found { claimed: true, ..found(4, 4) }] {
            let mut history = History::of(&[found(4, 4)]);
            history.found(&row);
            assert_eq!(history.violations().len(), 1, "{row:?}");
        }
    }
}
