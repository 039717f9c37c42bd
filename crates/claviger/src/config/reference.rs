//! docs/configuration.md, made from the table of settings.

use std::fmt::Write as _;

use super::{
    layers::variable,
    settings::{Kind, SETTINGS, Setting},
};

const HEAD: &str = "\
<!-- Written by `claviger config-reference` from crates/claviger/src/config/settings.rs. Change it there. -->

# Configuration

`claviger serve --config claviger.toml` takes each setting from its default, then from the file, then from an
environment variable; the last one given counts. A key that is not listed here is an error.
`claviger check-config` shows every setting with its value and where the value came from, and says what is wrong.

In environment variables lists of texts are written with commas, and any list as TOML: `[\"a\", \"b\"]`. A secret and the
file that holds it replace each other, whichever was given last.

The smallest file:

```toml
public_url = \"https://app.example\"
upstream = \"http://127.0.0.1:3000\"
keyring_file = \"/etc/claviger/claviger.keys\"   # claviger keys generate --file /etc/claviger/claviger.keys

[provider]
client_id = \"abc123\"
client_secret_file = \"/etc/claviger/twitch-secret\"
```

The redirect URI to register with the provider is `{public_url}/auth/callback`.
";

/// The whole document.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    let mut section = None;
    for setting in SETTINGS {
        let own = setting.key.rsplit_once('.').map(|(section, _)| section).or(match setting.kind {
            Kind::Tables(_) => Some(setting.key),
            _ => None,
        });
        if section != Some(own) {
            section = Some(own);
            // Writing to a String cannot fail.
            let _ = match own {
                Some(name) if name == setting.key => writeln!(text, "\n## `[[{name}]]`"),
                Some(name) => writeln!(text, "\n## `[{name}]`"),
                None => writeln!(text, "\n## At the top of the file"),
            };
        }
        describe(&mut text, setting);
    }
    text
}

fn describe(text: &mut String, setting: &Setting) {
    let Setting { key, kind, default, example, doc } = setting;
    let name = key.rsplit_once('.').map_or(*key, |(_, name)| name);
    let heading = match kind {
        Kind::Tables(_) => format!("[[{key}]]"),
        _ => name.to_owned(),
    };
    let default = match default {
        Some(default) => format!("default `{default}`"),
        None => format!("no default; for example `{name} = {example}`"),
    };
    let _ = writeln!(
        text,
        "\n### `{heading}`\n\n{doc}\n\n- {}\n- {default}\n- `{}`",
        capital(&kind.in_words()),
        variable(key)
    );
    if let Kind::Tables(keys) = kind {
        let _ = writeln!(text, "\n| key | value | |\n|---|---|---|");
        for Setting { key, kind, doc, .. } in *keys {
            let _ = writeln!(text, "| `{key}` | {} | {doc} |", kind.in_words());
        }
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
