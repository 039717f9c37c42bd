//! Invariants of every row. Checked in tests only: a check at each write would add a fifth to the
//! cost of a refresh.
#![allow(unreachable_pub, reason = "several tests use it")]

pub const WHOLE: &str = "
    ALTER TABLE claviger.session
        ADD CHECK (octet_length(secret_hash) = 32),
        ADD CHECK (custody IN ('device', 'server', 'none')),
        ADD CHECK (expiry IN ('at', 'unknown', 'never')),
        ADD CHECK ((generation IS NULL) = (access IS NULL) AND (generation IS NULL) = (expiry IS NULL)),
        ADD CHECK (refresh IS NULL OR generation IS NOT NULL),
        ADD CHECK ((expiry IS NOT DISTINCT FROM 'at') = (expires_at IS NOT NULL)),
        ADD CHECK ((end_reason IS NULL) = (ended_at IS NULL)),
        ADD CHECK (end_reason IS NULL OR num_nonnulls(generation, access, refresh) = 0);
    ALTER TABLE claviger.pulse
        ADD CHECK (state BETWEEN 0 AND 3),
        ADD CHECK ((state = 3) = (proven_at IS NULL)),
        ADD CHECK (num_nulls(attempt, fingerprint, taken_at, lease_until, replay, answer_lost) IN (0, 6)),
        ADD CHECK (state < 3 OR attempt IS NULL),
        ADD CHECK (seen_hour = least(greatest(last_seen_at / 3600000, -2147483648), 2147483647));
    CREATE FUNCTION whole() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'an ended session does not change'; END $$;
    CREATE TRIGGER whole AFTER UPDATE ON claviger.session FOR EACH ROW WHEN (OLD.end_reason IS NOT NULL) EXECUTE FUNCTION whole();
    CREATE TRIGGER whole AFTER UPDATE ON claviger.pulse FOR EACH ROW WHEN (OLD.state = 3) EXECUTE FUNCTION whole()";
