//! The simulator: the shipped engine and memory store under virtual time, several instances on one store, a strict provider
//! and everything that can go wrong. A history follows from one seed; the invariants are checked all the way.
//!
//! | module | what it is |
//! |---|---|
//! | `plan` | what will happen: drawn from the seed before it begins |
//! | `history` | carries a plan out: instances, crashes, outages, and whatever else befalls them |
//! | `devices` | what devices with tabs do: requests, sign-ins, repairs, sign-outs |
//! | `mail` | users who disconnect the app, and the provider's notices of it on their way |
//! | `twice` | messages of a browser that arrive twice |
//! | `settle` | the faults stop: what must be reached, and what must hold at the end |
//! | `fate` | one life of an instance: its clock, its traps, its death |
//! | `shelf`, `ledger` | an instance's way to the store, and the store with all that was ever committed |
//! | `spent` | the rule for refresh tokens, said a second time: what may be sent, and what may be sent again |
//! | `wire`, `spread` | an instance's way to the provider, and the provider; the budget of validations, watched |
//! | `record`, `coverage` | counts, violations, trace; and what must have happened |
//! | `day` | very many sessions over a day, and a restart with all of them overdue |
//!
//! Safety is checked with every commit, request and answer. Liveness is checked when the faults have stopped: each device must
//! get a living token within a bounded time, or be told why not.
//!
//! **What is not simulated.** SQLite (its durability has tests of its own, with real kills), the edge's cookies and pages, and a
//! network that sends a one-time token twice. A process never stands still between its last look at the lease and the sending: no
//! client of a one-time token could survive that. Clocks of instances differ by up to two seconds either way.
//!
//! **Known nondeterminism.** The engine's caches hash with a seed of their own, which only matters when they overflow; no history
//! comes near that. Two runs of one seed are compared by a test.

pub mod coverage;
pub mod day;
mod devices;
mod fate;
mod history;
mod ledger;
mod mail;
mod plan;
mod record;
mod rng;
mod settle;
mod shelf;
mod spent;
mod spread;
mod twice;
mod wire;

pub use fate::{Point, Trap};
pub use plan::{Act, Asks, Mail, Plan, Step, Tab};
pub use record::{Outcome, Violation};

/// What is broken on purpose, to see that the simulator notices. All but the first undo something that the engine relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Variant {
    /// Nothing.
    #[default]
    Shipped,
    /// Rows are not read again: an instance sees what it saw first, and ends rows by that.
    SkipsReRead,
    /// A claim's lease is over before the answer can be there.
    ShortLease,
    /// A refresh whose answer is lost is sent again at once.
    RetriesLostAnswer,
    /// The browser's cookie is cleared whenever a request is not served.
    ClearsCookieForLoser,
    /// A row never says that its replay is used up.
    ForgetsReplay,
    /// A row is written whatever version is stored.
    NoCompareAndSet,
    /// A refresh goes no further when the request that wanted it goes away.
    DropsWithCaller,
}

/// Runs a history.
///
/// # Errors
/// If no runtime can be had.
pub fn run(plan: &Plan, variant: Variant, verbose: bool) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(history::run(plan, variant, verbose)))
}

/// The shortest plan that still violates the invariant, as far as leaving out steps leads to one in so many tries.
///
/// # Errors
/// If no runtime can be had.
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
