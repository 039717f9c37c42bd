-- Few rows have a claim at a time, so counting them reads few pages.
CREATE INDEX session_claimed ON session (claim_answer_lost, claim_lease_until) WHERE claim_attempt IS NOT NULL;
