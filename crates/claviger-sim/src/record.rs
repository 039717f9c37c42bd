//! What happened in a history: counts, violations, and a trace on request.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name, as in ARCHITECTURE.md.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// Time since the history began.
    pub at: Duration,
}

/// Takes notes of a history.
pub(crate) struct Record {
    begun: tokio::time::Instant,
    verbose: bool,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<Violation>,
    trace: Vec<String>,
    /// A hash of every step and its time. Two runs of one seed have the same.
    digest: u64,
}

/// The result of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How often each thing happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The violations.
    pub violations: Vec<Violation>,
    /// Every step, on request.
    pub trace: Vec<String>,
    /// A hash of every step and its time. Two runs of one seed have the same.
    pub digest: u64,
}

impl Record {
    #[expect(clippy::disallowed_methods, reason = "tokio's paused time is the clock of the simulation")]
    pub(crate) fn new(verbose: bool) -> Self {
        Self { begun: tokio::time::Instant::now(), verbose, notes: Mutex::default() }
    }

    /// The time since the history began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Counts something that happened.
    pub(crate) fn count(&self, what: &'static str, who: usize) {
        let at = self.elapsed();
        let mut notes = self.lock();
        *notes.counts.entry(what).or_default() += 1;
        let step = what.bytes().fold(at.as_millis() as u64 ^ (who as u64) << 48, |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        notes.digest = (notes.digest.rotate_left(5) ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.verbose {
            let line = format!("{:>12.3} s  [{who}] {what}", at.as_secs_f64());
            notes.trace.push(line);
        }
    }

    /// Adds a line to the trace.
    pub(crate) fn say(&self, who: usize, what: impl FnOnce() -> String) {
        if self.verbose {
            let line = format!("{:>12.3} s  [{who}] {}", self.elapsed().as_secs_f64(), what());
            self.lock().trace.push(line);
        }
    }

    /// Notes a violation.
    pub(crate) fn violate(&self, invariant: &'static str, what: impl Into<String>) {
        let violation = Violation { invariant, what: what.into(), at: self.elapsed() };
        self.say(0, || format!("VIOLATED {invariant}: {}", violation.what));
        self.lock().violations.push(violation);
    }

    pub(crate) fn take(&self) -> Outcome {
        let Notes { counts, violations, trace, digest } = std::mem::take(&mut *self.lock());
        Outcome { counts, violations, trace, digest }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
