//! Subjects of commits: `area: imperative summary` in at most 72 characters.

use anyhow::Result;

use super::fault::{Fault, Rule};
use crate::tools;

/// The last commit before the rule.
const BASE: &str = "4fdc268b4a55d65cbac051c1705f7b88d799b576";

const SUBJECT: usize = 72;

/// First words of a summary that is no imperative.
const NOT_IMPERATIVE: &[&str] = &[
    "a", "an", "the", "all", "every", "each", "no", "nobody", "nothing", "only", "what", "where", "which",
    "who",
];

/// Judges the commits since the rule began. Where the history does not reach back to that, as in a
/// shallow clone, it says so and finds nothing.
///
/// # Errors
/// If git is missing or fails.
pub(crate) fn check() -> Result<Vec<Fault>> {
    let mut has_base = tools::command("git");
    has_base.args(["cat-file", "-e", &format!("{BASE}^{{commit}}")]).stderr(std::process::Stdio::null());
    if !has_base.status()?.success() {
        println!("tidy: the history does not reach back to {BASE}, so subjects of commits are not checked");
        return Ok(Vec::new());
    }
    let since = format!("{BASE}..HEAD");
    let log = ["log", "--no-merges", "--format=%h %s", "--abbrev=12", &since];
    Ok(faults(&tools::output(tools::command("git").args(log))?))
}

/// Judges lines of a hash and a subject.
fn faults(log: &str) -> Vec<Fault> {
    let commits = log.lines().filter_map(|line| line.split_once(' '));
    let fault = |(hash, subject): (&str, &str)| {
        let message = format!("\"{subject}\" {}", fault(subject)?);
        let (at, what) = (hash.to_owned(), subject.to_owned());
        Some(Fault { rule: Rule::CommitSubjects, at, line: None, what, message })
    };
    commits.filter_map(fault).collect()
}

/// What is wrong with a subject, if anything is.
fn fault(subject: &str) -> Option<String> {
    let length = subject.chars().count();
    if length > SUBJECT {
        return Some(format!("has {length} characters: at most {SUBJECT}"));
    }
    let (area, summary) = subject.split_once(": ").unwrap_or_default();
    let is_area = !area.is_empty() && area.split(", ").all(is_name);
    let first = summary.split(' ').next().unwrap_or_default();
    let is_imperative =
        first.starts_with(|c: char| c.is_ascii_lowercase()) && !NOT_IMPERATIVE.contains(&first);
    let ok = is_area && is_imperative && !summary.ends_with('.');
    (!ok).then(|| {
        "is not of the form `area: imperative summary`, such as `store: keep a connection`".to_owned()
    })
}

fn is_name(area: &str) -> bool {
    let is_part =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '/' | '.');
    !area.is_empty() && area.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_an_area_and_an_imperative() {
        let table = [
            ("store-postgres: keep a quarter of connections for reads", true),
            ("axum, gateway: read a request once", true),
            ("docs/answers: say what a sign-out ends", true),
            ("Keep connections", false),
            ("Store: keep connections", false),
            ("store: Keep connections", false),
            ("store: the connections are kept", false),
            ("store: keep connections.", false),
            (": keep connections", false),
            ("store: ", false),
        ];
        for (subject, ok) in table {
            assert_eq!(fault(subject).is_none(), ok, "{subject}");
        }
    }

    #[test]
    fn a_subject_has_at_most_72_characters() {
        let subject = |length: usize| format!("store: {}", "k".repeat(length - 7));
        assert_eq!(fault(&subject(72)), None);
        assert_eq!(fault(&subject(73)).unwrap(), "has 73 characters: at most 72");
    }

    #[test]
    fn a_fault_names_its_commit() {
        let found = faults("0123456789ab store: keep a row\nba9876543210 Aphorism\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].at, "ba9876543210");
    }
}
