//! What passes although it breaks a rule, from `xtask/tidy/exceptions.toml`.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::fault::{Fault, Rule};

/// The file of the exceptions.
pub(crate) const FILE: &str = "xtask/tidy/exceptions.toml";

/// The exceptions of the repository.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    rule: Rule,
    at: String,
    what: Option<String>,
    reason: String,
}

impl Exceptions {
    /// Reads the file.
    ///
    /// # Errors
    /// If it is not a list of exceptions, or one has no reason.
    pub(crate) fn parse(file: &str) -> Result<Exceptions> {
        let exceptions: Exceptions = toml::from_str(file).context(FILE)?;
        let unreasoned = exceptions.exception.iter().find(|exception| exception.reason.trim().is_empty());
        ensure!(unreasoned.is_none(), "{FILE}: every exception needs a reason");
        Ok(exceptions)
    }

    /// Takes the faults away that an exception covers, and adds one for each exception that covers
    /// none.
    pub(crate) fn apply(&self, faults: Vec<Fault>) -> Vec<Fault> {
        let unneeded = |exception: &&Exception| !faults.iter().any(|fault| exception.covers(fault));
        let unneeded: Vec<_> = self.exception.iter().filter(unneeded).map(Exception::unneeded).collect();
        let left = faults.into_iter().filter(|fault| !self.exception.iter().any(|it| it.covers(fault)));
        left.chain(unneeded).collect()
    }
}

impl Exception {
    fn covers(&self, fault: &Fault) -> bool {
        let is_it = |what: &String| match self.rule {
            Rule::FunctionLines | Rule::ModuleCycles => fault.what == *what,
            _ => fault.what.contains(what),
        };
        self.rule == fault.rule && self.at == fault.at && self.what.as_ref().is_none_or(is_it)
    }

    fn unneeded(&self) -> Fault {
        let Exception { rule, at, what, .. } = self;
        let what = what.as_ref().map_or_else(String::new, |what| format!(", \"{what}\""));
        Fault {
            rule: Rule::Exceptions,
            at: FILE.to_owned(),
            line: None,
            what: String::new(),
            message: format!("nothing needs the exception from {} at {at}{what}: remove it", rule.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(rule: Rule, at: &str, what: &str) -> Fault {
        Fault { rule, at: at.to_owned(), line: Some(1), what: what.to_owned(), message: String::new() }
    }

    fn exceptions(rest: &str) -> Exceptions {
        Exceptions::parse(&format!("[[exception]]\nreason = \"a sample\"\n{rest}")).unwrap()
    }

    #[test]
    fn an_exception_covers_one_function_or_every_line_with_its_text() {
        let function = exceptions("rule = \"function-lines\"\nat = \"a.rs\"\nwhat = \"run\"");
        let run = fault(Rule::FunctionLines, "a.rs", "run");
        let others = [
            fault(Rule::FunctionLines, "a.rs", "run_all"),
            fault(Rule::FunctionLines, "b.rs", "run"),
            fault(Rule::Columns, "a.rs", "run"),
        ];
        assert_eq!(function.apply([&[run], &others[..]].concat()), others);
        let text = exceptions("rule = \"phrases\"\nat = \"a.md\"\nwhat = \"a quote\"");
        assert_eq!(text.apply(vec![fault(Rule::Phrases, "a.md", "this is a quote.")]), []);
        let file = exceptions("rule = \"file-lines\"\nat = \"a.md\"");
        assert_eq!(file.apply(vec![fault(Rule::FileLines, "a.md", "a.md")]), []);
    }

    #[test]
    fn an_exception_that_nothing_needs_is_a_fault() {
        let faults = exceptions("rule = \"columns\"\nat = \"a.md\"\nwhat = \"gone\"").apply(Vec::new());
        assert_eq!(faults.len(), 1);
        let text = faults[0].to_string();
        assert!(text.contains("exception from columns at a.md, \"gone\": remove it"), "{text}");
    }

    #[test]
    fn every_exception_has_a_reason() {
        let exception = "[[exception]]\nrule = \"columns\"\nat = \"a.md\"\n";
        assert!(Exceptions::parse(exception).is_err());
        assert!(Exceptions::parse(&format!("{exception}reason = \" \"")).is_err());
        assert!(Exceptions::parse("").unwrap().apply(Vec::new()).is_empty());
    }

    #[test]
    fn the_exceptions_of_the_repository_are_read() {
        let file = std::fs::read_to_string(crate::tools::root().join(FILE)).unwrap();
        assert!(Exceptions::parse(&file).is_ok());
    }
}
