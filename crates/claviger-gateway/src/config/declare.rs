//! How settings are declared: the macro `settings!`, and a declaration as data.

/// Declares a section of settings: a struct for serde, and the list of its settings as data.
///
/// ```text
/// settings! {
///     pub struct Session {
///         /// A session ends when its user has not used it for this time.
///         idle: Span = "14d", in "2m"..="3650d";
///     }
/// }
/// ```
///
/// A line holds the name, the type, and what applies of the following, in this order:
///
/// | part | meaning |
/// |---|---|
/// | `= "14d"` | the default, as TOML |
/// | `, in "2m"..="3650d"` | the smallest and the largest value, as TOML |
/// | `, example "7d"` | a value for the documentation, if there is no default |
/// | `, needed "make one with …"` | it or its counterpart must be set, and how |
///
/// A setting without a default must be set, unless its type is an `Option`. The doc comment is the
/// documentation in `docs/configuration.md`.
macro_rules! settings {
    ($(
        $(#[$about:meta])*
        pub struct $section:ident {$(
            $(#[doc = $doc:literal])+
            $name:ident: $type:ty
                $(= $default:tt)?
                $(, in $low:literal ..= $high:literal)?
                $(, example $example:tt)?
                $(, needed $needed:literal)?;
        )*}
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $section {$(
            $(#[doc = $doc])+
            pub $name: $type,
        )*}

        impl $crate::config::declare::Section for $section {
            fn settings() -> Vec<$crate::config::declare::Setting> {
                use $crate::config::declare::{Setting, SettingType, given};
                vec![$(Setting {
                    key: stringify!($name).to_owned(),
                    kind: <$type as SettingType>::kind(),
                    optional: <$type as SettingType>::OPTIONAL,
                    default: given!($(stringify!($default))?),
                    limits: given!($($crate::config::declare::Bounds { low: stringify!($low), high: stringify!($high) })?),
                    example: given!($(stringify!($example))?),
                    needed: given!($($needed)?),
                    doc: &[$($doc),+],
                }),*]
            }
        }
    )*};
}

/// What stands in an optional part of a declaration.
macro_rules! given {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

pub(super) use {given, settings};

/// A struct of settings. The macro `settings!` implements it.
pub trait Section {
    /// Its settings, in the order of their declarations, with keys relative to this section.
    fn settings() -> Vec<Setting>;
}

/// One setting as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, with dots between sections.
    pub key: String,
    /// The kind of its value.
    pub kind: Kind,
    /// Whether it may have no value at all.
    pub optional: bool,
    /// Its default as TOML, if it has one.
    pub default: Option<&'static str>,
    /// The smallest and the largest value.
    pub limits: Option<Bounds>,
    /// A value as TOML for the documentation, if it has no default.
    pub example: Option<&'static str>,
    /// How to set it, if it or its counterpart must be set.
    pub needed: Option<&'static str>,
    /// Its documentation, line by line.
    pub doc: &'static [&'static str],
}

impl Setting {
    /// Whether it, or the setting that holds the same in another way, must be set.
    pub fn is_required(&self) -> bool {
        self.needed.is_some() || !(self.optional || self.default.is_some())
    }

    /// A value as TOML: the default, or the example.
    pub fn sample(&self) -> &'static str {
        self.default.or(self.example).unwrap_or_default()
    }

    /// Its documentation, with these words between lines.
    pub fn documentation(&self, between: &str) -> String {
        let lines = self.doc.iter().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
        lines.collect::<Vec<_>>().join(between)
    }
}

/// The smallest and the largest value of a setting, as TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The smallest value.
    pub low: &'static str,
    /// The largest value.
    pub high: &'static str,
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.low {
            "\"0s\"" => write!(f, "at most {}", self.high),
            low => write!(f, "from {low} to {}", self.high),
        }
    }
}

/// A type that a setting may have.
pub trait SettingType {
    /// Whether a setting of this type may have no value at all.
    const OPTIONAL: bool = false;

    /// The kind of its values.
    fn kind() -> Kind;
}

impl<T: Section> SettingType for T {
    fn kind() -> Kind {
        Kind::Table(T::settings())
    }
}

/// What a value looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// The path of a file; relative paths start at the working directory of the process.
    Path,
    /// An http or https address.
    Url,
    /// An IP address and a port, or what stands for it.
    Socket,
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number,
    /// A span of time such as `"30s"`, `"1h 30m"` or `"14d"`.
    Span,
    /// One of these words.
    Word(Vec<&'static str>),
    /// A list of values.
    List(Box<Kind>),
    /// A table with these keys.
    Table(Vec<Setting>),
}

impl Kind {
    /// Whether values of this kind are never shown.
    pub fn is_secret(&self) -> bool {
        match self {
            Self::List(item) => item.is_secret(),
            kind => *kind == Self::Secret,
        }
    }

    /// The keys of each item, if this is a list of tables.
    pub fn item_keys(&self) -> Option<&[Setting]> {
        match self {
            Self::List(item) => match &**item {
                Self::Table(keys) => Some(keys),
                _ => None,
            },
            _ => None,
        }
    }

    /// What a value looks like, for people.
    pub fn in_words(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Secret => "secret text".to_owned(),
            Self::Path => "path of a file".to_owned(),
            Self::Url => "address".to_owned(),
            Self::Socket => "address and port".to_owned(),
            Self::Switch => "`true` or `false`".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Span => "span of time".to_owned(),
            Self::Word(words) => {
                words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
            }
            Self::List(item) => match **item {
                Self::Table(_) => "list of tables".to_owned(),
                Self::Url => "list of addresses".to_owned(),
                ref item => format!("list of {}s", item.in_words()),
            },
            Self::Table(_) => "table".to_owned(),
        }
    }
}

/// All settings below a section, each with its whole key.
pub fn flatten<T: Section>() -> Vec<Setting> {
    fn below(prefix: &str, settings: Vec<Setting>, all: &mut Vec<Setting>) {
        for mut setting in settings {
            setting.key = join(prefix, &setting.key);
            match setting.kind {
                Kind::Table(inner) => below(&setting.key, inner, all),
                _ => all.push(setting),
            }
        }
    }
    let mut all = Vec::new();
    below("", T::settings(), &mut all);
    all
}

/// The key of a name in a section; the section of the top has no name.
pub fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}
