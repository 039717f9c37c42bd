//! Merges defaults, file and environment variables into one tree, and records where each value came
//! from.

use std::{collections::BTreeMap, fmt, path::Path};

use claviger_core::Schedule;
use claviger_provider::Preset;
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    declare::{Kind, Section as _, Setting, join},
    keys::{self, RENAMED, Renamed, SETTINGS},
    problem::{Problem, Problems},
    settings::Config,
};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is the default.
    Default,
    /// A line of the file.
    File {
        /// Its path.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path} line {line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// The prefix of our environment variables.
pub const PREFIX: &str = "CLAVIGER_";

/// Prefixes of variables that container systems set for a service named `claviger`.
const SERVICE_LINKS: &[&str] = &["CLAVIGER_SERVICE_", "CLAVIGER_PORT"];
/// Variables of this project's tests.
const NOT_SETTINGS: &[&str] = &["CLAVIGER_BIN", "CLAVIGER_CHROMIUM", "CLAVIGER_ENVOY"];

/// The merged values, and where each came from.
#[derive(Clone)]
pub struct Layers {
    tree: Table,
    /// By path, as in `session.idle` and `routes[0].path`.
    origins: BTreeMap<String, Origin>,
    /// Old names that were given, and where.
    renamed: Vec<(Renamed, Origin)>,
    /// Keys that are unknown or exclude each other. The tree is as if they were not given.
    problems: Vec<Problem>,
}

/// The settings that a reload takes over.
const RELOADED: [&str; 5] = [
    "keyring",
    "keyring_file",
    "provider.client_secret",
    "provider.client_secret_file",
    "private.credentials_file",
];

/// What one layer gives: each key with its value and where it stands.
type Given = BTreeMap<String, (Value, Origin)>;

impl Layers {
    /// The defaults.
    pub fn defaults() -> Self {
        let mut layers =
            Self { tree: Table::new(), origins: BTreeMap::new(), renamed: Vec::new(), problems: Vec::new() };
        // A section without defaults is there all the same.
        for Setting { key, kind, .. } in Config::settings() {
            if let Kind::Table(_) = kind {
                layers.tree.insert(key, Value::Table(Table::new()));
            }
        }
        for setting in SETTINGS.iter() {
            if let Some(value) = setting.default.and_then(literal) {
                layers.set(&setting.key, value, Origin::Default);
            }
        }
        layers
    }

    /// Adds the values of a file.
    ///
    /// # Errors
    /// If it cannot be read or is not TOML. Unknown keys, and keys that exclude each other, are
    /// [`Layers::problems`].
    pub fn file(self, path: &Path) -> Result<Self, Problems> {
        let name = path.display().to_string();
        let wrong = |what: String| Problems(vec![Problem { key: name.clone(), origin: None, what }]);
        let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot be read ({error})")))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
        self.text(&text, &name)
    }

    /// Adds the values of a file with this text.
    ///
    /// # Errors
    /// See [`Layers::file`].
    pub fn text(mut self, text: &str, name: &str) -> Result<Self, Problems> {
        // The faulty line may hold a secret, so the message leaves it out.
        let wrong = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let origin = Some(Origin::File { path: name.to_owned(), line });
            let what = format!("is not TOML: {}", error.message());
            Problems(vec![Problem { key: "the file".to_owned(), origin, what }])
        };
        let spanned = DeTable::parse(text).map_err(wrong)?;
        let values: Table = toml::from_str(text).map_err(wrong)?;
        let mut lines = Lines { text, name, found: BTreeMap::new() };
        lines.table("", spanned.get_ref());
        let found = lines.found;

        let line_of_key = |key: &str| found.get(key).cloned();
        let mut values_by_key = BTreeMap::new();
        leaves("", values, &mut values_by_key);
        let given = values_by_key.into_iter().map(|(key, value)| {
            let origin = line_of_key(&key).unwrap_or_else(|| Origin::File { path: name.to_owned(), line: 1 });
            (key, (value, origin))
        });
        self.add(given.collect(), |path, _| line_of_key(path), |key| key.to_owned());
        self.origins.extend(found.into_iter().filter(|(path, _)| path.contains('[')));
        Ok(self)
    }

    /// Adds the values of environment variables: `CLAVIGER_SESSION__IDLE` is `session.idle`. A
    /// variable `CLAVIGER_…` that is not a setting is one of [`Layers::problems`].
    #[must_use]
    pub fn environment(mut self, variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut given = Given::new();
        for (name, text) in variables {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            let foreign = SERVICE_LINKS.iter().any(|link| name.starts_with(link));
            if foreign || NOT_SETTINGS.contains(&name.as_str()) {
                continue;
            }
            let key = key.replace("__", ".").to_lowercase();
            let kind = keys::find(current(&key)).map_or(&Kind::Text, |setting| &setting.kind);
            given.insert(key, (from_variable(kind, &text), Origin::Environment(name)));
        }
        self.add(given, |_, of_key| Some(of_key.clone()), |key| format!("{key} ({})", variable(key)));
        self
    }

    /// Adds what one layer gives. Unknown keys, and keys that exclude each other, become problems.
    ///
    /// `origin_of` finds where a path inside of a value stands, and `shown` how this layer spells a
    /// key.
    fn add(
        &mut self,
        mut given: Given,
        origin_of: impl Fn(&str, &Origin) -> Option<Origin>,
        shown: impl Fn(&str) -> String,
    ) {
        self.take_old_names(&mut given);
        self.problems.extend(both_given(&given));
        for (key, (mut value, origin)) in given {
            let Some(setting) = keys::find(&key) else {
                let problem = match keys::misplaced(&key) {
                    Some(place) if matches!(origin, Origin::File { .. }) => misplaced(&key, origin, &place),
                    _ => {
                        let near = keys::nearest(&key, SETTINGS.iter().map(|setting| setting.key.as_str()));
                        unknown(&key, Some(origin), near.map(&shown))
                    }
                };
                self.problems.push(problem);
                continue;
            };
            for (path, near) in take_unknown(setting, &mut value) {
                let at = origin_of(&path, &origin);
                self.problems.push(match (keys::misplaced(&path), at) {
                    (Some(place), Some(at)) if near.is_none() => misplaced(&path, at, &place),
                    (_, at) => unknown(&path, at, near),
                });
            }
            self.set(&key, value, origin);
        }
        if let Some(preset) = self.value("provider.preset").and_then(Value::as_str).and_then(Preset::named) {
            self.follow(preset);
        }
    }

    /// Takes the defaults that depend on how often the provider wants tokens to be validated.
    pub(super) fn follow(&mut self, preset: &Preset) {
        let Schedule { proof, period, .. } =
            preset.check_interval.map_or_else(Schedule::default, Schedule::of);
        for (key, span) in [("session.proof", proof), ("sweep.period", period)] {
            if self.origin(key) == Some(&Origin::Default) {
                self.place(key, humantime::format_duration(span).to_string().into());
            }
        }
    }

    /// Replaces old names by the names of today.
    fn take_old_names(&mut self, given: &mut Given) {
        for renamed in RENAMED {
            let Some((value, origin)) = given.remove(renamed.old) else { continue };
            if given.contains_key(renamed.new) {
                let what = format!("is the old name of {}, which is set as well; remove it", renamed.new);
                self.problems.push(Problem { key: renamed.old.to_owned(), origin: Some(origin), what });
                continue;
            }
            self.renamed.push((*renamed, origin.clone()));
            given.insert(renamed.new.to_owned(), (value, origin));
        }
    }

    /// The old names that were given, and where.
    pub fn renamed(&self) -> &[(Renamed, Origin)] {
        &self.renamed
    }

    /// What is wrong with the keys that were given, whatever their values.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The merged values.
    pub fn tree(&self) -> &Table {
        &self.tree
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        match key.rsplit_once('.') {
            None => self.tree.get(key),
            Some((section, name)) => self.tree.get(section)?.get(name),
        }
    }

    /// The settings whose values differ from those of the start and that no reload replaces.
    pub fn need_restart(&self, started: &Self) -> Vec<&'static str> {
        let keys = SETTINGS.iter().map(|setting| setting.key.as_str());
        let fixed = keys.filter(|key| !RELOADED.contains(key));
        fixed.filter(|key| self.value(key) != started.value(key)).collect()
    }

    /// Where the value at this path came from: its own line if that is known, else its parent's.
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        let mut path = path;
        loop {
            if let Some(origin) = self.origins.get(path) {
                return Some(origin);
            }
            path = path.rsplit_once(['.', '[']).map(|(parent, _)| parent)?;
        }
    }

    /// The required settings that have no value, and whose counterpart has none.
    pub fn missing(&self) -> impl Iterator<Item = &'static Setting> {
        let given = |key: &str| self.value(key).is_some();
        let other = move |key: &str| keys::counterpart(key).is_some_and(|other| given(&other.key));
        SETTINGS
            .iter()
            .filter(move |setting| setting.is_required() && !given(&setting.key) && !other(&setting.key))
    }

    /// Gives a key a valid value in place of a missing or a wrong one, so that the rest can be
    /// checked.
    pub(super) fn stand_in(&mut self, setting: &Setting) {
        if let Some(value) = literal(setting.sample()) {
            self.place(&setting.key, value);
        }
    }

    /// A problem with the value at this path.
    pub fn problem(&self, path: &str, what: impl Into<String>) -> Problem {
        let what = what.into();
        let missing = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        if let Some(field) = missing {
            return self.problem_of_missing(&join(if path == "." { "" } else { path }, field));
        }
        Problem { key: path.to_owned(), origin: self.origin(path).cloned(), what }
    }

    /// The problem that a key is missing.
    pub(super) fn problem_of_missing(&self, key: &str) -> Problem {
        let what = match keys::find(key) {
            Some(Setting { needed: Some(how), .. }) => format!("is required: {how}"),
            Some(setting) => format!(
                "is required; set it in the file, as in {}, or with {}",
                setting.sample(),
                variable(key)
            ),
            None => "is required".to_owned(),
        };
        Problem { key: key.to_owned(), origin: self.origin(key).cloned(), what }
    }

    /// Sets one key. A secret and the file that holds it replace each other.
    fn set(&mut self, key: &str, value: Value, origin: Origin) {
        if let Some(other) = keys::counterpart(key) {
            self.remove(&other.key);
        }
        self.place(key, value);
        // The items of a list that is replaced had lines of their own.
        self.origins.retain(|path, _| path.strip_prefix(key).is_none_or(|rest| !rest.starts_with('[')));
        self.origins.insert(key.to_owned(), origin);
    }

    fn place(&mut self, key: &str, value: Value) {
        if let Some((section, name)) = self.section_of(key) {
            section.insert(name.to_owned(), value);
        }
    }

    fn remove(&mut self, key: &str) {
        self.origins.remove(key);
        if let Some((section, name)) = self.section_of(key) {
            section.remove(name);
        }
    }

    /// The section of a key, and the key's name in it.
    fn section_of<'k>(&mut self, key: &'k str) -> Option<(&mut Table, &'k str)> {
        match key.rsplit_once('.') {
            None => Some((&mut self.tree, key)),
            Some((section, name)) => Some((self.tree.get_mut(section)?.as_table_mut()?, name)),
        }
    }
}

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// TOML text of a declaration as a value.
pub(crate) fn literal(text: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&format!("value = {text}")).ok()?;
    table.remove("value")
}

