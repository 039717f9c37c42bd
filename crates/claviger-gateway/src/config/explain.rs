//! Explains a configuration to its operator: every setting, its value and where it came from, and
//! what follows from them.

use std::fmt::Write as _;

use toml::Value;

use super::{
    declare::Kind,
    derived::CALLBACK,
    keys::{Renamed, SETTINGS},
    layers::{Layers, Origin, variable},
    settings::Config,
};

/// What is shown in place of a secret.
const REDACTED: &str = "(secret)";

/// One line for each setting: key, value, origin. Secrets are not shown.
pub fn settings(layers: &Layers) -> String {
    let rows: Vec<(&str, String, String)> = SETTINGS
        .iter()
        .map(|setting| {
            let key = setting.key.as_str();
            match layers.value(key) {
                Some(value) => (key, shown(&setting.kind, value), origin(layers, key)),
                None => (key, "-".to_owned(), "not set".to_owned()),
            }
        })
        .collect();
    let wide = |text: &str| text.chars().count();
    let keys = rows.iter().map(|row| wide(row.0)).max().unwrap_or_default();
    let values = rows.iter().map(|row| wide(&row.1)).max().unwrap_or_default().min(48);
    let mut text = String::new();
    for (key, value, origin) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key:keys$}  {value:values$}  {origin}");
    }
    text
}

/// Where the value of a key came from, and under which old name.
fn origin(layers: &Layers, key: &str) -> String {
    let origin = layers.origin(key);
    let old = layers.renamed().iter().find(|(renamed, at)| renamed.new == key && Some(at) == origin);
    match (origin, old) {
        (Some(origin), Some((renamed, _))) => format!("{origin}, as {}", renamed.old),
        (Some(origin), None) => origin.to_string(),
        (None, _) => "not set".to_owned(),
    }
}

/// A sentence for each old name in use: what the setting is called now.
pub fn renamed(layers: &Layers) -> Vec<String> {
    let sentence = |(renamed, origin): &(Renamed, Origin)| {
        let Renamed { old, new, .. } = renamed;
        format!(
            "{old} ({origin}) is now called {new} ({}); the next release refuses the old name",
            variable(new)
        )
    };
    layers.renamed().iter().map(sentence).collect()
}

/// What follows from a configuration and its settings do not show by themselves.
pub fn notes(config: &Config) -> Vec<String> {
    let span = humantime::format_duration;
    let (period, checking) = (span(config.sweep.period.0), span(config.sweep.connection_check_period.0));
    let mut notes = Vec::new();
    if config.store.is_shared() {
        notes.push("the sessions are in PostgreSQL; store.path is not used".to_owned());
    }
    if config.webhook.is_wanted() {
        let callback = config.callback();
        notes.push(format!("the provider sends webhook events to {callback} and must be able to reach it"));
        if callback.path() != CALLBACK {
            notes.push(format!("the proxy in front must pass that address on to the gateway's {CALLBACK}"));
        }
    } else {
        notes.push(format!(
            "webhook.secret_file is not set, so the provider reports nothing by itself: a user who disconnects the app \
             is signed out within {period}, not at once (without a living token within {checking})"
        ));
    }
    notes
}

fn shown(kind: &Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::List(_), Value::Array(items)) if kind.is_secret() => {
            format!("{REDACTED}, {} of them", items.len())
        }
        _ if kind.is_secret() => REDACTED.to_owned(),
        // A password could stand in an address that was refused for it.
        (Kind::Url, Value::String(text)) if text.contains('@') => "(an address with a user)".to_owned(),
        _ => value.to_string(),
    }
}
