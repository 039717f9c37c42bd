//! The keys of all settings: lookups, old names, and what a misspelt key was meant to be.

use std::sync::LazyLock;

use super::{
    declare::{self, Setting},
    settings::Config,
};

/// A setting that was renamed. Its old name works for one release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The old key.
    pub old: &'static str,
    /// The key now.
    pub new: &'static str,
    /// The last release that knew only the old key: its major and minor version.
    pub until: (u32, u32),
}

/// The settings that were renamed.
pub const RENAMED: &[Renamed] =
    &[Renamed { old: "sweep.probe_period", new: "sweep.connection_check_period", until: (0, 1) }];

/// All settings, in the order of the documentation.
pub static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(declare::flatten::<Config>);

/// The setting of this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// Whether there are settings below this key, under their names or old names.
pub fn is_section(key: &str) -> bool {
    let old = RENAMED.iter().map(|renamed| renamed.old);
    let mut keys = SETTINGS.iter().map(|setting| setting.key.as_str()).chain(old);
    keys.any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// The setting that holds the same as this one in another way: `…_file` for a secret, and the
/// reverse.
pub fn counterpart(key: &str) -> Option<&'static Setting> {
    match key.strip_suffix("_file") {
        Some(secret) => find(secret),
        None => find(&format!("{key}_file")),
    }
}

/// Where a key belongs whose name is known in another section, or in none.
pub fn misplaced(key: &str) -> Option<String> {
    let (section, name) = match key.rsplit_once('.') {
        Some((section, name)) => (Some(section), name),
        None => (None, key),
    };
    if find(name).is_some() {
        // In TOML, a key after the heading of a section belongs to it.
        let section = section?.split('[').next()?;
        let list = find(section).is_some();
        let heading = if list { format!("[[{section}]]") } else { format!("[{section}]") };
        return Some(format!("{name} belongs above {heading}, at the top of the file"));
    }
    let mut homes = SETTINGS.iter().filter_map(|setting| setting.key.strip_suffix(name)?.strip_suffix('.'));
    let home = homes.next()?;
    homes.next().is_none().then(|| format!("{name} belongs into [{home}]"))
}

/// The known key that resembles an unknown one most, if any does.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|key| (strsim::levenshtein(unknown, key), key))
        .filter(|(distance, key)| *distance <= key.len().max(unknown.len()) / 3)
        .min()
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_matched_with_the_key_that_was_meant() {
        let keys = || SETTINGS.iter().map(|setting| setting.key.as_str());
        let table = [
            ("publicurl", Some("public_url")),
            ("session.idel", Some("session.idle")),
            ("provider.clientid", Some("provider.client_id")),
            ("colour", None),
        ];
        for (unknown, expected) in table {
            assert_eq!(nearest(unknown, keys()), expected, "{unknown}");
        }
    }

    #[test]
    fn a_key_in_the_wrong_section_gets_its_place() {
        let table = [
            (
                "provider.trusted_proxies",
                Some("trusted_proxies belongs above [provider], at the top of the file"),
            ),
            ("routes[0].listen", Some("listen belongs above [[routes]], at the top of the file")),
            ("session.client_id", Some("client_id belongs into [provider]")),
            ("client_id", Some("client_id belongs into [provider]")),
            // There are several of this name.
            ("provider.secret_file_of_nobody", None),
            ("listen_elsewhere", None),
        ];
        for (key, expected) in table {
            assert_eq!(misplaced(key).as_deref(), expected, "{key}");
        }
    }

    #[test]
    fn container_variables_for_a_service_of_our_name_match_no_setting() {
        for setting in SETTINGS.iter() {
            let key = &setting.key;
            assert!(!key.starts_with("service") && !key.starts_with("port"), "{key}");
        }
    }

    #[test]
    fn an_old_name_works_for_one_release() {
        let [major, minor] = [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR")];
        let now: (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
        for Renamed { old, new, until } in RENAMED {
            assert!(find(old).is_none() && find(new).is_some(), "{old} -> {new}");
            assert!(now <= (until.0, until.1 + 1), "{old} has had its release: remove it from RENAMED");
        }
    }
}
