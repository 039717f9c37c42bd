//! The benchmarks: builds the gateway and the program that measures it, both for release.

use anyhow::Result;

use crate::{built, postgres, tools};

/// Runs a benchmark with its options.
///
/// # Errors
/// If a program that it needs is missing, or the benchmark fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let bench = built::executable("claviger-bench", &["--release"])?;
    let mut command = tools::command(bench);
    command.args(arguments);
    let what = arguments.first().map_or("", String::as_str);
    if what == "postgres" {
        postgres::prepare()?;
    }
    if matches!(what, "check" | "proxy" | "postgres") {
        if tools::on_path("wrk").is_none() && tools::can_apt_install() {
            tools::apt_install("wrk")?;
        }
        command.arg("--gateway").arg(built::executable("claviger", &["--release"])?);
    }
    tools::run(&mut command)
}