/// The name of today for a key.
fn current(key: &str) -> &str {
    RENAMED.iter().find(|renamed| renamed.old == key).map_or(key, |renamed| renamed.new)
}

fn unknown(key: &str, origin: Option<Origin>, near: Option<String>) -> Problem {
    let what = match near {
        Some(near) => format!("there is no such setting; did you mean {near}?"),
        None => "there is no such setting; `claviger config-reference` lists all settings".to_owned(),
    };
    Problem { key: key.to_owned(), origin, what }
}

/// The problem of a key that is known, but not in this section.
fn misplaced(key: &str, origin: Origin, place: &str) -> Problem {
    Problem { key: key.to_owned(), origin: Some(origin), what: format!("there is no such setting; {place}") }
}

/// Removes the unknown keys from a list of tables. Returns the path of each, with the known key
/// that it resembles.
fn take_unknown(setting: &Setting, value: &mut Value) -> Vec<(String, Option<String>)> {
    let (Some(known), Value::Array(items)) = (setting.kind.item_keys(), value) else { return Vec::new() };
    let mut taken = Vec::new();
    for (index, item) in items.iter_mut().enumerate() {
        let Some(item) = item.as_table_mut() else { continue };
        item.retain(|name, _| {
            let is_known = known.iter().any(|setting| setting.key == name);
            if !is_known {
                let near = keys::nearest(name, known.iter().map(|setting| setting.key.as_str()));
                taken.push((format!("{}[{index}].{name}", setting.key), near.map(str::to_owned)));
            }
            is_known
        });
    }
    taken
}

