//! The command `claviger`.

use std::process::ExitCode;

use clap::Parser as _;
use claviger::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    claviger::choose_tls();
    Cli::parse().run()
}
