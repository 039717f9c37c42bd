//! The configuration of the gateway: defaults, then the file, then environment variables, each over
//! the ones before.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`], [`assertion`] | every setting: name, type, default, limits, documentation |
//! | [`declare`] | what a declaration consists of |
//! | [`derived`] | what follows from them |
//! | [`keys`] | lookups by key, and old names |
//! | [`values`], [`endpoints`] | the types of single values |
//! | [`layers`] | defaults, file and environment merged, and where each value came from |
//! | [`check`] | what is wrong with the values |
//! | [`secrets`] | the files that hold secrets |
//! | [`explain`] | what `check-config` shows |
//! | [`warnings`] | what works but deserves a look |
//! | [`mod@reference`] | `docs/configuration.md` |
//!
//! To add a setting, declare it in [`settings`] and use the new field. A test rewrites
//! `docs/configuration.md`. Only a check that concerns several settings needs more, in [`check`].

pub mod assertion;
pub mod check;
pub mod declare;
pub mod derived;
pub mod endpoints;
pub mod explain;
pub mod keys;
pub mod layers;
pub mod problem;
pub mod reference;
pub mod secrets;
pub mod settings;
pub mod values;
pub mod warnings;

use std::collections::BTreeSet;

pub use derived::CALLBACK;
pub use endpoints::{ListenAt, Upstream, Via};
pub use layers::{Layers, Origin};
pub use problem::{Problem, Problems};
pub use settings::{Allowed, Config, Limits, Log, LogFormat, Route, RouteAssurance, Store};
pub use values::{HookUrl, Listen, Secret, SiteUrl, Span, Word};

impl Config {
    /// Makes a configuration of merged layers.
    ///
    /// # Errors
    /// All that is wrong. How values fit together is checked only if each by itself can be read.
    pub fn new(layers: &Layers) -> Result<Self, Problems> {
        let mut problems = layers.problems().to_vec();
        problems.extend(layers.missing().map(|setting| layers.problem_of_missing(&setting.key)));
        let (config, wrong) = read(layers);
        problems.extend(check::limits(layers));
        if let (Some(config), true) = (&config, wrong.is_empty()) {
            problems.extend(check::problems(config, layers));
        }
        problems.extend(wrong);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Problems(problems)),
        }
    }
}

/// Reads the values, and reports the wrong ones. A valid value takes the place of each wrong and
/// each missing one, so that it hides no other.
fn read(layers: &Layers) -> (Option<Config>, Vec<Problem>) {
    let mut layers = layers.clone();
    let missing: Vec<_> = layers.missing().collect();
    missing.into_iter().for_each(|setting| layers.stand_in(setting));
    let (mut wrong, mut replaced) = (Vec::new(), BTreeSet::new());
    loop {
        let error = match serde_path_to_error::deserialize(layers.tree().clone()) {
            Ok(config) => return (Some(config), wrong),
            Err(error) => error,
        };
        let error: serde_path_to_error::Error<toml::de::Error> = error;
        let problem = layers.problem(&error.path().to_string(), error.inner().message());
        let key = problem.key.split('[').next().unwrap_or_default().to_owned();
        wrong.push(problem);
        match keys::find(&key) {
            Some(setting) if replaced.insert(key) => layers.stand_in(setting),
            _ => return (None, wrong),
        }
    }
}

#[cfg(test)]
mod tests;
