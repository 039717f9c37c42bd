-- A contraction: programs that know the second step have their claims in the narrow row, so the table "claim" and what kept it up
-- can go.

-- Every statement of ours uses the narrow table, or is short. So who got that one does not wait for the others.
LOCK TABLE claviger.pulse IN ACCESS EXCLUSIVE MODE;
LOCK TABLE claviger.session, claviger.claim IN ACCESS EXCLUSIVE MODE NOWAIT;

DROP TABLE claviger.claim;
DROP TRIGGER pulse_claim_for_older ON claviger.pulse;
DROP TRIGGER pulse_first_claim_for_older ON claviger.pulse;
DROP FUNCTION claviger.claim_for_older();
DROP FUNCTION claviger.claim_for_newer();

-- No trigger changes a session any more.
DROP TRIGGER pulse_end_is_final ON claviger.pulse;
CREATE TRIGGER pulse_end_is_final AFTER UPDATE ON claviger.pulse
    FOR EACH ROW WHEN (OLD.state = 3) EXECUTE FUNCTION claviger.end_is_final();

-- An ended session does not change, and holds no tokens, whatever a statement may say. One condition for both: PostgreSQL reads its
-- text anew for each statement.
CREATE FUNCTION claviger.keep_tombstone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.end_reason IS NOT NULL THEN
            RAISE EXCEPTION 'an ended session does not change';
        END IF;
    END IF;
    RAISE EXCEPTION 'an ended session holds no tokens';
END
$$;
DROP TRIGGER session_end_is_final ON claviger.session;
CREATE TRIGGER session_keep_tombstone AFTER UPDATE ON claviger.session
    FOR EACH ROW WHEN (OLD.end_reason IS NOT NULL
        OR (NEW.end_reason IS NOT NULL AND num_nonnulls(NEW.generation, NEW.access, NEW.refresh) > 0))
    EXECUTE FUNCTION claviger.keep_tombstone();
CREATE TRIGGER session_new_tombstone AFTER INSERT ON claviger.session
    FOR EACH ROW WHEN (NEW.end_reason IS NOT NULL AND num_nonnulls(NEW.generation, NEW.access, NEW.refresh) > 0)
    EXECUTE FUNCTION claviger.keep_tombstone();
ALTER TABLE claviger.session DROP CONSTRAINT session_check4;

-- The database worked out the hour of the last use anew with each write to the row, also where the row's use stays. Who writes the
-- use writes its hour, from now on. Programs that know the second step do not: what they use keeps an hour that is too early, and
-- is looked at sooner than need be, which ends no session.
ALTER TABLE claviger.pulse ALTER COLUMN seen_hour DROP EXPRESSION;
ALTER TABLE claviger.pulse ALTER COLUMN seen_hour SET DEFAULT 0;
