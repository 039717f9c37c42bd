//! Load by wrk, on many connections and sessions: requests a second and the 99th percentile.

use std::{fmt::Write as _, process::Stdio};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;
use tokio::process::Command;

const CONNECTIONS: &str = "32";

pub(crate) struct Load {
    script: NamedTempFile,
    duration: String,
}

/// The result of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p99_millis: f64,
    /// CPU time of the server for each request.
    pub(crate) cpu_micros: f64,
}

impl Measured {
    /// Each figure as a ratio to the baseline's.
    pub(crate) fn beside(&self, baseline: &Self) -> Self {
        Self {
            per_second: self.per_second / baseline.per_second,
            p99_millis: self.p99_millis / baseline.p99_millis,
            cpu_micros: self.cpu_micros / baseline.cpu_micros,
        }
    }

    /// The median of each figure.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = runs.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or_default()
        };
        Self {
            per_second: middle(|run| run.per_second),
            p99_millis: middle(|run| run.p99_millis),
            cpu_micros: middle(|run| run.cpu_micros),
        }
    }
}

impl Load {
    /// Requests that use these cookies in turn.
    pub(crate) fn new(cookies: &[String], seconds: u32) -> Result<Self> {
        let mut script = String::from("local cookies = {\n");
        for cookie in cookies {
            writeln!(script, "  \"claviger-insecure={cookie}\",")?;
        }
        script.push_str(
            "}\nlocal requests, turn = {}, 0\n\
             init = function() for i, c in ipairs(cookies) do requests[i] = wrk.format(\"GET\", wrk.path, {Cookie = c}) end end\n\
             request = function() turn = turn % #requests + 1; return requests[turn] end\n",
        );
        let file = NamedTempFile::with_suffix(".lua")?;
        std::fs::write(file.path(), script)?;
        Ok(Self { script: file, duration: format!("{seconds}s") })
    }

    /// Loads a server, which is the process with this id.
    pub(crate) async fn run(&self, process: u32, address: &str, path: &str) -> Result<Measured> {
        let before = cpu_seconds(process)?;
        let output = Command::new("wrk")
            .args(["-t", "1", "-c", CONNECTIONS, "-d", &self.duration, "--latency", "-s"])
            .arg(self.script.path())
            .arg(format!("http://{address}{path}"))
            .stderr(Stdio::inherit())
            .output()
            .await
            .context("wrk is missing; install the package wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || text.contains("Non-2xx") {
            bail!("wrk failed:\n{text}");
        }
        let cpu_micros = (cpu_seconds(process)? - before) * 1e6 / requests(&text)?;
        Ok(Measured { per_second: per_second(&text)?, p99_millis: p99_millis(&text)?, cpu_micros })
    }
}

/// CPU time of a process so far (proc_pid_stat(5), fields 14 and 15, in hundredths of a second).
fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let used = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(used.sum::<Result<f64, _>>()? / 100.0)
}

fn requests(text: &str) -> Result<f64> {
    let line = text.lines().find(|line| line.contains(" requests in ")).context("no number of requests")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

fn per_second(text: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).context("no Requests/sec")?;
    Ok(line.trim().parse()?)
}

fn p99_millis(text: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("99%")).context("no 99%")?.trim();
    let (number, factor) = if let Some(number) = line.strip_suffix("us") {
        (number, 0.001)
    } else if let Some(number) = line.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (line.trim_end_matches('s'), 1000.0)
    };
    Ok(number.parse::<f64>()? * factor)
}
