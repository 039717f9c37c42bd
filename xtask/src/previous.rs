//! The gateway of the previous release, built from its commit: what is to run beside it is tested beside it.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    built,
    tools::{self, run},
};

/// The commit of the release before this one. Who makes a release writes the commit of the last one here.
const COMMIT: &str = "e9edefd5c7f968d01a3a3c7cc22a8dc9f8b7d1c2";

/// Builds it, unless that was done before, and gives the path of the executable.
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
    fs::create_dir_all(&source).context("there is no place for the source of the previous release")?;
    let archive = directory.join("source.tar");
    if run(tools::command("git").args(["cat-file", "-e", COMMIT])).is_err() {
        run(tools::command("git").args(["fetch", "--unshallow"]))
            .context("the previous release is not in this clone, which lacks a part of the history")?;
    }
    run(tools::command("git").args(["archive", "--format=tar", COMMIT, "--output"]).arg(&archive)).context(
        "the previous release is not in this clone: fetch the whole history (git fetch --unshallow)",
    )?;
    run(tools::command("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(&source))?;
    let (manifest, build) = (text(source.join("Cargo.toml"))?, text(directory.join("build"))?);
    let built = built::executable("claviger", &["--manifest-path", &manifest, "--target-dir", &build])?;
    // Under another name first, so that a copy that was cut short is not taken for it.
    let half = directory.join("half");
    fs::copy(&built, &half)
        .and_then(|_| fs::rename(&half, &kept))
        .context("the previous release cannot be kept")?;
    Ok(kept)
}

fn text(path: PathBuf) -> Result<String> {
    path.into_os_string().into_string().map_err(|_| anyhow!("the path of the workspace is no text"))
}
