//! Which external packages the pure crates depend on, directly or through others.
//!
//! The lists are committed, so a review shows each new package. Runtimes, sockets, clocks and
//! sources of randomness stay out even when the lists are rewritten.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::tools;

/// The crates that have a list, each in `xtask/closures/<crate>.txt`.
const PURE: &[&str] = &["claviger-core", "claviger-seal", "claviger-provider"];

/// Packages that a pure crate must never depend on, by what they would bring.
const BANNED: &[(&str, &[&str])] = &[
    (
        "an async runtime",
        &[
            "tokio",
            "tokio-util",
            "async-std",
            "smol",
            "async-io",
            "async-executor",
            "monoio",
            "glommio",
            "compio",
        ],
    ),
    (
        "sockets or HTTP that sends",
        &[
            "mio",
            "socket2",
            "polling",
            "hyper",
            "hyper-util",
            "reqwest",
            "ureq",
            "isahc",
            "curl",
            "h2",
            "axum",
            "axum-core",
            "axum-server",
            "tower-http",
            "rustls",
            "native-tls",
            "openssl",
        ],
    ),
    (
        "a database",
        &["rusqlite", "libsqlite3-sys", "sqlx-core", "tokio-postgres", "postgres", "redis", "deadpool"],
    ),
    (
        "a clock",
        &["chrono", "time", "jiff", "quanta", "coarsetime", "instant", "web-time", "minstant", "hifitime"],
    ),
    ("randomness", &["getrandom", "rand", "rand_chacha", "fastrand", "oorandom", "nanorand"]),
];

/// The command that rewrites the lists.
const BLESS: &str = "cargo xtask layers --bless";

type Names = BTreeSet<String>;

/// Compares the packages of each pure crate with its list, or rewrites the lists with `bless`.
///
/// # Errors
/// If a banned package is among them, or a list differs.
pub(crate) fn check(bless: bool) -> Result<()> {
    let mut faults = Vec::new();
    for package in PURE {
        let reached = reached(package)?;
        faults.extend(banned(package, &reached));
        let path = list_path(package);
        if bless {
            std::fs::write(&path, list(&reached)).with_context(|| path.display().to_string())?;
        }
        let listed = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        faults.extend(differences(package, &reached, &listed.lines().map(str::to_owned).collect()));
        println!("closures: {package} reaches {} external packages", reached.len());
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

fn list_path(package: &str) -> PathBuf {
    tools::root().join("xtask/closures").join(format!("{package}.txt"))
}

fn list(names: &Names) -> String {
    names.iter().map(|name| format!("{name}\n")).collect()
}

/// Reads the packages for every platform, so that the list is the same on each.
fn reached(package: &str) -> Result<Names> {
    let tree = ["tree", "-p", package, "-e", "normal", "--prefix", "none", "--target", "all", "--locked"];
    Ok(external_names(&tools::output(tools::cargo().args(tree))?))
}

/// The names in the output of `cargo tree --prefix none` ("name v1.2.3 ...") but for our own
/// crates.
fn external_names(tree: &str) -> Names {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let is_ours = |name: &str| name == "claviger" || name.starts_with("claviger-");
    names.filter(|name| !is_ours(name)).map(str::to_owned).collect()
}

/// One sentence for each banned package, whatever the list says.
fn banned(package: &str, reached: &Names) -> Vec<String> {
    let bans = BANNED.iter().flat_map(|(what, names)| names.iter().map(move |name| (name, what)));
    bans.filter(|(name, _)| reached.contains(**name))
        .map(|(name, what)| {
            format!("{package} reaches {name}, which is {what}: it arrives as an argument instead")
        })
        .collect()
}

/// One sentence for each package that is reached but not listed, or listed but not reached.
fn differences(package: &str, reached: &Names, listed: &Names) -> Vec<String> {
    let added = reached.difference(listed).map(|name| format!("{package} now reaches {name}"));
    let removed = listed.difference(reached).map(|name| format!("{package} no longer reaches {name}"));
    added.chain(removed).map(|change| format!("{change}; if that is meant: {BLESS}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Names {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_are_read_once_without_versions_and_without_our_own() {
        let tree = "claviger-seal v0.1.0 (/somewhere)\nurl v2.5.8\nclaviger-core v0.1.0 (/somewhere)\n\
                    thiserror-impl v2.0.21 (proc-macro)\nurl v2.5.8 (*)\n";
        assert_eq!(external_names(tree), names(&["thiserror-impl", "url"]));
    }

    #[test]
    fn a_list_that_matches_has_no_fault() {
        assert!(differences("claviger-core", &names(&["url", "uuid"]), &names(&["uuid", "url"])).is_empty());
    }

    #[test]
    fn added_and_removed_packages_are_faults() {
        let found = differences("claviger-core", &names(&["url", "new"]), &names(&["url", "old"]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("claviger-core now reaches new"), "{found:?}");
        assert!(found[1].starts_with("claviger-core no longer reaches old"), "{found:?}");
    }

    #[test]
    fn runtimes_clocks_and_randomness_are_faults_even_when_listed() {
        let found = banned("claviger-core", &names(&["url", "tokio", "getrandom"]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("claviger-core reaches tokio, which is an async runtime"), "{found:?}");
        assert!(found[1].starts_with("claviger-core reaches getrandom, which is randomness"), "{found:?}");
        assert!(banned("claviger-seal", &names(&["aws-lc-rs", "uuid", "url", "httpdate"])).is_empty());
    }

    #[test]
    fn a_list_is_read_back_as_written() {
        let written = list(&names(&["b", "a"]));
        assert_eq!(written, "a\nb\n");
        assert_eq!(written.lines().map(str::to_owned).collect::<Names>(), names(&["a", "b"]));
    }
}
