//! The command `claviger`.

use std::process::ExitCode;

use clap::Parser as _;
use claviger::cli::Cli;

fn main() -> ExitCode {
    claviger::choose_tls();
    Cli::parse().run()
}
