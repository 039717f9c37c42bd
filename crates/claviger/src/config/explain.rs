//! Tells an operator what a configuration comes to: every setting, its value and where it came from.

use std::fmt::Write as _;

use toml::Value;

use super::{
    CALLBACK, Config, Layers,
    secrets::others_can_read,
    settings::{Kind, SETTINGS},
};

/// What stands in the place of a secret.
const REDACTED: &str = "(secret)";

const NO_FRONT_PROXY: &str = "\
upstream is not set and trusted_proxies is empty: as forward-auth, the front proxy's word on the original method and \
address will not count. Who signs in is led to / instead of the page that was asked for, and a POST from another site can \
be told only where the proxy asks with the original method, or names it as X-Forwarded-Method or X-Original-Method; add \
the proxy's address to trusted_proxies";

/// One line for each setting: key, value, origin. Secrets are not shown.
pub fn settings(layers: &Layers) -> String {
    let rows: Vec<(&str, String, String)> = SETTINGS
        .iter()
        .map(|setting| {
            let value = layers.value(setting.key);
            let origin = layers.origin(setting.key).filter(|_| value.is_some());
            let origin = origin.map_or_else(|| "not set".to_owned(), ToString::to_string);
            (setting.key, value.map_or_else(|| "-".to_owned(), |value| shown(setting.kind, value)), origin)
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

/// What works but should be looked at.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.insecure_plain_http_for_development {
        warnings.push("insecure_plain_http_for_development is set: this is not for production".to_owned());
    }
    let store = &config.store;
    if store.is_shared() && store.insecure_plaintext_to_database {
        warnings.push(
            "store.insecure_plaintext_to_database is set: unless it is a socket in the file system, whoever is on the way \
             to the database reads and changes every session"
                .to_owned(),
        );
    }
    if store.is_shared() && store.transaction_pooler && !store.listens_elsewhere() {
        warnings.push(
            "store.listen_url_file is not set: through the pooler nothing is heard of sign-outs at other instances"
                .to_owned(),
        );
    }
    let files = [
        ("keyring_file", &config.keyring_file),
        ("provider.client_secret_file", &config.provider.client_secret_file),
        ("webhook.secret_file", &config.webhook.secret_file),
        ("store.url_file", &config.store.url_file),
        ("store.listen_url_file", &config.store.listen_url_file),
    ];
    for (key, path) in files {
        if let Some(path) = path.as_ref().filter(|path| others_can_read(path)) {
            warnings.push(format!("{key}: others can read {0}; run `chmod 600 {0}`", path.display()));
        }
    }
    if config.upstream.is_none() {
        warnings.push(
            "upstream is not set: only Claviger's own addresses are served, as forward-auth needs".to_owned(),
        );
    }
    if config.upstream.is_none() && config.trusted_proxies.is_empty() {
        warnings.push(NO_FRONT_PROXY.to_owned());
    } else if !config.listen.ip().is_loopback()
        && config.trusted_proxies.is_empty()
        && !config.insecure_plain_http_for_development
    {
        warnings.push(
            "listen can be reached from other computers and trusted_proxies is empty: if a proxy in front does TLS, \
             give its address there"
                .to_owned(),
        );
    }
    warnings
}

/// What a configuration comes to that its settings do not show by themselves.
pub fn notes(config: &Config) -> Vec<String> {
    let span = humantime::format_duration;
    let (period, probe) = (span(config.sweep.period.0), span(config.sweep.probe_period.0));
    let mut notes = Vec::new();
    if config.store.is_shared() {
        notes.push("the sessions are in PostgreSQL, and store.path is not used".to_owned());
    }
    if config.webhook.is_wanted() {
        let callback = config.callback();
        notes.push(format!("the provider is to send its notices to {callback}, and has to reach it"));
        if callback.path() != CALLBACK {
            notes.push(format!("whatever is in front has to lead that address to the gateway's {CALLBACK}"));
        }
    } else {
        notes.push(format!(
            "webhook.secret_file is not set, so the provider tells nothing by itself: a user who disconnects the app is \
             signed out within {period}, and not at once (users without a living token within {probe})"
        ));
    }
    notes
}

fn shown(kind: Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::Secrets, Value::Array(items)) => format!("{REDACTED}, {} of them", items.len()),
        _ if kind.is_secret() => REDACTED.to_owned(),
        // A password could stand in an address that was refused for it.
        (Kind::Url, Value::String(text)) if text.contains('@') => "(an address with a user)".to_owned(),
        _ => value.to_string(),
    }
}
