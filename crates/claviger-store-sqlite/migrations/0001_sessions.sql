-- Times are milliseconds since 1970-01-01T00:00:00Z. Ids of sessions are the sixteen octets of a UUID of version 7, which
-- sort by the time of sign-in, so that new rows stand side by side at the end of each tree.

-- What seldom changes, and what is large: a few hundred bytes a row. A table with a rowid, because rows of that size make
-- the inner pages of a tree without one hold few keys.
CREATE TABLE session (
    id                 BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    provider           TEXT NOT NULL,
    subject_id         TEXT NOT NULL,
    display_name       TEXT NOT NULL,
    secret_hash        BLOB NOT NULL CHECK (length(secret_hash) = 32),
    custody            TEXT NOT NULL CHECK (custody IN ('device', 'server', 'none')),
    device             TEXT NOT NULL,
    -- The sealed pair. NULL once the session ended, and with custody 'none'.
    generation         INTEGER,
    access             BLOB,
    refresh            BLOB,
    expiry             TEXT CHECK (expiry IN ('at', 'unknown', 'never')),
    expires_at         INTEGER,
    -- The refresh in flight.
    claim_attempt      BLOB CHECK (length(claim_attempt) = 16),
    claim_taken_at     INTEGER,
    claim_lease_until  INTEGER,
    claim_fingerprint  BLOB CHECK (length(claim_fingerprint) = 16),
    claim_replay       INTEGER CHECK (claim_replay IN (0, 1)),
    claim_answer_lost  INTEGER CHECK (claim_answer_lost IN (0, 1)),
    -- The end.
    end_reason         TEXT,
    ended_at           INTEGER,

    CHECK ((generation IS NULL) = (access IS NULL) AND (generation IS NULL) = (expiry IS NULL)),
    CHECK (refresh IS NULL OR generation IS NOT NULL),
    CHECK ((expiry IS 'at') = (expires_at IS NOT NULL)),
    CHECK ((claim_attempt IS NULL) = (claim_taken_at IS NULL)
       AND (claim_attempt IS NULL) = (claim_lease_until IS NULL)
       AND (claim_attempt IS NULL) = (claim_fingerprint IS NULL)
       AND (claim_attempt IS NULL) = (claim_replay IS NULL)
       AND (claim_attempt IS NULL) = (claim_answer_lost IS NULL)),
    CHECK ((end_reason IS NULL) = (ended_at IS NULL)),
    -- An ended session holds no tokens.
    CHECK (end_reason IS NULL OR (generation IS NULL AND claim_attempt IS NULL))
) STRICT;

CREATE INDEX session_by_subject ON session (provider, subject_id);

-- What changes often: about 50 bytes a row, so that a page holds some 70 neighbours, and uses, proofs and changes of
-- state write few pages. Without a rowid, so that a row is found in one step.
CREATE TABLE pulse (
    id            BLOB NOT NULL PRIMARY KEY REFERENCES session (id) ON DELETE CASCADE,
    version       INTEGER NOT NULL,
    -- 0 live, 1 parked, 2 suspect, 3 ended. Numbers, because the queries below compare them.
    state         INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
    created_at    INTEGER NOT NULL,
    last_seen_at  INTEGER NOT NULL,
    proven_at     INTEGER,
    CHECK ((state = 3) = (proven_at IS NULL))
) STRICT, WITHOUT ROWID;

-- Sessions that are in use were all last seen about now, so their entries stand together and a batch of uses moves them
-- within a few pages.
CREATE INDEX pulse_by_last_use ON pulse (last_seen_at, id) WHERE state < 3;
CREATE INDEX pulse_by_age ON pulse (created_at, id) WHERE state < 3;
CREATE INDEX pulse_tombstones ON pulse (created_at, id) WHERE state = 3;
CREATE INDEX pulse_distrusted ON pulse (id) WHERE state >= 2;

-- Ended is for good (invariant ENDED), whatever a statement may say.
CREATE TRIGGER pulse_end_is_final BEFORE UPDATE ON pulse WHEN OLD.state = 3
BEGIN
    SELECT RAISE(ABORT, 'an ended session does not change');
END;

CREATE TRIGGER session_end_is_final BEFORE UPDATE ON session WHEN OLD.end_reason IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'an ended session does not change');
END;

-- Revocations that providers are owed. They outlive their sessions, hence no reference. AUTOINCREMENT: a name that was
-- used is never used again, so who held a revocation that is settled cannot settle another.
CREATE TABLE owed (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    session     BLOB NOT NULL CHECK (length(session) = 16),
    generation  INTEGER NOT NULL,
    provider    TEXT NOT NULL,
    access      BLOB NOT NULL,
    expiry      TEXT NOT NULL CHECK (expiry IN ('at', 'unknown', 'never')),
    expires_at  INTEGER,
    owed_at     INTEGER NOT NULL,
    -- A lease is a revocation that is due again when the lease ends. Its holder stays until somebody else takes it.
    due_at      INTEGER NOT NULL,
    holder      BLOB CHECK (length(holder) = 16),
    tries       INTEGER NOT NULL DEFAULT 0,
    CHECK ((expiry = 'at') = (expires_at IS NOT NULL))
) STRICT;

CREATE INDEX owed_by_due ON owed (due_at, id);
CREATE INDEX owed_by_age ON owed (owed_at);

-- States of sign-ins that were used up.
CREATE TABLE spent_login (
    state_hash  BLOB NOT NULL PRIMARY KEY CHECK (length(state_hash) = 32),
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX spent_login_by_expiry ON spent_login (expires_at, state_hash);
