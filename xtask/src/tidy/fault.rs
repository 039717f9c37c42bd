//! What a rule finds.

use std::fmt;

use serde::Deserialize;

/// The rules, in the order in which they are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rule {
    FunctionLines,
    FileLines,
    Columns,
    Phrases,
    ModuleCycles,
    CommitSubjects,
    Exceptions,
}

impl Rule {
    pub(crate) const ALL: [Rule; 7] = [
        Rule::FunctionLines,
        Rule::FileLines,
        Rule::Columns,
        Rule::Phrases,
        Rule::ModuleCycles,
        Rule::CommitSubjects,
        Rule::Exceptions,
    ];

    /// The name that exceptions and the output use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rule::FunctionLines => "function-lines",
            Rule::FileLines => "file-lines",
            Rule::Columns => "columns",
            Rule::Phrases => "phrases",
            Rule::ModuleCycles => "module-cycles",
            Rule::CommitSubjects => "commit-subjects",
            Rule::Exceptions => "exceptions",
        }
    }
}

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) rule: Rule,
    /// The file, or what stands for one: a crate or a commit.
    pub(crate) at: String,
    /// The line in the file, if one line is at fault.
    pub(crate) line: Option<usize>,
    /// What an exception names: a function, the text of a line, the modules of a cycle.
    pub(crate) what: String,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

impl Fault {
    /// What the fault is counted under.
    pub(crate) fn area(&self) -> &str {
        if self.rule == Rule::CommitSubjects { "commits" } else { area(&self.at) }
    }
}

/// The package that a file or folder belongs to, or the folder at the root.
pub(crate) fn area(path: &str) -> &str {
    let mut folders = path.split('/');
    match (folders.next(), folders.next()) {
        (Some("crates"), Some(package)) => package,
        (Some("tests"), Some("browser")) => "tests/browser",
        (Some(folder), Some(_)) => folder,
        _ => "root",
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { rule, at, line, message, .. } = self;
        match line {
            Some(line) => write!(f, "{at}:{line}: {}: {message}", rule.name()),
            None => write!(f, "{at}: {}: {message}", rule.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(rule: Rule, at: &str, line: Option<usize>) -> Fault {
        Fault { rule, at: at.to_owned(), line, what: String::new(), message: "split it".to_owned() }
    }

    #[test]
    fn a_fault_is_printed_with_its_place_and_rule() {
        let with_line = fault(Rule::Columns, "docs/a.md", Some(7)).to_string();
        assert_eq!(with_line, "docs/a.md:7: columns: split it");
        let without = fault(Rule::FileLines, "docs/a.md", None).to_string();
        assert_eq!(without, "docs/a.md: file-lines: split it");
    }

    #[test]
    fn faults_are_counted_by_crate() {
        let table = [
            (Rule::Columns, "crates/claviger-core/src/lib.rs", "claviger-core"),
            (Rule::ModuleCycles, "crates/claviger-core", "claviger-core"),
            (Rule::Columns, "tests/browser/harness.mjs", "tests/browser"),
            (Rule::Columns, "docs/decisions/0001-x.md", "docs"),
            (Rule::Columns, "README.md", "root"),
            (Rule::CommitSubjects, "0123456789ab", "commits"),
        ];
        for (rule, at, area) in table {
            assert_eq!(fault(rule, at, None).area(), area);
        }
    }
}
