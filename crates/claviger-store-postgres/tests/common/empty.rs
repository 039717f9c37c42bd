//! Resets a database to its initial state.
#![allow(unreachable_pub, reason = "several tests use it")]

pub const EMPTY: &str = "
    TRUNCATE claviger.session, claviger.pulse, claviger.owed, claviger.spent_login, claviger.suspicion, claviger.memo
        RESTART IDENTITY;
    UPDATE claviger.slot SET due_at = 0, lease_until = 0, holder = NULL";
