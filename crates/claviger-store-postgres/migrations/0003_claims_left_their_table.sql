-- A contraction: programs that know the second step have their claims in the narrow row, so the table "claim" and what kept it up
-- can go.

LOCK TABLE claviger.pulse, claviger.claim IN ACCESS EXCLUSIVE MODE;

DROP TABLE claviger.claim;
DROP TRIGGER pulse_claim_for_older ON claviger.pulse;
DROP TRIGGER pulse_first_claim_for_older ON claviger.pulse;
DROP FUNCTION claviger.claim_for_older();
DROP FUNCTION claviger.claim_for_newer();

-- An end is kept by the large row alone (step 4). It goes here, where the table is locked: a step that has one of the two tables and
-- waits for the other stands in the way of all statements, which take both.
DROP TRIGGER pulse_end_is_final ON claviger.pulse;

-- The database worked out the hour of the last use anew with each write to the row, also where the row's use stays. Who writes the
-- use writes its hour, from now on. Programs that know the second step do not: what they use keeps an hour that is too early, and
-- is looked at sooner than need be, which ends no session.
ALTER TABLE claviger.pulse ALTER COLUMN seen_hour DROP EXPRESSION;
ALTER TABLE claviger.pulse ALTER COLUMN seen_hour SET DEFAULT 0;
