-- An ended session does not change, and holds no token, whatever a statement may say: also where it leaves the generation alone
-- empty, which the constraint did not see. One condition for both, since PostgreSQL reads its text anew for each statement.
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
