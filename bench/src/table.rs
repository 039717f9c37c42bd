//! The result of a benchmark in rounds: each row beside the baseline, which is the first one.

use crate::load::Measured;

pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    /// The ratio of requests a second that is to be reached.
    reach: &'static str,
    runs: Vec<Measured>,
}

impl Table {
    /// Names of the rows, each with what is to be reached.
    pub(crate) fn new(names: &[(&'static str, &'static str)]) -> Self {
        let row = |&(name, reach)| Row { name, reach, runs: Vec::new() };
        Self { rows: names.iter().map(row).collect() }
    }

    /// Adds a round: one measurement of each row. The last rows may be missing.
    pub(crate) fn add(&mut self, round: Vec<Measured>) {
        for (row, run) in self.rows.iter_mut().zip(round) {
            row.runs.push(run);
        }
    }

    pub(crate) fn print(&self) {
        println!(
            "\n{:<28}{:>12}{:>8}{:>10}{:>10}{:>8}{:>12}{:>8}",
            "", "requests/s", "ratio", "to reach", "p99 ms", "ratio", "CPU us", "ratio"
        );
        let baseline = self.rows.first().map_or(&[][..], |row| &row.runs);
        for Row { name, reach, runs } in self.rows.iter().filter(|row| !row.runs.is_empty()) {
            // A machine's speed varies within minutes, so a run is compared with the baseline of
            // its round.
            let ratios: Vec<_> = runs.iter().zip(baseline).map(|(run, bare)| run.beside(bare)).collect();
            let (median, ratio) = (Measured::median(runs), Measured::median(&ratios));
            println!(
                "{name:<28}{:>12.0}{:>8.2}{reach:>10}{:>10.2}{:>8.2}{:>12.2}{:>8.2}",
                median.per_second,
                ratio.per_second,
                median.p99_millis,
                ratio.p99_millis,
                median.cpu_micros,
                ratio.cpu_micros,
            );
        }
    }
}