/// Secrets that one layer gives both directly and as a file.
fn both_given(given: &Given) -> Vec<Problem> {
    let of_files =
        given.iter().filter_map(|(key, (_, origin))| Some((key, key.strip_suffix("_file")?, origin)));
    of_files
        .filter(|(_, secret, _)| given.contains_key(*secret))
        .map(|(key, secret, origin)| Problem {
            key: key.clone(),
            origin: Some(origin.clone()),
            what: format!("{secret} is set as well; keep one of the two"),
        })
        .collect()
}

/// The text of an environment variable as a value of this kind. What does not fit stays text, and
/// serde reports it.
fn from_variable(kind: &Kind, text: &str) -> Value {
    let plain = || Value::String(text.to_owned());
    match kind {
        Kind::Switch | Kind::Number => literal(text.trim()).unwrap_or_else(plain),
        Kind::List(_) if text.trim_start().starts_with('[') => literal(text).unwrap_or_else(plain),
        Kind::List(item) if !matches!(**item, Kind::Table(_)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        _ => plain(),
    }
}

/// Collects the settings of a tree. An unknown section counts as one unknown key.
fn leaves(prefix: &str, table: Table, found: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = join(prefix, &name);
        match value {
            Value::Table(section) if keys::is_section(&key) => leaves(&key, section, found),
            value => drop(found.insert(key, value)),
        }
    }
}

/// Finds the line of each value.
struct Lines<'a> {
    text: &'a str,
    name: &'a str,
    found: BTreeMap<String, Origin>,
}

impl Lines<'_> {
    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            self.value(join(path, name.get_ref()), name.span().start, value.get_ref());
        }
    }

    fn value(&mut self, key: String, offset: usize, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.table(&key, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(format!("{key}[{index}]"), item.span().start, item.get_ref());
                }
            }
            _ => {}
        }
        let line = line_of(self.text, offset);
        self.found.insert(key, Origin::File { path: self.name.to_owned(), line });
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
