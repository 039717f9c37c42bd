//! The lists of steps behind `cargo xtask ci` and `cargo xtask test`.

use anyhow::{Context as _, Result};

use crate::steps::Steps;
use crate::tools::{self, run};
use crate::{browser, closures, deny, generated, layers, postgres, previous, tidy};

/// Runs everything that must pass before a change lands.
///
/// # Errors
/// If any step failed.
pub(crate) fn ci() -> Result<()> {
    let before = generated::snapshot()?;
    let mut steps = Steps::default();
    add_checks(&mut steps);
    add_tests(&mut steps, true);
    steps.run("generated files", || generated::check(&before));
    steps.finish()
}

/// Runs the steps of CI that run no test.
///
/// # Errors
/// If any step failed.
pub(crate) fn check() -> Result<()> {
    let mut steps = Steps::default();
    add_checks(&mut steps);
    steps.finish()
}

fn add_checks(steps: &mut Steps) {
    steps.run("format", || run(tools::cargo().args(["fmt", "--all", "--check"])));
    steps.run("tidy", || tidy::run(&tidy::Options::default()));
    steps.run("layers", layers::check);
    steps.run("closures", || closures::check(false));
    steps.run("clippy", || {
        let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        run(tools::cargo().args(clippy))
    });
    steps.run("deny", deny::check);
    steps.run("advisories", deny::advisories);
    steps.run("docs", || {
        let doc = ["doc", "--workspace", "--no-deps", "--locked"];
        run(tools::cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.run("diagrams", diagrams);
}

/// Runs all tests, with or without those that need a browser.
///
/// # Errors
/// If any test failed or could not run.
pub(crate) fn test(with_browser: bool) -> Result<()> {
    let mut steps = Steps::default();
    add_tests(&mut steps, with_browser);
    steps.finish()
}

/// Tests the SQLite store in a program that also links sqlx. That crate is not in the workspace,
/// because the workspace has a newer SQLite.
///
/// # Errors
/// If the two cannot be linked, or a test failed.
pub(crate) fn beside_sqlx() -> Result<()> {
    let target = tools::root().join("target/beside-sqlx");
    let test = ["test", "--locked", "--manifest-path", "tests/beside-sqlx/Cargo.toml"];
    run(tools::cargo().args(test).env("CARGO_TARGET_DIR", target))
}

/// Draws docs/diagrams.md.
///
/// # Errors
/// If the program that draws it fails, or the page cannot be written.
pub(crate) fn diagrams() -> Result<()> {
    let draw = ["run", "--quiet", "--locked", "--package", "claviger-core", "--example", "diagrams"];
    let page = tools::output(tools::cargo().args(draw))?;
    std::fs::write(tools::root().join("docs/diagrams.md"), page).context("docs/diagrams.md cannot be written")
}

/// Runs the crash test with many kills.
///
/// # Errors
/// If a session was lost, or the test could not run.
pub(crate) fn crash(kills: u32) -> Result<()> {
    long_run("crashes", &[("CRASH_TEST_KILLS", kills.to_string())])
}

/// Runs the test against hostile clients with many of them.
///
/// # Errors
/// If a bound was exceeded, or the test could not run.
pub(crate) fn crowd(clients: u32) -> Result<()> {
    long_run("crowd", &[("CROWD_TEST_CLIENTS", clients.to_string())])
}

/// Runs the fleet test for several minutes.
///
/// # Errors
/// If PostgreSQL is missing, an invariant was violated, or the test could not run.
pub(crate) fn fleet(minutes: u64, seed: u64) -> Result<()> {
    postgres::prepare()?;
    let settings = [("FLEET_TEST_MINUTES", minutes.to_string()), ("FLEET_TEST_SEED", seed.to_string())];
    long_run("fleet", &settings)
}

/// Runs the previous release and this one on one database.
///
/// # Errors
/// If the previous release cannot be built, PostgreSQL is missing, or a request failed.
pub(crate) fn releases() -> Result<()> {
    postgres::prepare()?;
    let test = [
        "test",
        "--locked",
        "--package",
        "claviger-gateway",
        "--test",
        "fleet",
        "releases::",
        "--",
        "--ignored",
    ];
    run(tools::cargo().args(test).env("PREVIOUS_RELEASE", previous::gateway()?))
}

fn long_run(test: &str, settings: &[(&str, String)]) -> Result<()> {
    let test = ["test", "--locked", "--package", "claviger-gateway", "--test", test, "--", "--nocapture"];
    run(tools::cargo().args(test).envs(settings.iter().map(|(name, value)| (name, value))))
}

/// Looks for missing programs first, so that they are reported before minutes of compiling.
fn add_tests(steps: &mut Steps, with_browser: bool) {
    steps.run("database tools", postgres::prepare);
    if with_browser {
        steps.run("browser tools", || browser::prepare().map(drop));
    }
    steps.run("Rust tests", || {
        run(tools::cargo().args(["test", "--workspace", "--locked", "--no-fail-fast"]))
    });
    steps.run("beside sqlx", beside_sqlx);
    steps.run("releases", releases);
    if with_browser {
        steps.run("browser tests", || browser::test(None));
    }
}
