//! One command for everything that a developer or CI runs: `cargo xtask --help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is for a person at a terminal")]

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
mod tidy;
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
    /// Run everything that must pass before a change lands
    ///
    /// Formatting, style, layers, clippy, dependency rules, advisories, docs and all tests. None of
    /// the steps may change a file. A failing step does not stop the others; a table at the end
    /// lists each step with its result and duration. Without a network the dependencies are not
    /// checked against the advisory database. The table says so, and CI does not fail for it.
    Ci,
    /// Run the steps of CI that run no test: format, tidy, layers, clippy, deny, docs, diagrams
    Check,
    /// Run all tests: Rust tests with doc tests, then the browser tests
    ///
    /// Installs what the browser tests need: Chromium by apt as root on Debian, playwright-core by
    /// npm. Names what it cannot install.
    Test {
        /// Skip the browser tests, which need Node.js and Chromium
        #[arg(long)]
        no_browser: bool,
    },
    /// Check which of our crates depend on which, and which packages the pure crates use
    ///
    /// xtask/src/layers.rs lists the allowed dependencies between our crates. xtask/closures has a
    /// list for each pure crate: all external packages that it depends on, directly or not.
    Layers {
        /// Rewrite the lists in xtask/closures; banned packages stay banned
        #[arg(long)]
        bless: bool,
    },
    /// Check style: lengths, columns, phrases, cycles of modules, subjects of commits
    ///
    /// xtask/src/tidy/mod.rs lists the rules, xtask/tidy/exceptions.toml the exceptions.
    Tidy {
        /// Print only the number of faults by crate and rule
        #[arg(long)]
        count: bool,
        /// Wrap comments and prose at 100 columns where they are wider, and change nothing else
        #[arg(long, conflicts_with = "count")]
        wrap: bool,
        /// Only paths that begin with one of these, such as crates/claviger-core
        paths: Vec<String>,
    },
    /// Check licences, banned packages and sources of the dependencies against deny.toml
    ///
    /// Installs cargo-deny if it is missing or too old, which takes a few minutes.
    Deny {
        /// Also ask the advisory database, which needs the network
        #[arg(long)]
        advisories: bool,
    },
    /// Run only the browser tests: tests/browser/*.test.mjs against a new build of the gateway
    ///
    /// CLAVIGER_CHROMIUM names the browser to use; CLAVIGER_BIN names a gateway to test instead of
    /// building one.
    Browser {
        /// Run only the tests whose name matches this regular expression
        pattern: Option<String>,
    },
    /// Measure the gateway beside a baseline in the same run
    ///
    /// Builds for release. Installs wrk if it can. `cargo xtask bench check --help` lists the
    /// options of one benchmark.
    Bench {
        /// What to measure, such as `check`, and its options
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Draw docs/diagrams.md from the rules in claviger-core
    Diagrams,
    /// Kill the gateway many times under load, and check what its store holds
    ///
    /// The tests do it a few times; this is the long run.
    Crash {
        /// Number of kills
        #[arg(long, default_value_t = 200)]
        kills: u32,
    },
    /// Hold connections to a gateway with many hostile clients, and check what they cost
    ///
    /// The tests do it with a few hundred; this is the large run. It needs 10 open files for each
    /// client (`ulimit -n`).
    Crowd {
        /// Number of clients
        #[arg(long, default_value_t = 4096)]
        clients: u32,
    },
    /// Run gateways of the previous release and of this one on one database, upgrade and go back
    ///
    /// The previous release is built from the commit in xtask/src/previous.rs, so the clone needs
    /// its history. Needs PostgreSQL.
    Releases,
    /// Kill and stall gateways and their PostgreSQL under load, and check the recorded history
    ///
    /// Three gateways serve 2,000 sessions. The tests do it for a minute; this is the long run.
    /// Needs PostgreSQL.
    Fleet {
        /// Duration in minutes
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Seed of the faults
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Test the SQLite store in a program that also links sqlx
    BesideSqlx,
    /// Make the screenshots in docs/ from the running demo, with tests/browser/screenshot.mjs
    Screenshot,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ci => ci::ci(),
        Task::Check => ci::check(),
        Task::Test { no_browser } => ci::test(!no_browser),
        Task::Layers { bless } => layers::check().and_then(|()| closures::check(bless)),
        Task::Tidy { wrap: true, paths, .. } => tidy::wrap(&paths),
        Task::Tidy { count, paths, .. } => tidy::run(&tidy::Options { count, paths }),
        Task::Deny { advisories: false } => deny::check(),
        Task::Deny { advisories: true } => deny::check().and_then(|()| deny::advisories()),
        Task::Browser { pattern } => browser::test(pattern.as_deref()),
        Task::Bench { arguments } => bench::run(&arguments),
        Task::Diagrams => ci::diagrams(),
        Task::Crash { kills } => ci::crash(kills),
        Task::Crowd { clients } => ci::crowd(clients),
        Task::Releases => ci::releases(),
        Task::Fleet { minutes, seed } => ci::fleet(minutes, seed),
        Task::BesideSqlx => ci::beside_sqlx(),
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
