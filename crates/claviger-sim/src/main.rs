//! Runs histories and says what came of them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "telling people what happens is its work")]

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use clap::Parser;
use claviger_sim::{Plan, Point, Variant, Violation, coverage, run, shrink};

/// Runs Claviger's engine through histories of crashes, lost answers, outages and races, in virtual time.
///
/// A history follows from its seed. One that violates an invariant is shrunk, and printed step by step with the command that
/// replays it. At the end the run says what happened how often; what never did is named, and fails a run of 1000 histories.
#[derive(Parser)]
struct Cli {
    /// How many histories
    #[arg(long, default_value_t = 100, conflicts_with = "seed")]
    seeds: u64,
    /// The seed of the first; the others follow
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Replay one history and print every step
    #[arg(long)]
    seed: Option<u64>,
    /// Leave a history that violates an invariant as long as it is
    #[arg(long)]
    no_shrink: bool,
}

/// From so many histories on, everything that should happen must have happened.
const TELLING: u64 = 1000;
const SHRINK_TRIES: usize = 200;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.seed {
        Some(seed) => replay(seed),
        None => run_many(&cli),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn replay(seed: u64) -> Result<bool> {
    let outcome = run(&Plan::new(seed), Variant::Shipped, true)?;
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("seed {seed}: {} violations", outcome.violations.len());
    Ok(outcome.violations.is_empty())
}

/// What many histories came to.
#[derive(Default)]
struct Totals {
    histories: u64,
    counts: BTreeMap<&'static str, u64>,
    failed: Option<(u64, Violation)>,
}

fn run_many(cli: &Cli) -> Result<bool> {
    #[expect(clippy::disallowed_methods, reason = "real time, for the figures of the summary only")]
    let begun = std::time::Instant::now();
    let (next, stop, totals) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Totals::default()));
    let work = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= cli.seeds {
                break;
            }
            let seed = cli.first + n;
            let outcome = run(&Plan::new(seed), Variant::Shipped, false)?;
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.histories += 1;
            for (name, count) in outcome.counts {
                *totals.counts.entry(name).or_default() += count;
            }
            if let Some(violation) = outcome.violations.into_iter().next() {
                totals.failed.get_or_insert((seed, violation));
                stop.store(true, Ordering::Relaxed);
            }
            progress(totals.histories, cli.seeds);
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    summary(&totals, begun.elapsed());
    if let Some((seed, violation)) = &totals.failed {
        explain(cli, *seed, violation)?;
        return Ok(false);
    }
    let missing = coverage::missing(&totals.counts);
    if !missing.is_empty() {
        println!("never happened: {}", missing.join("; "));
    }
    Ok(missing.is_empty() || cli.seeds < TELLING)
}

/// One line that changes, where somebody looks; else a line now and then.
fn progress(done: u64, all: u64) {
    let every = (all / 20).max(1);
    if std::io::stderr().is_terminal() {
        eprint!("\r{done} of {all} histories");
        let _ = std::io::stderr().flush();
    } else if done.is_multiple_of(every) {
        eprintln!("{done} of {all} histories");
    }
}

fn summary(totals: &Totals, took: Duration) {
    let seconds = took.as_secs_f64().max(0.001);
    let per_second = totals.histories as f64 / seconds;
    println!("{} histories in {seconds:.1} s: {per_second:.0} a second", totals.histories);
    for (name, count) in &totals.counts {
        println!("{count:>12}  {name}");
    }
    let crashes = Point::ALL.iter().filter(|(_, name)| totals.counts.contains_key(name)).count();
    println!("crash points reached: {crashes} of {}", Point::ALL.len());
}

fn explain(cli: &Cli, seed: u64, violation: &Violation) -> Result<()> {
    let mut plan = Plan::new(seed);
    let steps = plan.steps.len();
    if !cli.no_shrink {
        plan = shrink(&plan, Variant::Shipped, violation.invariant, SHRINK_TRIES)?;
    }
    println!("\nthe plan of seed {seed}, shrunk from {steps} to {} steps:", plan.steps.len());
    for step in &plan.steps {
        println!("  after {:?}: {:?}", step.after, step.act);
    }
    println!("what happens in it:");
    for line in run(&plan, Variant::Shipped, true)?.trace {
        println!("{line}");
    }
    println!("\n{} is violated: {}", violation.invariant, violation.what);
    println!("the whole history again: cargo run --release -p claviger-sim -- --seed {seed}");
    Ok(())
}
