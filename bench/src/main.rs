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
mod proxy;
mod refresh;
mod sweep;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    bare::{Bare, CHECK},
    table::Table,
};

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
    /// Requests a second and p99 of a small answer through the gateway, beside a bare proxy of
    /// hyper-util and beside nginx.
    Proxy(proxy::Options),
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
    /// The baseline: a proxy that passes requests on.
    #[command(hide = true)]
    BareProxy {
        /// Address of the app.
        #[arg(long)]
        app: String,
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
        Command::Proxy(options) => proxy::run(&options).await,
        Command::BareProxy { app } => proxy::serve_bare(app).await,
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
    let (bare, limited) = (Bare::start(&["bare"]).await?, Bare::start(&["bare", "--limits"]).await?);
    let mut table = Table::new(&[
        ("bare axum handler", ""),
        ("the same with our limits", ""),
        ("assurance cookie", "0.85"),
        ("assurance session", "0.80"),
    ]);
    for round in 1..=options.rounds {
        println!("round {round} of {}", options.rounds);
        table.add(vec![
            bare.measure(&load, CHECK).await?,
            limited.measure(&load, CHECK).await?,
            gateway.measure(&load, "cookie").await?,
            gateway.measure(&load, "session").await?,
        ]);
    }
    table.print();
    println!(
        "\nmemory, MiB resident: {memory_few:.1} with {} sessions in the file and under load;\n\
         {memory_idle:.1} with {} at rest, {:.1} under load (to reach: 64)",
        options.active,
        options.sessions,
        gateway.resident_mib()?
    );
    Ok(())
}
