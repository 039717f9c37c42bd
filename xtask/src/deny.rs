//! `cargo deny`, installed when it is missing.

use anyhow::{Context as _, Result};

use crate::tools::{self, Version, run};

/// The version that is installed; a newer one that is there already will do.
const CARGO_DENY: Version = Version(0, 20, 2);

/// Checks licences, bans and sources of all dependencies as deny.toml says, and on wish the advisories.
///
/// # Errors
/// If a dependency breaks a rule, or cargo-deny cannot be installed.
pub(crate) fn check(advisories: bool) -> Result<()> {
    install()?;
    let mut deny = tools::cargo();
    deny.args(["deny", "--locked", "--all-features", "check", "--hide-inclusion-graph"]);
    deny.args(["licenses", "bans", "sources"]);
    if advisories {
        deny.arg("advisories");
    }
    run(&mut deny)
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
