//! The benchmarks: builds the gateway and the program that measures it, both for release.

use anyhow::Result;

use crate::{built, tools};

/// Runs a benchmark with its options.
///
/// # Errors
/// If something that it needs is missing, or it does not go well.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if tools::on_path("wrk").is_none() && tools::can_apt_install() {
        tools::apt_install("wrk")?;
    }
    let gateway = built::executable("claviger", &["--release"])?;
    let bench = built::executable("claviger-bench", &["--release"])?;
    tools::run(tools::command(bench).args(arguments).arg("--gateway").arg(gateway))
}
