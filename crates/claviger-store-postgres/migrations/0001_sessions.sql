-- Times are milliseconds since 1970-01-01T00:00:00Z. Everything stands in a schema of its own, so that the tables of an app in
-- the same database have other names, and no statement depends on a search path.
--
-- PostgreSQL writes a new copy of a row for every change. A copy that fits on the row's page and changes no indexed column is
-- cheap ("heap-only"): no index learns of it, and the next visitor of the page clears the old copy away. So what changes often
-- stands in narrow rows, on pages with room to spare, and no index has a column that a proof or a use changes.

-- What seldom changes, and what is large: a few hundred bytes a row. A refresh writes it once.
CREATE TABLE claviger.session (
    id            uuid NOT NULL PRIMARY KEY,
    provider      text NOT NULL,
    subject_id    text NOT NULL,
    display_name  text NOT NULL,
    secret_hash   bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    custody       text NOT NULL CHECK (custody IN ('device', 'server', 'none')),
    device        text NOT NULL,
    -- The sealed pair. NULL once the session ended, and with custody 'none'.
    generation    bigint,
    access        bytea,
    refresh       bytea,
    expiry        text CHECK (expiry IN ('at', 'unknown', 'never')),
    expires_at    bigint,
    -- The end.
    end_reason    text,
    ended_at      bigint,

    CHECK ((generation IS NULL) = (access IS NULL) AND (generation IS NULL) = (expiry IS NULL)),
    CHECK (refresh IS NULL OR generation IS NOT NULL),
    CHECK ((expiry IS NOT DISTINCT FROM 'at') = (expires_at IS NOT NULL)),
    CHECK ((end_reason IS NULL) = (ended_at IS NULL)),
    -- An ended session holds no tokens.
    CHECK (end_reason IS NULL OR generation IS NULL)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- Sealed tokens look random: trying to compress them is lost work.
ALTER TABLE claviger.session ALTER COLUMN access SET STORAGE EXTERNAL, ALTER COLUMN refresh SET STORAGE EXTERNAL;

CREATE INDEX session_by_subject ON claviger.session (provider, subject_id);

-- What changes often: 84 bytes a row. A quarter of each page is left free for new copies; a page that has less free than that
-- is cleared by its next visitor.
CREATE TABLE claviger.pulse (
    version       bigint NOT NULL,
    created_at    bigint NOT NULL,
    last_seen_at  bigint NOT NULL,
    proven_at     bigint,
    id            uuid NOT NULL PRIMARY KEY,
    -- The hour of the last use, rounded down. Indexed in the place of last_seen_at, so that a use moves an index entry once an
    -- hour at most. Times that no clock tells are cut to what fits.
    seen_hour     integer NOT NULL GENERATED ALWAYS AS
        (least(greatest(last_seen_at / 3600000, -2147483648), 2147483647)::integer) STORED,
    -- Follows from the id.
    slot          smallint NOT NULL,
    -- 0 live, 1 parked, 2 suspect, 3 ended. Numbers, because the queries compare them.
    state         smallint NOT NULL CHECK (state BETWEEN 0 AND 3),
    CHECK ((state = 3) = (proven_at IS NULL))
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- Where live sessions are, and where any are that have not ended.
CREATE INDEX pulse_live ON claviger.pulse (slot, id) WHERE state = 0;
CREATE INDEX pulse_open ON claviger.pulse (slot, id) WHERE state < 3;
CREATE INDEX pulse_by_last_use ON claviger.pulse (seen_hour) WHERE state < 3;
CREATE INDEX pulse_by_age ON claviger.pulse (created_at, id) WHERE state < 3;
CREATE INDEX pulse_tombstones ON claviger.pulse (created_at, id) WHERE state = 3;
CREATE INDEX pulse_distrusted ON claviger.pulse (id) WHERE state >= 2;

-- Refreshes in flight. Rows of their own, since a claim comes and goes with every refresh, and would otherwise write the
-- large row twice more.
CREATE TABLE claviger.claim (
    id           uuid NOT NULL PRIMARY KEY,
    attempt      uuid NOT NULL,
    fingerprint  uuid NOT NULL,
    taken_at     bigint NOT NULL,
    lease_until  bigint NOT NULL,
    replay       boolean NOT NULL,
    answer_lost  boolean NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Ended is for good (invariant ENDED), whatever a statement may say.
CREATE FUNCTION claviger.end_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an ended session does not change';
END
$$;

CREATE TRIGGER pulse_end_is_final BEFORE UPDATE ON claviger.pulse
    FOR EACH ROW WHEN (OLD.state = 3) EXECUTE FUNCTION claviger.end_is_final();
CREATE TRIGGER session_end_is_final BEFORE UPDATE ON claviger.session
    FOR EACH ROW WHEN (OLD.end_reason IS NOT NULL) EXECUTE FUNCTION claviger.end_is_final();

-- Revocations that providers are owed. They outlive their sessions. A name that was used is never used again, so who held a
-- revocation that is settled cannot settle another.
CREATE TABLE claviger.owed (
    id          bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session     uuid NOT NULL,
    generation  bigint NOT NULL,
    provider    text NOT NULL,
    access      bytea NOT NULL,
    -- The refresh token of the same pair, where the server can open it.
    refresh     bytea,
    expiry      text NOT NULL CHECK (expiry IN ('at', 'unknown', 'never')),
    expires_at  bigint,
    owed_at     bigint NOT NULL,
    -- A lease is a revocation that is due again when the lease ends. Its holder stays until somebody else takes it.
    due_at      bigint NOT NULL,
    holder      uuid,
    tries       bigint NOT NULL DEFAULT 0,
    CHECK ((expiry = 'at') = (expires_at IS NOT NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE INDEX owed_by_due ON claviger.owed (due_at, id);
CREATE INDEX owed_by_age ON claviger.owed (owed_at);

-- States of sign-ins that were used up.
CREATE TABLE claviger.spent_login (
    state_hash  bytea NOT NULL PRIMARY KEY CHECK (octet_length(state_hash) = 32),
    expires_at  bigint NOT NULL
);

CREATE INDEX spent_login_by_expiry ON claviger.spent_login (expires_at, state_hash);

-- The visits of each wheel (0: to validate, 1: to ask about users) to each slot. Two thousand rows that change all the time:
-- half of each page is free, and only the key is indexed, since reading all of them costs less than keeping them sorted.
CREATE TABLE claviger.slot (
    due_at       bigint NOT NULL DEFAULT 0,
    lease_until  bigint NOT NULL DEFAULT 0,
    holder       uuid,
    wheel        smallint NOT NULL CHECK (wheel BETWEEN 0 AND 1),
    slot         smallint NOT NULL,
    PRIMARY KEY (wheel, slot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

INSERT INTO claviger.slot (wheel, slot) SELECT wheel, slot FROM generate_series(0, 1) AS wheel, generate_series(0, 1023) AS slot;

-- Suspicions that a user disconnected the app.
CREATE TABLE claviger.suspicion (
    key         bytea NOT NULL PRIMARY KEY CHECK (octet_length(key) = 32),
    provider    text NOT NULL,
    subject_id  text NOT NULL,
    at          bigint NOT NULL,
    cause       text NOT NULL,
    noted_at    bigint NOT NULL,
    -- A lease is a suspicion that is due again when the lease ends. NULL: it is closed, and kept so that the same word of it
    -- is not taken for another.
    due_at      bigint,
    holder      uuid,
    tries       bigint NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE INDEX suspicion_by_due ON claviger.suspicion (due_at, key) WHERE due_at IS NOT NULL;
CREATE INDEX suspicion_closed ON claviger.suspicion (noted_at, key) WHERE due_at IS NULL;

-- What all who share the store keep under a name. Few rows, some of which change several times a second.
CREATE TABLE claviger.memo (
    version  bigint NOT NULL,
    name     text NOT NULL PRIMARY KEY,
    value    bytea NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Written by each check, so that a database that cannot be written shows it.
CREATE TABLE claviger.beacon (
    lit_at  bigint NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

INSERT INTO claviger.beacon (lit_at) VALUES (0);
