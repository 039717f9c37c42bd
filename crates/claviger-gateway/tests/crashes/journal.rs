//! A journal of every commit of every row. Triggers in the store's file write it in the same
//! transaction, so it matches the store exactly.

use std::path::{Path, PathBuf};

use claviger_core::{SessionId, Version};
use rusqlite::{Connection, Row};

use crate::common::history::{Claim, Commit};

/// The hot row has the version. A change of the cold row follows right after it.
const BEGIN: &str = "
    CREATE TABLE test_journal (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL, was INTEGER NOT NULL, version INTEGER NOT NULL,
        generation INTEGER, attempt BLOB, replay INTEGER, ambiguous_from INTEGER, ended INTEGER NOT NULL, reason TEXT,
        at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
    );
    CREATE INDEX test_journal_by_id ON test_journal (id, seq);
    CREATE TRIGGER test_commit AFTER UPDATE OF version ON pulse BEGIN
        INSERT INTO test_journal (id, was, version, generation, ended)
            SELECT NEW.id, OLD.version, NEW.version, generation, NEW.state = 3 FROM session WHERE id = NEW.id;
        UPDATE test_journal SET (attempt, replay, ambiguous_from) = (
                SELECT claim_attempt, claim_replay, iif(claim_answer_lost, at, claim_lease_until) FROM session WHERE id = NEW.id)
            WHERE seq = last_insert_rowid();
    END;
    CREATE TRIGGER test_body AFTER UPDATE ON session BEGIN
        UPDATE test_journal SET generation = NEW.generation, reason = NEW.end_reason, attempt = NEW.claim_attempt,
                replay = NEW.claim_replay, ambiguous_from = iif(NEW.claim_answer_lost, at, NEW.claim_lease_until)
            WHERE seq = (SELECT max(seq) FROM test_journal WHERE id = NEW.id);
    END;";

pub(crate) struct Journal {
    path: PathBuf,
    /// How much of it was read.
    read: i64,
}

impl Journal {
    pub(crate) fn begin(path: &Path) -> Self {
        Connection::open(path).unwrap().execute_batch(BEGIN).unwrap();
        Self { path: path.to_owned(), read: 0 }
    }

    /// Returns the new commits. Earlier entries must still be there.
    pub(crate) fn news(&mut self) -> Vec<Commit> {
        let connection = Connection::open(&self.path).unwrap();
        let kept: i64 = connection
            .query_row("SELECT count(*) FROM test_journal WHERE seq <= ?1", [self.read], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, self.read, "STRAND: commits that were there after a kill are gone after the next");
        let mut statement = connection
            .prepare(
                "SELECT seq, id, was, version, generation, ended, reason, at, attempt, replay, ambiguous_from
                FROM test_journal WHERE seq > ?1 ORDER BY seq",
            )
            .unwrap();
        let news: Vec<(i64, Commit)> =
            statement.query_map([self.read], entry).unwrap().map(Result::unwrap).collect();
        self.read = news.last().map_or(self.read, |(seq, _)| *seq);
        news.into_iter().map(|(_, commit)| commit).collect()
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<(i64, Commit)> {
    let version = |number: i64| Version(u64::try_from(number).unwrap());
    let claim = |attempt| {
        Ok::<_, rusqlite::Error>(Claim { attempt, replay: row.get(9)?, ambiguous_from: row.get(10)? })
    };
    let commit = Commit {
        id: SessionId::from_bytes(row.get(1)?),
        was: version(row.get(2)?),
        version: version(row.get(3)?),
        generation: row.get::<_, Option<i64>>(4)?.map(version),
        claim: row.get::<_, Option<[u8; 16]>>(8)?.map(claim).transpose()?,
        ended: row.get(5)?,
        reason: row.get(6)?,
        at: row.get(7)?,
    };
    Ok((row.get(0)?, commit))
}
