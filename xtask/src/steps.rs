//! Runs named steps one after the other, goes on after a failure, and sums up at the end.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The steps that have run so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: &'static str,
    took: Duration,
    error: Option<String>,
}

impl Steps {
    /// Runs one step and remembers how it went.
    pub(crate) fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        println!("\n=== {name}");
        let start = now();
        let error = work().err().map(|error| format!("{error:#}"));
        let took = start.elapsed();
        match &error {
            None => println!("=== {name}: ok after {}", in_words(took)),
            Some(error) => println!("=== {name}: FAILED after {}\n{error}", in_words(took)),
        }
        self.done.push(Step { name, took, error });
    }

    /// Prints the table of all steps.
    ///
    /// # Errors
    /// If any step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n{}", table(&self.done));
        let failed: Vec<_> =
            self.done.iter().filter(|step| step.error.is_some()).map(|step| step.name).collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", failed.join(", "))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time a step takes is told to a person and decides nothing"
)]
fn now() -> Instant {
    Instant::now()
}

fn table(steps: &[Step]) -> String {
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    let total: Duration = steps.iter().map(|step| step.took).sum();
    let mut table = String::new();
    for Step { name, took, error } in steps {
        let result = if error.is_none() { "ok" } else { "FAILED" };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{name:width$}  {:>8}  {result}", in_words(*took));
    }
    let _ = write!(table, "{:width$}  {:>8}", "all", in_words(total));
    table
}

/// A duration as a person reads it: "0.4s", "12.3s", "3m05s".
fn in_words(took: Duration) -> String {
    let secs = took.as_secs();
    if secs < 60 {
        return format!("{:.1}s", took.as_secs_f64());
    }
    format!("{}m{:02}s", secs / 60, secs % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn the_steps_after_a_failure_run_and_the_end_names_what_failed() {
        let mut steps = Steps::default();
        let mut ran = false;
        steps.run("first", || Err(anyhow!("broken")));
        steps.run("second", || {
            ran = true;
            Ok(())
        });
        assert!(ran);
        assert_eq!(steps.finish().unwrap_err().to_string(), "failed: first");
    }

    #[test]
    fn the_table_has_a_line_for_each_step_and_the_sum() {
        let step = |name, secs, error: Option<&str>| Step {
            name,
            took: Duration::from_secs(secs),
            error: error.map(str::to_owned),
        };
        assert_eq!(
            table(&[step("format", 1, None), step("tests", 184, Some("broken"))]),
            "format      1.0s  ok\ntests      3m04s  FAILED\nall        3m05s"
        );
    }
}
