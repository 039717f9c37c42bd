//! Runs `cargo deny`, and installs it if it is missing.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::steps::NotDone;
use crate::tools::{self, Version, run};

/// The oldest version that will do, and the one to install.
const CARGO_DENY: Version = Version(0, 20, 2);

/// Checks licences, bans and sources of all dependencies against deny.toml.
///
/// # Errors
/// If a dependency breaks a rule, or cargo-deny cannot be installed.
pub(crate) fn check() -> Result<()> {
    install()?;
    run(deny().args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))
}

/// Checks all dependencies against the advisory database.
///
/// # Errors
/// If a dependency has an advisory or was yanked, or cargo-deny cannot be installed. [`NotDone`] if
/// the database cannot be fetched, as without a network.
pub(crate) fn advisories() -> Result<()> {
    install()?;
    // cargo-deny fails alike for an advisory and for a database that it cannot fetch.
    run(deny().args(["fetch", "db"])).map_err(|_| NotDone("the advisory database cannot be fetched"))?;
    run(deny().args(["check", "--hide-inclusion-graph", "advisories"]))
}

fn deny() -> Command {
    let mut deny = tools::cargo();
    deny.args(["deny", "--locked", "--all-features"]);
    deny
}

fn install() -> Result<()> {
    let installed = tools::version_of(tools::cargo().args(["deny", "--version"]));
    if installed.is_some_and(|version| version >= CARGO_DENY) {
        return Ok(());
    }
    println!(
        "cargo-deny {CARGO_DENY} or newer is not installed: building it, which takes a few minutes, once"
    );
    let version = CARGO_DENY.to_string();
    run(tools::cargo().args(["install", "cargo-deny", "--locked", "--version", &version]))
        .context("cargo-deny could not be installed")
}
