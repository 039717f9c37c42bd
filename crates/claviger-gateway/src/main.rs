//! The command `claviger`.

use std::process::ExitCode;

use clap::Parser as _;
use claviger_gateway::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    claviger_gateway::choose_tls();
    Cli::parse().run()
}
