//! One command for everything that a developer or CI runs: `cargo xtask --help`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling the developer what happens is its work"
)]

mod bench;
mod browser;
mod built;
mod ci;
mod closures;
mod deny;
mod generated;
mod layers;
mod postgres;
mod previous;
mod steps;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that a developer or CI runs on Claviger.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must pass before a change lands
    ///
    /// Formatting, layers, clippy, dependency rules, docs, all tests, and that none of this changed a file.
    /// A failing step does not stop the others; the table at the end names every step with its result and time.
    Ci,
    /// All tests: Rust tests with doc tests, then the browser tests
    ///
    /// Installs what the browser tests need where it can (Chromium by apt when root on Debian, playwright-core by
    /// npm) and says what it cannot install.
    Test {
        /// Leave the browser tests out; then nothing but a Rust toolchain and a C compiler is needed
        #[arg(long)]
        no_browser: bool,
    },
    /// Which of our crates may depend on which, and what the pure crates reach
    ///
    /// The arrows stand in xtask/src/layers.rs. For each pure crate the names of all external packages that it
    /// reaches are compared with the list of that name in xtask/closures.
    Layers {
        /// Write the lists in xtask/closures anew; packages that are banned there stay banned
        #[arg(long)]
        bless: bool,
    },
    /// Licences, banned packages and sources of the dependencies, as deny.toml says
    ///
    /// Installs cargo-deny if it is missing or too old, which takes a few minutes.
    Deny {
        /// Also ask the advisory database, which needs the network
        #[arg(long)]
        advisories: bool,
    },
    /// The browser tests alone: tests/browser/*.test.mjs against a freshly built gateway
    ///
    /// CLAVIGER_CHROMIUM names the browser to use; CLAVIGER_BIN names a gateway to test instead of building one.
    Browser,
    /// Measures the gateway beside a baseline in the same run
    ///
    /// Builds for release. Installs wrk where it can. Say `cargo xtask bench check --help` for what can be chosen.
    Bench {
        /// What to measure, such as `check`, and its options
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Draws docs/diagrams.md by asking the rules in claviger-core
    Diagrams,
    /// Kills the gateway again and again under load, and judges what is left in its store
    ///
    /// The tests do it a few times; this is the long run.
    Crash {
        /// How often
        #[arg(long, default_value_t = 200)]
        kills: u32,
    },
    /// Runs the previous release's gateways and this one's on one database, and goes from the one to the other and back
    ///
    /// The previous release is built from the commit in xtask/src/previous.rs, so the clone needs its history. It needs
    /// PostgreSQL's programs.
    Releases,
    /// Kills and stalls gateways and their PostgreSQL under load, and judges all that was recorded
    ///
    /// Three gateways in front of 2,000 sessions. The tests do it for a minute; this is the long run. It needs PostgreSQL's
    /// programs.
    Fleet {
        /// For how long
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Draws the faults
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Makes the pictures in docs/ from the running demo: tests/browser/screenshot.mjs
    Screenshot,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ci => ci::ci(),
        Task::Test { no_browser } => ci::test(!no_browser),
        Task::Layers { bless } => layers::check().and_then(|()| closures::check(bless)),
        Task::Deny { advisories } => deny::check(advisories),
        Task::Browser => browser::test(),
        Task::Bench { arguments } => bench::run(&arguments),
        Task::Diagrams => ci::diagrams(),
        Task::Crash { kills } => ci::crash(kills),
        Task::Releases => ci::releases(),
        Task::Fleet { minutes, seed } => ci::fleet(minutes, seed),
        Task::Screenshot => browser::screenshot(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
