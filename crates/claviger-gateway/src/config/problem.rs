//! What is wrong with a configuration.

use std::fmt;

use super::layers::Origin;

/// One thing that is wrong with a configuration. It shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key; or the path of the file, if no key is to blame.
    pub key: String,
    /// Where its value came from.
    pub origin: Option<Origin>,
    /// What is wrong and what to do, as a sentence without a full stop.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} ({origin}): {}", self.key, self.what),
            None => write!(f, "{}: {}", self.key, self.what),
        }
    }
}

/// A configuration that cannot be used. The operator must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot be used; its operator must correct it:{}", list(.0))]
pub struct Problems(pub Vec<Problem>);

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
