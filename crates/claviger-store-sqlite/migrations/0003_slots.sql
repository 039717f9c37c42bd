-- Sessions stand in the order of their slots, so that the sessions that are validated together share pages: a slot is a few
-- pages, whatever the number of sessions. `slot(id)` is a function of the program's own (values.rs); it follows from the id.
CREATE TABLE pulse_by_slot (
    slot          INTEGER NOT NULL,
    id            BLOB NOT NULL CHECK (length(id) = 16),
    version       INTEGER NOT NULL,
    -- 0 live, 1 parked, 2 suspect, 3 ended. Numbers, because the queries compare them.
    state         INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
    created_at    INTEGER NOT NULL,
    last_seen_at  INTEGER NOT NULL,
    proven_at     INTEGER,
    PRIMARY KEY (slot, id),
    CHECK ((state = 3) = (proven_at IS NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO pulse_by_slot
    SELECT slot(id), id, version, state, created_at, last_seen_at, proven_at FROM pulse ORDER BY slot(id), id;
DROP TABLE pulse;
ALTER TABLE pulse_by_slot RENAME TO pulse;

CREATE INDEX pulse_by_last_use ON pulse (last_seen_at, id) WHERE state < 3;
CREATE INDEX pulse_by_age ON pulse (created_at, id) WHERE state < 3;
CREATE INDEX pulse_tombstones ON pulse (created_at, id) WHERE state = 3;
CREATE INDEX pulse_distrusted ON pulse (id) WHERE state >= 2;
-- Where live sessions are, and where any are that have not ended. They change with the state alone, not with each proof.
CREATE INDEX pulse_live ON pulse (slot, id) WHERE state = 0;
CREATE INDEX pulse_open ON pulse (slot, id) WHERE state < 3;

CREATE TRIGGER pulse_end_is_final BEFORE UPDATE ON pulse WHEN OLD.state = 3
BEGIN
    SELECT RAISE(ABORT, 'an ended session does not change');
END;

-- The visits of each wheel (0: to validate, 1: to ask about users) to each slot.
CREATE TABLE slot (
    wheel        INTEGER NOT NULL CHECK (wheel BETWEEN 0 AND 1),
    slot         INTEGER NOT NULL,
    due_at       INTEGER NOT NULL DEFAULT 0,
    lease_until  INTEGER NOT NULL DEFAULT 0,
    holder       BLOB CHECK (length(holder) = 16),
    PRIMARY KEY (wheel, slot)
) STRICT, WITHOUT ROWID;

WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < 1023)
INSERT INTO slot (wheel, slot) SELECT wheel, n FROM number, (SELECT 0 AS wheel UNION ALL SELECT 1);

CREATE INDEX slot_by_due ON slot (wheel, due_at, slot);

-- Suspicions that a user disconnected the app.
CREATE TABLE suspicion (
    key         BLOB NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    provider    TEXT NOT NULL,
    subject_id  TEXT NOT NULL,
    at          INTEGER NOT NULL,
    cause       TEXT NOT NULL,
    noted_at    INTEGER NOT NULL,
    -- A lease is a suspicion that is due again when the lease ends. NULL: it is closed, and kept so that the same word of it
    -- is not taken for another.
    due_at      INTEGER,
    holder      BLOB CHECK (length(holder) = 16),
    tries       INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX suspicion_by_due ON suspicion (due_at, key) WHERE due_at IS NOT NULL;
CREATE INDEX suspicion_closed ON suspicion (noted_at, key) WHERE due_at IS NULL;

-- The refresh token of the same pair, where the server can open it.
ALTER TABLE owed ADD COLUMN refresh BLOB;

-- What all who share the store keep under a name.
CREATE TABLE memo (
    name     TEXT NOT NULL PRIMARY KEY,
    version  INTEGER NOT NULL,
    value    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
