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
}

impl Layers {
    /// The defaults.
    pub fn defaults() -> Self {
        let mut layers = Self { tree: Table::new(), origins: BTreeMap::new() };
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
    /// If it cannot be read, is no TOML, or has keys that are unknown or exclude each other.
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
        let mut problems = Vec::new();
        leaves("", values, &mut given);
        for (key, value) in &given {
            let origin = found.get(key).cloned();
            let of_list =
                settings::find(key).map(|setting| unknown_in_list(setting, value)).unwrap_or_default();
            for inner in of_list {
                problems.push(unknown(&inner.0, found.get(&inner.0).cloned(), inner.1));
            }
            if settings::find(key).is_none() {
                let near = settings::nearest(key, SETTINGS.iter().map(|setting| setting.key));
                problems.push(unknown(key, origin, near.map(str::to_owned)));
            }
        }
        problems.extend(both_given(given.keys().map(String::as_str), &found));
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let (of_items, lines_of): (BTreeMap<_, _>, BTreeMap<_, _>) =
            found.into_iter().partition(|(path, _)| path.contains('['));
        self.origins.extend(of_items);
        for (key, value) in given {
            let line = lines_of.get(&key).cloned();
            let origin = line.unwrap_or_else(|| Origin::File { path: name.to_owned(), line: 1 });
            self.set(&key, value, origin);
        }
        Ok(self)
    }

    /// Puts environment variables over what is there: `CLAVIGER_SESSION__IDLE` is `session.idle`.
    ///
    /// # Errors
    /// If one of the name `CLAVIGER_…` is no setting, or two exclude each other.
    pub fn environment(
        mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
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
                problems.push(unknown(
                    &key,
                    Some(origin),
                    near.map(|key| format!("{key} ({})", variable(key))),
                ));
                continue;
            };
            given.insert(key, (from_variable(setting.kind, &text), origin));
        }
        let found = given.iter().map(|(key, (_, origin))| (key.clone(), origin.clone())).collect();
        problems.extend(both_given(given.keys().map(String::as_str), &found));
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        for (key, (value, origin)) in given {
            self.set(&key, value, origin);
        }
        Ok(self)
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

    /// Something that is wrong with the value at this path.
    pub fn problem(&self, path: &str, what: impl Into<String>) -> Problem {
        let what = what.into();
        let missing = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        if let Some(field) = missing {
            let key = if path == "." { field.to_owned() } else { format!("{path}.{field}") };
            return Problem { origin: self.origin(&key).cloned(), what: missing_in_words(&key), key };
        }
        Problem { key: path.to_owned(), origin: self.origin(path).cloned(), what }
    }

    /// Sets one key. A secret and the file that holds it replace each other.
    fn set(&mut self, key: &str, value: Value, origin: Origin) {
        if let Some(other) = counterpart(key) {
            self.remove(&other);
        }
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let entry = if section.is_empty() {
            &mut self.tree
        } else {
            let section = self.tree.entry(section).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(section) = section else { return };
            section
        };
        entry.insert(name.to_owned(), value);
        self.origins.insert(key.to_owned(), origin);
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

fn missing_in_words(key: &str) -> String {
    let example = settings::find(key).map(|setting| setting.example).unwrap_or_default();
    if key.contains('[') || example.is_empty() {
        return "is needed".to_owned();
    }
    format!("is needed; set it in the file, as in {example}, or by {}", variable(key))
}

fn unknown(key: &str, origin: Option<Origin>, near: Option<String>) -> Problem {
    let what = match near {
        Some(near) => format!("there is no such setting; did you mean {near}?"),
        None => "there is no such setting; `claviger config-reference` lists all".to_owned(),
    };
    Problem { key: key.to_owned(), origin, what }
}

/// Keys in a list of tables that are unknown, each with the known one it looks like.
fn unknown_in_list(setting: &Setting, value: &Value) -> Vec<(String, Option<String>)> {
    let (Kind::Tables(known), Value::Array(items)) = (setting.kind, value) else { return Vec::new() };
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        for name in item.as_table().into_iter().flat_map(Table::keys) {
            if !known.iter().any(|setting| setting.key == name) {
                let near = settings::nearest(name, known.iter().map(|setting| setting.key));
                found.push((format!("{}[{index}].{name}", setting.key), near.map(str::to_owned)));
            }
        }
    }
    found
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
