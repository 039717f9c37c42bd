//! Runs histories and prints the results.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing the results is its purpose")]

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use claviger_sim::{
    Plan, Point, Variant, Violation, coverage,
    day::{Day, Restart, Sample},
    run, shrink,
};

/// Runs Claviger's engine through histories of crashes, lost answers, outages and races, in virtual
/// time.
///
/// A seed determines its history. A history that violates an invariant is shrunk, and printed step
/// by step with the command that replays it. The summary counts what happened. In a run of 1000
/// histories, anything that never happened is a failure.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Number of histories
    #[arg(long, default_value_t = 100, conflicts_with = "seed")]
    seeds: u64,
    /// Seed of the first history; the others follow
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Replay one history and print every step
    #[arg(long)]
    seed: Option<u64>,
    /// Do not shrink a history that violates an invariant
    #[arg(long)]
    no_shrink: bool,
}

#[derive(Subcommand)]
enum Command {
    /// A day of very many sessions, with an outage, 429s, and an instance that dies each hour
    Day {
        /// Number of sessions
        #[arg(long, default_value_t = 1_000_000)]
        sessions: usize,
        /// All random numbers follow from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Write the load over the day to this file as an SVG
        #[arg(long)]
        svg: Option<PathBuf>,
    },
    /// A restart with all sessions overdue
    Restart {
        /// Number of sessions
        #[arg(long, default_value_t = 1_000_000)]
        sessions: usize,
        /// All random numbers follow from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Minutes that the instances were down
        #[arg(long, default_value_t = 120)]
        down_minutes: u64,
    },
}

/// With at least this many histories, nothing may be missing in the coverage.
const TELLING: u64 = 1000;
const SHRINK_TRIES: usize = 200;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match (&cli.command, cli.seed) {
        (Some(Command::Day { sessions, seed, svg }), _) => day(*sessions, *seed, svg.as_deref()),
        (Some(Command::Restart { sessions, seed, down_minutes }), _) => {
            restart(*sessions, *seed, *down_minutes)
        }
        (None, Some(seed)) => replay(seed),
        (None, None) => run_many(&cli),
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

fn day(sessions: usize, seed: u64, svg: Option<&Path>) -> Result<bool> {
    let begun = real_time();
    let tell = move |sample: &Sample| {
        let (hours, took) = (sample.elapsed.as_secs() / 3600, begun.elapsed().as_secs());
        let Sample { live, parked, lag, validations, .. } = sample;
        eprintln!(
            "{hours:>2} h: {live:>8} live, {parked:>8} parked, {validations:>9} validations, visits late by {:>4} s; {took} s of real time",
            lag.as_secs()
        );
    };
    let report = Day::whole(sessions, seed).run(tell)?;
    print!("{report}");
    machine(begun);
    if let Some(path) = svg {
        std::fs::write(path, report.chart())?;
        println!("the chart is in {}", path.display());
    }
    println!("to repeat: cargo run --release -p claviger-sim -- day --sessions {sessions} --seed {seed}");
    Ok(report.violated == 0)
}

fn restart(sessions: usize, seed: u64, down_minutes: u64) -> Result<bool> {
    let begun = real_time();
    let tell = |elapsed: Duration, overdue: u64| {
        let hours = elapsed.as_secs_f64() / 3600.0;
        eprintln!("{hours:>4.1} h: {overdue:>8} overdue");
    };
    let down_for = Duration::from_secs(down_minutes.saturating_mul(60));
    let report = Restart { sessions, seed, down_for }.run(tell)?;
    print!("{report}");
    machine(begun);
    println!(
        "to repeat: cargo run --release -p claviger-sim -- restart --sessions {sessions} --seed {seed} --down-minutes {down_minutes}"
    );
    Ok(report.violations.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "real time, for the figures of the summary only")]
fn real_time() -> std::time::Instant {
    std::time::Instant::now()
}

/// Prints the time and memory that the run took.
fn machine(begun: std::time::Instant) {
    println!("{:<44} {:.0} s", "real time", begun.elapsed().as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("{:<44} {}", "peak memory, all of it", peak.map_or("unknown", str::trim));
}

/// The totals of many histories.
#[derive(Default)]
struct Totals {
    histories: u64,
    counts: BTreeMap<&'static str, u64>,
    failed: Option<(u64, Violation)>,
}

fn run_many(cli: &Cli) -> Result<bool> {
    let begun = real_time();
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

/// Updates one line on a terminal. Elsewhere, prints a line now and then.
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
    println!("to repeat the whole history: cargo run --release -p claviger-sim -- --seed {seed}");
    Ok(())
}
