//! The simulator: the shipped engine and memory store under virtual time, several instances on one
//! store, a strict provider, and faults of every kind. A seed determines the whole history, and the
//! invariants are checked all the way.
//!
//! | module | what it is |
//! |---|---|
//! | `plan` | the acts of a history, drawn from its seed in advance |
//! | `world` | everything that takes part in a history |
//! | `history` | carries out a plan |
//! | `devices` | acts of devices: requests, sign-ins, repairs, sign-outs |
//! | `mail` | users who disconnect the app, and the delivery of the provider's webhook events |
//! | `duplicate_callback` | callbacks and sign-outs that a browser sends twice |
//! | `settle` | the end of a history without faults: what must be reached and must hold |
//! | `fate` | one life of an instance: its clock, its traps, its crash |
//! | `faulty_store`, `ledger` | an instance's faulty way to the store, and the store with a record of every commit |
//! | `spent` | the judge of SPENT: a second statement of which refresh token may be sent when |
//! | `wire`, `spread` | an instance's faulty way to the provider, and the provider; the judge of SPREAD |
//! | `variant` | what is broken on purpose, to test the simulator |
//! | `record`, `coverage` | counts, violations and trace; what a run must reach |
//! | `day` | a day of very many sessions, and a restart with all of them overdue |
//!
//! Safety is checked at every commit, request and answer. Liveness is checked after the faults
//! stop: each device must get a living token within a bounded time, or a reason why not.
//!
//! # How to add
//!
//! * **An act:** a variant of [`Act`], drawn in `plan::step` and carried out in `history::act`.
//! * **A fault:** an act for the provider or the network (`wire`), a [`Trap`] or a setting of
//!   `fate` for a crash or stall, or an outcome of a write in `faulty_store`. Count it with
//!   `Record::count` and list the name in [`coverage::WANTED`].
//! * **A judge:** a check that calls `Record::violate` with the invariant's name. Checks of commits
//!   belong to `ledger`, of requests to `wire`, of the end to `settle`. Plant the fault that it
//!   must find as a [`Variant`] and name it in `tests/histories.rs`.
//! * **A reproduction:** shrink the seed (`--seed N`), and write its plan as a test in
//!   `tests/histories.rs`.
//!
//! # What is not simulated
//!
//! * SQLite, whose durability has tests with real kills.
//! * Cookies and pages of the edge.
//! * A network that sends a one-time token twice, which no client could survive.
//! * A process that stalls between its last look at the lease and the sending.
//!
//! Clocks of instances differ by at most two seconds from the true time, except when they jump.
//!
//! # Known nondeterminism
//!
//! The engine's caches hash with their own seed, which matters only when they overflow. No history
//! comes near that, and a test compares two runs of one seed.

pub mod coverage;
pub mod day;
mod deliveries;
mod devices;
mod fate;
mod faulty_store;
mod history;
mod ledger;
mod mail;
mod plan;
mod record;
mod rng;
mod settle;
mod spent;
mod spread;
mod variant;

mod wire;
mod world;

pub use fate::{Point, Trap};
pub use plan::{Act, Asks, Mail, Offers, Plan, Step, Tab};
pub use record::{Outcome, Violation};
pub use variant::Variant;

/// Runs a history.
///
/// # Errors
/// If no runtime can be created.
pub fn run(plan: &Plan, variant: Variant, verbose: bool) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(history::run(plan, variant, verbose)))
}

/// Returns the shortest plan found that still violates the invariant, by leaving out steps in at
/// most `tries` runs.
///
/// # Errors
/// If no runtime can be created.
pub fn shrink(plan: &Plan, variant: Variant, invariant: &str, tries: usize) -> std::io::Result<Plan> {
    let (mut best, mut left) = (plan.clone(), tries);
    let mut chunk = best.steps.len() / 2;
    while chunk > 0 && left > 0 {
        let mut from = 0;
        while from < best.steps.len() && left > 0 {
            let mut shorter = best.clone();
            shorter.steps.drain(from..(from + chunk).min(best.steps.len()));
            left -= 1;
            let fails = run(&shorter, variant, false)?.violations.iter().any(|v| v.invariant == invariant);
            if fails { best = shorter } else { from += chunk }
        }
        chunk /= 2;
    }
    Ok(best)
}
