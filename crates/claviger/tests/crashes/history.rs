//! Judges what was found in the store after each kill. One pass over all that was recorded.

use std::collections::BTreeMap;

use claviger_core::{
    ids::{SessionId, Version},
    session::Session,
};

/// A row as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: SessionId,
    pub(crate) version: Version,
    pub(crate) generation: Option<Version>,
    pub(crate) claimed: bool,
    pub(crate) ended: bool,
}

impl Found {
    pub(crate) fn of(row: &Session) -> Self {
        Self {
            id: row.id,
            version: row.version,
            generation: row.generation(),
            claimed: row.holding().is_some_and(|holding| holding.claim.is_some()),
            ended: row.ended(),
        }
    }
}

/// What does not hold of these findings, one list for each kill, of these sessions, which nobody ended.
pub(crate) fn violations(sessions: &[SessionId], findings: &[Vec<Found>]) -> Vec<(&'static str, String)> {
    let mut last = BTreeMap::<SessionId, &Found>::new();
    let mut violations = Vec::new();
    for (kill, found) in findings.iter().enumerate() {
        for row in found {
            let mut violated =
                |name, what: &str| violations.push((name, format!("kill {kill}, {}: {what}", row.id)));
            if row.ended {
                violated("TRANSIENT", "it ended, and nobody ended it");
            }
            if row.generation.is_none_or(|generation| generation > row.version) {
                violated("STRAND", "it holds no pair of its own");
            }
            if let Some(before) = last.insert(row.id, row) {
                if row.version < before.version {
                    violated("MONO", "its version went back");
                }
                if row.version == before.version && row != before {
                    violated("MONO", "two rows have the same version");
                }
                if row.generation < before.generation {
                    violated("STRAND", "its pair is older than it was");
                }
                if before.ended && !row.ended {
                    violated("ENDED", "it came back to life");
                }
            }
        }
        if found.len() != sessions.len() {
            violations
                .push(("TRANSIENT", format!("kill {kill}: {} of {} rows", found.len(), sessions.len())));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use claviger_core::time::Timestamp;

    use super::*;

    fn row(n: u8, version: u64, generation: u64) -> Found {
        Found {
            id: SessionId::new(Timestamp::EPOCH, [n; 10]),
            version: Version(version),
            generation: Some(Version(generation)),
            claimed: false,
            ended: false,
        }
    }

    fn names(findings: &[Vec<Found>]) -> Vec<&'static str> {
        let sessions = [row(1, 1, 1).id, row(2, 1, 1).id];
        violations(&sessions, findings).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_history_without_a_fault_violates_nothing() {
        let first = vec![row(1, 1, 1), row(2, 1, 1)];
        let next = vec![row(1, 3, 3), row(2, 1, 1)];
        assert_eq!(names(&[first, next]), Vec::<&str>::new());
    }

    #[test]
    fn each_planted_fault_is_found_and_named() {
        let good = || vec![row(1, 5, 5), row(2, 1, 1)];
        let ended = |row: Found| Found { ended: true, ..row };
        let table = [
            ("a version that goes back", vec![row(1, 4, 4), row(2, 1, 1)], vec!["MONO", "STRAND"]),
            (
                "two rows of one version",
                vec![Found { claimed: true, ..row(1, 5, 5) }, row(2, 1, 1)],
                vec!["MONO"],
            ),
            ("an older pair", vec![row(1, 6, 3), row(2, 1, 1)], vec!["STRAND"]),
            ("a pair from the future", vec![row(1, 6, 7), row(2, 1, 1)], vec!["STRAND"]),
            ("a row is gone", vec![row(1, 5, 5)], vec!["TRANSIENT"]),
            ("an end", vec![ended(row(1, 6, 5)), row(2, 1, 1)], vec!["TRANSIENT"]),
        ];
        for (name, next, expected) in table {
            assert_eq!(names(&[good(), next]), expected, "{name}");
        }
        let revived = [vec![ended(row(1, 6, 5)), row(2, 1, 1)], vec![row(1, 7, 7), row(2, 1, 1)]];
        assert_eq!(names(&revived), ["TRANSIENT", "ENDED"]);
    }
}
