//! Merges defaults, file and environment into one tree, and remembers where each value came from.

use std::{collections::BTreeMap, fmt, path::Path};

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    Problem, Problems,
    settings::{self, Kind, SETTINGS, Setting},
};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
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

/// Environment variables of ours begin so.
pub const PREFIX: &str = "CLAVIGER_";

/// Container systems set these for a service of the name `claviger`; they are no settings.
const SERVICE_LINKS: &[&str] = &["CLAVIGER_SERVICE_", "CLAVIGER_PORT"];
/// These belong to the tests of this project.
const NOT_SETTINGS: &[&str] = &["CLAVIGER_BIN", "CLAVIGER_CHROMIUM"];

/// The merged values, and where each came from.
#[derive(Clone)]
pub struct Layers {
    tree: Table,
    /// By path, as in `session.idle` and `routes[0].path`.
    origins: BTreeMap<String, Origin>,
    /// Keys that are unknown or exclude each other. They leave the tree as it would be without them.
    problems: Vec<Problem>,
}

impl Layers {
    /// The defaults.
    pub fn defaults() -> Self {
        let mut layers = Self { tree: Table::new(), origins: BTreeMap::new(), problems: Vec::new() };
        for setting in SETTINGS {
            if let Some(value) = setting.default.and_then(literal) {
                layers.set(setting.key, value, Origin::Default);
            }
        }
        layers
    }

    /// Puts a file over what is there.
    ///
    /// # Errors
    /// If it cannot be read or is no TOML. Keys that are unknown or exclude each other are [`Layers::problems`].
    pub fn file(self, path: &Path) -> Result<Self, Problems> {
        let name = path.display().to_string();
        let wrong = |what: String| Problems(vec![Problem { key: name.clone(), origin: None, what }]);
        let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot be read ({error})")))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
        self.text(&text, &name)
    }

    /// Puts the text of a file over what is there.
    ///
    /// # Errors
    /// See [`Layers::file`].
    pub fn text(mut self, text: &str, name: &str) -> Result<Self, Problems> {
        // The faulty line may hold a secret, so only what is wrong and where is told.
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

        let mut given = BTreeMap::new();
        leaves("", values, &mut given);
        self.problems.extend(both_given(given.keys().map(String::as_str), &found));
        let mut known = Vec::new();
        for (key, mut value) in given {
            match settings::find(&key) {
                Some(setting) => {
                    for (path, near) in take_unknown(setting, &mut value) {
                        self.problems.push(unknown(&path, found.get(&path).cloned(), near));
                    }
                    known.push((key, value));
                }
                None => {
                    let near = settings::nearest(&key, SETTINGS.iter().map(|setting| setting.key));
                    self.problems.push(unknown(&key, found.get(&key).cloned(), near.map(str::to_owned)));
                }
            }
        }
        let (of_items, lines_of): (BTreeMap<_, _>, BTreeMap<_, _>) =
            found.into_iter().partition(|(path, _)| path.contains('['));
        self.origins.extend(of_items);
        for (key, value) in known {
            let line = lines_of.get(&key).cloned();
            let origin = line.unwrap_or_else(|| Origin::File { path: name.to_owned(), line: 1 });
            self.set(&key, value, origin);
        }
        Ok(self)
    }

    /// Puts environment variables over what is there: `CLAVIGER_SESSION__IDLE` is `session.idle`. One of the name
    /// `CLAVIGER_…` that is no setting is one of [`Layers::problems`].
    #[must_use]
    pub fn environment(mut self, variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut given = BTreeMap::new();
        for (name, text) in variables {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            let foreign = SERVICE_LINKS.iter().any(|link| name.starts_with(link));
            if foreign || NOT_SETTINGS.contains(&name.as_str()) {
                continue;
            }
            let key = key.replace("__", ".").to_lowercase();
            let origin = Origin::Environment(name.clone());
            let Some(setting) = settings::find(&key) else {
                let near = settings::nearest(&key, SETTINGS.iter().map(|setting| setting.key));
                let near = near.map(|key| format!("{key} ({})", variable(key)));
                self.problems.push(unknown(&key, Some(origin), near));
                continue;
            };
            let mut value = from_variable(setting.kind, &text);
            for (path, near) in take_unknown(setting, &mut value) {
                self.problems.push(unknown(&path, Some(origin.clone()), near));
            }
            given.insert(key, (value, origin));
        }
        let found = given.iter().map(|(key, (_, origin))| (key.clone(), origin.clone())).collect();
        self.problems.extend(both_given(given.keys().map(String::as_str), &found));
        for (key, (value, origin)) in given {
            self.set(&key, value, origin);
        }
        self
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
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let table = if section.is_empty() { &self.tree } else { self.tree.get(section)?.as_table()? };
        table.get(name)
    }

