//! The programs that the tests of the PostgreSQL store start: PostgreSQL, and a pooler in front of
//! it.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::tools;

/// Makes sure that both are installed.
///
/// # Errors
/// If one is missing and cannot be installed from here; the text says what to do.
pub(crate) fn prepare() -> Result<()> {
    program("initdb", "postgresql", || tools::on_path("initdb").or_else(debians_initdb))?;
    program("pgbouncer", "pgbouncer", || {
        // Debian has it among the programs of administrators, who alone may have these on their
        // PATH.
        tools::on_path("pgbouncer")
            .or_else(|| Some(PathBuf::from("/usr/sbin/pgbouncer")).filter(|file| file.is_file()))
    })
}

fn program(name: &str, package: &str, find: impl Fn() -> Option<PathBuf>) -> Result<()> {
    if find().is_none() && tools::can_apt_install() {
        println!("{name} is missing: installing it");
        tools::apt_install(package)?;
    }
    ensure!(
        find().is_some(),
        "the tests of the PostgreSQL store need {name}. Install it (on Debian, as root: apt-get install {package})."
    );
    Ok(())
}

/// Debian installs several versions side by side, and puts none of them on the PATH.
fn debians_initdb() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.flatten().map(|version| version.path().join("bin/initdb")).find(|file| file.is_file())
}
