-- A refresh in flight stands in the narrow row from now on: to claim a session is one update of one small row, where a row of the
-- table "claim" with an index of its own came and went. An expansion: whoever knows the first step only goes on using the
-- table, and triggers carry each claim from the one place to the other. The next step takes both away.

-- All at once, or not at all: nobody waits for us who waits for this. Whoever migrates tries again.
LOCK TABLE claviger.pulse, claviger.session, claviger.claim IN ACCESS EXCLUSIVE MODE;

-- All six are there, or none is.
ALTER TABLE claviger.pulse
    ADD COLUMN attempt      uuid,
    ADD COLUMN fingerprint  uuid,
    ADD COLUMN taken_at     bigint,
    ADD COLUMN lease_until  bigint,
    ADD COLUMN replay       boolean,
    ADD COLUMN answer_lost  boolean,
    -- PostgreSQL reads the text of every constraint anew for each statement that writes to its table, which took a fifth of
    -- a refresh. What they say is looked at when a row is read, and a row that is otherwise is told as damaged. (The names are
    -- those that PostgreSQL gave them.)
    DROP CONSTRAINT pulse_state_check,
    DROP CONSTRAINT pulse_check;

-- That an ended session holds no tokens (session_check4) stays: nobody would read the row again to see it.
ALTER TABLE claviger.session
    DROP CONSTRAINT session_secret_hash_check,
    DROP CONSTRAINT session_custody_check,
    DROP CONSTRAINT session_expiry_check,
    DROP CONSTRAINT session_check,
    DROP CONSTRAINT session_check1,
    DROP CONSTRAINT session_check2,
    DROP CONSTRAINT session_check3;

UPDATE claviger.pulse AS p
    SET attempt = c.attempt, fingerprint = c.fingerprint, taken_at = c.taken_at, lease_until = c.lease_until,
        replay = c.replay, answer_lost = c.answer_lost
    FROM claviger.claim AS c WHERE c.id = p.id AND p.state < 3;

-- A trigger that runs before an update locks and logs each row once more. One that runs after it undoes the statement as well.
-- It lets the triggers below take a claim off a session that a statement just ended.
DROP TRIGGER pulse_end_is_final ON claviger.pulse;
CREATE TRIGGER pulse_end_is_final AFTER UPDATE ON claviger.pulse
    FOR EACH ROW WHEN (OLD.state = 3 AND pg_trigger_depth() = 0) EXECUTE FUNCTION claviger.end_is_final();
DROP TRIGGER session_end_is_final ON claviger.session;
CREATE TRIGGER session_end_is_final AFTER UPDATE ON claviger.session
    FOR EACH ROW WHEN (OLD.end_reason IS NOT NULL) EXECUTE FUNCTION claviger.end_is_final();

-- Neither trigger answers to what the other does.
CREATE FUNCTION claviger.claim_for_older() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.attempt IS NULL THEN
        DELETE FROM claviger.claim WHERE id = NEW.id;
    ELSE
        INSERT INTO claviger.claim (id, attempt, fingerprint, taken_at, lease_until, replay, answer_lost)
        VALUES (NEW.id, NEW.attempt, NEW.fingerprint, NEW.taken_at, NEW.lease_until, NEW.replay, NEW.answer_lost)
        ON CONFLICT (id) DO UPDATE SET attempt = excluded.attempt, fingerprint = excluded.fingerprint,
            taken_at = excluded.taken_at, lease_until = excluded.lease_until, replay = excluded.replay,
            answer_lost = excluded.answer_lost;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER pulse_claim_for_older AFTER UPDATE ON claviger.pulse
    FOR EACH ROW WHEN (pg_trigger_depth() = 0 AND
        (OLD.attempt, OLD.fingerprint, OLD.taken_at, OLD.lease_until, OLD.replay, OLD.answer_lost) IS DISTINCT FROM
        (NEW.attempt, NEW.fingerprint, NEW.taken_at, NEW.lease_until, NEW.replay, NEW.answer_lost))
    EXECUTE FUNCTION claviger.claim_for_older();
CREATE TRIGGER pulse_first_claim_for_older AFTER INSERT ON claviger.pulse
    FOR EACH ROW WHEN (NEW.attempt IS NOT NULL) EXECUTE FUNCTION claviger.claim_for_older();

CREATE FUNCTION claviger.claim_for_newer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE claviger.pulse SET attempt = NULL, fingerprint = NULL, taken_at = NULL, lease_until = NULL,
            replay = NULL, answer_lost = NULL
        WHERE id = OLD.id;
    ELSE
        UPDATE claviger.pulse SET attempt = NEW.attempt, fingerprint = NEW.fingerprint, taken_at = NEW.taken_at,
            lease_until = NEW.lease_until, replay = NEW.replay, answer_lost = NEW.answer_lost
        WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER claim_for_newer AFTER INSERT OR UPDATE OR DELETE ON claviger.claim
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION claviger.claim_for_newer();