    /// Where the value at this path came from: its own line if that is known, else that of what it lies in.
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        let mut path = path;
        loop {
            if let Some(origin) = self.origins.get(path) {
                return Some(origin);
            }
            path = path.rsplit_once(['.', '[']).map(|(parent, _)| parent)?;
        }
    }

    /// What is required and nobody gave; see [`settings::REQUIRED`].
    pub fn missing(&self) -> impl Iterator<Item = &'static [&'static str]> {
        let given = |key: &&str| self.value(key).is_some();
        settings::REQUIRED.iter().copied().filter(move |keys| !keys.iter().any(given))
    }

    /// Gives a key a value that stands in for a missing or a wrong one, so that the others can be looked at.
    pub(super) fn stand_in(&mut self, setting: &Setting) {
        if let Some(value) = literal(setting.default.unwrap_or(setting.example)) {
            self.place(setting.key, value);
        }
    }

    /// Something that is wrong with the value at this path.
    pub fn problem(&self, path: &str, what: impl Into<String>) -> Problem {
        let what = what.into();
        let missing = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        if let Some(field) = missing {
            return self.problem_of_missing(&if path == "." {
                field.to_owned()
            } else {
                format!("{path}.{field}")
            });
        }
        Problem { key: path.to_owned(), origin: self.origin(path).cloned(), what }
    }

    /// A key that has to be given and was not.
    pub(super) fn problem_of_missing(&self, key: &str) -> Problem {
        let what = match settings::find(key) {
            Some(setting) => {
                format!("is needed; set it in the file, as in {}, or by {}", setting.example, variable(key))
            }
            None => "is needed".to_owned(),
        };
        Problem { key: key.to_owned(), origin: self.origin(key).cloned(), what }
    }

    /// Sets one key. A secret and the file that holds it replace each other.
    fn set(&mut self, key: &str, value: Value, origin: Origin) {
        if let Some(other) = counterpart(key) {
            self.remove(&other);
        }
        self.place(key, value);
        self.origins.insert(key.to_owned(), origin);
    }

    fn place(&mut self, key: &str, value: Value) {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let entry = if section.is_empty() {
            &mut self.tree
        } else {
            let section = self.tree.entry(section).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(section) = section else { return };
            section
        };
        entry.insert(name.to_owned(), value);
    }

    fn remove(&mut self, key: &str) {
        self.origins.remove(key);
        match key.rsplit_once('.') {
            None => drop(self.tree.remove(key)),
            Some((section, name)) => {
                if let Some(Value::Table(section)) = self.tree.get_mut(section) {
                    section.remove(name);
                }
            }
        }
    }
}

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// A default or an example of the table as a value.
pub(crate) fn literal(text: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&format!("value = {text}")).ok()?;
    table.remove("value")
}

fn unknown(key: &str, origin: Option<Origin>, near: Option<String>) -> Problem {
    let what = match near {
        Some(near) => format!("there is no such setting; did you mean {near}?"),
        None => "there is no such setting; `claviger config-reference` lists all".to_owned(),
    };
    Problem { key: key.to_owned(), origin, what }
}

/// Takes the unknown keys out of a list of tables. Gives the path of each, with the known key that it looks like.
fn take_unknown(setting: &Setting, value: &mut Value) -> Vec<(String, Option<String>)> {
    let (Kind::Tables(known), Value::Array(items)) = (setting.kind, value) else { return Vec::new() };
    let mut taken = Vec::new();
    for (index, item) in items.iter_mut().enumerate() {
        let Some(item) = item.as_table_mut() else { continue };
        item.retain(|name, _| {
            let is_known = known.iter().any(|setting| setting.key == name);
            if !is_known {
                let near = settings::nearest(name, known.iter().map(|setting| setting.key));
                taken.push((format!("{}[{index}].{name}", setting.key), near.map(str::to_owned)));
            }
            is_known
        });
    }
    taken
}

/// The setting that holds the same as this one in another way: `…_file` for a secret, and the reverse.
fn counterpart(key: &str) -> Option<String> {
    let other = match key.strip_suffix("_file") {
        Some(secret) => secret.to_owned(),
        None => format!("{key}_file"),
    };
    settings::find(&other).map(|setting| setting.key.to_owned())
}

/// Secrets that one layer gives both in plain and as a file.
fn both_given<'a>(
    keys: impl Iterator<Item = &'a str> + Clone,
    origins: &BTreeMap<String, Origin>,
) -> Vec<Problem> {
    let of_file = keys.clone().filter_map(|key| Some((key, key.strip_suffix("_file")?)));
    of_file
        .filter(|(_, secret)| keys.clone().any(|key| key == *secret))
        .map(|(key, secret)| Problem {
            key: key.to_owned(),
            origin: origins.get(key).cloned(),
            what: format!("{secret} is set as well; keep one of the two"),
        })
        .collect()
}

/// The text of an environment variable as a value of this kind. What does not fit stays text, and serde says so.
fn from_variable(kind: Kind, text: &str) -> Value {
    let plain = || Value::String(text.to_owned());
    match kind {
        Kind::Switch | Kind::Number => literal(text.trim()).unwrap_or_else(plain),
        Kind::Texts | Kind::Secrets | Kind::Tables(_) if text.trim_start().starts_with('[') => {
            literal(text).unwrap_or_else(plain)
        }
        Kind::Texts | Kind::Secrets => Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
        ),
        _ => plain(),
    }
}

/// Takes a tree apart into the settings it sets. A section that is no section of ours is one unknown key.
fn leaves(prefix: &str, table: Table, found: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(section) if settings::is_section(&key) => leaves(&key, section, found),
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
            let key = if path.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{path}.{}", name.get_ref())
            };
            let line = line_of(self.text, name.span().start);
            self.found.insert(key.clone(), Origin::File { path: self.name.to_owned(), line });
            self.inside(&key, value.get_ref());
        }
    }

    fn inside(&mut self, key: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.table(key, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let key = format!("{key}[{index}]");
                    let line = line_of(self.text, item.span().start);
                    self.found.insert(key.clone(), Origin::File { path: self.name.to_owned(), line });
                    self.inside(&key, item.get_ref());
                }
            }
            _ => {}
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
