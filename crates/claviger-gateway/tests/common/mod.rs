//! Shared by the tests that run gateways as processes: the processes, the users and their load, and
//! the judges.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "each test uses its part, and a helper of a test may fail as a test does"
)]

pub mod history;
pub mod keys;
pub mod operations;
pub mod process;
pub mod relay;
pub mod sends;
pub mod users;
