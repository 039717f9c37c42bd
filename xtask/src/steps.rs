//! Runs named steps in turn, continues after a failure, and prints a summary.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

/// Why a step could not be done, though nothing is wrong with the work tree. It is reported and
/// fails nothing.
#[derive(Debug)]
pub(crate) struct NotDone(pub(crate) &'static str);

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NOT DONE: {}", self.0)
    }
}

impl std::error::Error for NotDone {}

/// The steps that have run so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: &'static str,
    took: Duration,
    result: Result<()>,
}

impl Steps {
    /// Runs one step and records its result.
    pub(crate) fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        println!("\n=== {name}");
        let start = now();
        let result = work();
        let took = start.elapsed();
        println!("=== {name}: {} ({})", outcome(&result), in_words(took));
        if let Some(error) = failure(&result) {
            println!("{error:#}");
        }
        self.done.push(Step { name, took, result });
    }

    /// Prints the table of all steps.
    ///
    /// # Errors
    /// If any step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n{}", table(&self.done));
        let failed: Vec<_> =
            self.done.iter().filter(|step| failure(&step.result).is_some()).map(|step| step.name).collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", failed.join(", "))
    }
}

/// The error of a step that failed.
fn failure(result: &Result<()>) -> Option<&Error> {
    result.as_ref().err().filter(|error| !error.is::<NotDone>())
}

fn outcome(result: &Result<()>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.downcast_ref::<NotDone>().map_or_else(|| "FAILED".to_owned(), NotDone::to_string),
    }
}

#[expect(clippy::disallowed_methods, reason = "the duration of a step is only printed")]
fn now() -> Instant {
    Instant::now()
}

fn table(steps: &[Step]) -> String {
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    let total: Duration = steps.iter().map(|step| step.took).sum();
    let mut table = String::new();
    for Step { name, took, result } in steps {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{name:width$}  {:>8}  {}", in_words(*took), outcome(result));
    }
    let _ = write!(table, "{:width$}  {:>8}", "all", in_words(total));
    table
}

/// A duration for people: "0.4s", "12.3s", "3m05s".
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
    fn steps_after_a_failure_run_and_the_error_names_what_failed() {
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
    fn the_table_has_a_line_for_each_step_and_the_total() {
        let step = |name, secs, result| Step { name, took: Duration::from_secs(secs), result };
        let steps = [
            step("format", 1, Ok(())),
            step("advisories", 1, Err(NotDone("no network").into())),
            step("tests", 184, Err(anyhow!("broken"))),
        ];
        assert_eq!(
            table(&steps),
            "format          1.0s  ok\nadvisories      1.0s  NOT DONE: no network\n\
             tests          3m04s  FAILED\nall            3m06s"
        );
    }

    #[test]
    fn a_step_that_could_not_be_done_fails_nothing() {
        let mut steps = Steps::default();
        steps.run("advisories", || Err(NotDone("no network").into()));
        assert!(steps.finish().is_ok());
    }
}
