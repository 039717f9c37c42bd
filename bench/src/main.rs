//! Measures the gateway beside a baseline in the same run, so the ratios are comparable between
//! machines.
//!
//! `cargo xtask bench check` builds and starts it. It needs `wrk` on the PATH.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod bare;
mod fill;
mod gateway;
mod load;
mod postgres;
mod refresh;
mod sweep;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::load::Measured;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Requests a second and p99 of /auth/check beside a bare axum handler, and the gateway's
    /// memory.
    Check(Check),
    /// Refreshes a second by the engine with SQLite, beside a bare loop of the same HTTP client.
    Refresh(refresh::Options),
    /// Validations a second by the sweep with SQLite, beside a bare loop of the same HTTP client,
    /// and its memory.
    Sweep(sweep::Options),
    /// Capacity of a PostgreSQL database, beside pgbench and SQLite, and size of sessions on disk.
    Postgres(postgres::Options),
    /// One measurement of the sweep.
    #[command(hide = true)]
    SweepPart(sweep::Part),
    /// The baseline: an axum handler that does nothing.
    Bare {
        /// Sets the limits of the gateway's accept loop.
        #[arg(long)]
        limits: bool,
    },
}

#[derive(clap::Args)]
struct Check {
    /// The gateway's binary, built for release.
    #[arg(long)]
    gateway: PathBuf,
    /// Number of sessions in the store.
    #[arg(long, default_value_t = 100_000)]
    sessions: u32,
    /// Number of sessions that the load uses.
    #[arg(long, default_value_t = 1_000)]
    active: u32,
    /// Duration of each measurement, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Rounds of measurements, in turns. The median counts, also of the ratios.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Check(options) => check(&options).await,
        Command::Sweep(options) => sweep::run(&options).await,
        Command::SweepPart(part) => sweep::measure(&part).await,
        Command::Postgres(options) => postgres::run(&options).await,
        Command::Refresh(options) => refresh::run(&options).await,
        Command::Bare { limits } => bare::serve(limits).await,
    }
}

async fn check(options: &Check) -> Result<()> {
    let few = gateway::Gateway::start(&options.gateway, options.active).await?;
    let load = load::Load::new(few.cookies(), options.seconds)?;
    few.measure(&load, "session").await?;
    let memory_few = few.resident_mib()?;
    drop(few);

    println!("filling the store with {} sessions", options.sessions);
    let gateway = gateway::Gateway::start(&options.gateway, options.sessions).await?;
    let memory_idle = gateway.resident_mib()?;
    let cookies = gateway.cookies().get(..options.active as usize).unwrap_or(gateway.cookies());
    let load = load::Load::new(cookies, options.seconds)?;
    let (bare, limited) = (bare::Bare::start(false).await?, bare::Bare::start(true).await?);
    let mut rounds = Rounds::default();
    for round in 1..=options.rounds {
        println!("round {round} of {}", options.rounds);
        rounds.bare.push(bare.measure(&load).await?);
        rounds.limited.push(limited.measure(&load).await?);
        rounds.cookie.push(gateway.measure(&load, "cookie").await?);
        rounds.session.push(gateway.measure(&load, "session").await?);
    }
    rounds.print();
    println!(
        "\nmemory, MiB resident: {memory_few:.1} with {} sessions in the file and under load;\n\
         {memory_idle:.1} with {} at rest, {:.1} under load (to reach: 64)",
        options.active,
        options.sessions,
        gateway.resident_mib()?
    );
    Ok(())
}

#[derive(Default)]
struct Rounds {
    bare: Vec<Measured>,
    limited: Vec<Measured>,
    cookie: Vec<Measured>,
    session: Vec<Measured>,
}

impl Rounds {
    fn print(&self) {
        println!(
            "\n{:<28}{:>12}{:>8}{:>10}{:>10}{:>8}{:>12}{:>8}",
            "", "requests/s", "ratio", "to reach", "p99 ms", "ratio", "CPU us", "ratio"
        );
        for (name, runs, reach) in [
            ("bare axum handler", &self.bare, ""),
            ("the same with our limits", &self.limited, ""),
            ("assurance cookie", &self.cookie, "0.85"),
            ("assurance session", &self.session, "0.80"),
        ] {
            // A machine's speed varies within minutes, so a run is compared with the baseline of
            // its round.
            let ratios: Vec<_> = runs.iter().zip(&self.bare).map(|(run, bare)| run.beside(bare)).collect();
            let (median, ratio) = (Measured::median(runs), Measured::median(&ratios));
            println!(
                "{name:<28}{:>12.0}{:>8.2}{reach:>10}{:>10.2}{:>8.2}{:>12.2}{:>8.2}",
                median.per_second,
                ratio.per_second,
                median.p99_millis,
                ratio.p99_millis,
                median.cpu_micros,
                ratio.cpu_micros,
            );
        }
    }
}
