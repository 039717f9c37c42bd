//! The gateway of the previous release, built from its commit. This release has to run beside it,
//! so a test runs both.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    built,
    tools::{self, run},
};

/// The commit of the previous release. A release updates it.
const COMMIT: &str = "4fdc268b4a55d65cbac051c1705f7b88d799b576";

/// Returns the path of the executable, which is built once.
///
/// # Errors
/// If the commit is not in this clone, or does not build.
pub(crate) fn gateway() -> Result<PathBuf> {
    let directory = tools::target().join("previous");
    let kept = directory.join(COMMIT);
    if kept.is_file() {
        return Ok(kept);
    }
    let source = directory.join("source");
    if source.exists() {
        fs::remove_dir_all(&source).context("the source of the previous release cannot be removed")?;
    }
    fs::create_dir_all(&source).context("there is no folder for the source of the previous release")?;
    let archive = directory.join("source.tar");
    if run(tools::command("git").args(["cat-file", "-e", COMMIT])).is_err() {
        run(tools::command("git").args(["fetch", "--unshallow"]))
            .context("the clone is shallow and does not contain the previous release")?;
    }
    run(tools::command("git").args(["archive", "--format=tar", COMMIT, "--output"]).arg(&archive))
        .context("the clone does not contain the previous release: run git fetch --unshallow")?;
    run(tools::command("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(&source))?;
    let (manifest, build) = (text(source.join("Cargo.toml"))?, text(directory.join("build"))?);
    let built = built::executable("claviger", &["--manifest-path", &manifest, "--target-dir", &build])?;
    // The copy gets its name last, so that an incomplete one is never used.
    let half = directory.join("half");
    fs::copy(&built, &half)
        .and_then(|_| fs::rename(&half, &kept))
        .context("the executable of the previous release cannot be copied")?;
    Ok(kept)
}

fn text(path: PathBuf) -> Result<String> {
    path.into_os_string().into_string().map_err(|_| anyhow!("the path of the workspace is not UTF-8"))
}
