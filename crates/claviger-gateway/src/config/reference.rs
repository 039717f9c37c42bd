//! `docs/configuration.md`, made from the declarations.

use std::fmt::Write as _;

use super::{
    declare::{Kind, Section as _, Setting, join},
    keys::RENAMED,
    layers::variable,
    settings::Config,
};

/// The page up to its list of settings.
const HEAD: &str = include_str!("../../templates/configuration.md");

/// The whole document.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    let (at_top, below): (Vec<_>, Vec<_>) =
        Config::settings().into_iter().partition(|setting| own_section(setting).is_none());
    at_top.iter().for_each(|setting| describe(&mut text, "", setting));
    for setting in &below {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n## `{}`", own_section(setting).unwrap_or_default());
        match &setting.kind {
            Kind::Table(settings) => {
                let _ = writeln!(text, "\n{}", setting.documentation("\n"));
                settings.iter().for_each(|inner| describe(&mut text, &setting.key, inner));
            }
            _ => describe(&mut text, "", setting),
        }
    }
    text.push_str("\n## Old names\n\nThis release accepts these settings under their old names too.\n");
    text.push_str("\n| old name | name |\n|---|---|\n");
    for renamed in RENAMED {
        let _ = writeln!(text, "| `{}` | `{}` |", renamed.old, renamed.new);
    }
    text
}

/// The heading of a setting that has a section of its own in a file.
fn own_section(setting: &Setting) -> Option<String> {
    match &setting.kind {
        Kind::Table(_) => Some(format!("[{}]", setting.key)),
        kind => kind.item_keys().map(|_| format!("[[{}]]", setting.key)),
    }
}

fn describe(text: &mut String, section: &str, setting: &Setting) {
    let Setting { key: name, kind, limits, .. } = setting;
    let key = join(section, name);
    let heading = if kind.item_keys().is_some() { format!("[[{key}]]") } else { name.clone() };
    let default = match setting.default {
        Some(default) => format!("default `{default}`"),
        None => format!("no default; for example `{name} = {}`", setting.sample()),
    };
    let limits = limits.map_or_else(String::new, |limits| format!(", {limits}"));
    let _ = writeln!(
        text,
        "\n### `{heading}`\n\n{}\n\n- {}{limits}\n- {default}\n- `{}`",
        setting.documentation("\n"),
        capital(&kind.in_words()),
        variable(&key)
    );
    if let Some(keys) = kind.item_keys() {
        let _ = writeln!(text, "\n| key | value | |\n|---|---|---|");
        for inner in keys {
            let (words, doc) = (inner.kind.in_words(), inner.documentation(" "));
            let _ = writeln!(text, "| `{}` | {words} | {doc} |", inner.key);
        }
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
