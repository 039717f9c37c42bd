//! The programs that the tasks call, and what this computer offers.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The directory of the workspace.
pub(crate) fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The directory in which cargo builds.
pub(crate) fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The files of the work tree that git does not ignore, relative to its root.
///
/// # Errors
/// If git is missing, or this is no git work tree.
pub(crate) fn work_tree() -> Result<Vec<String>> {
    let listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let names = output(command("git").args(listing))?;
    Ok(names.split_terminator('\0').map(str::to_owned).collect())
}

/// A command that runs in the directory of the workspace, without standard input.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Prints a command and runs it. Its output goes where our own output goes.
///
/// # Errors
/// If it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("`{line}` could not be started"))?;
    ensure!(status.success(), "`{line}` failed with {status}");
    Ok(())
}

/// Runs a command and returns what it prints on standard output.
///
/// # Errors
/// If it cannot be started, fails, or prints something other than text.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("`{line}` could not be started"))?;
    ensure!(output.status.success(), "`{line}` failed with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something other than text"))
}

/// The command as a person would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words: Vec<_> = std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

/// The path of a program, if it is on the PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Whether this process can install Debian packages: it is root on Debian.
pub(crate) fn can_apt_install() -> bool {
    let is_root = || output(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    on_path("apt-get").is_some() && is_root()
}

/// Installs a Debian package.
///
/// # Errors
/// If apt-get fails.
pub(crate) fn apt_install(package: &str) -> Result<()> {
    let apt = || {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run(apt().args(["update", "--quiet"]))?;
    run(apt().args(["install", "--quiet", "--yes", "--no-install-recommends", package]))
}

/// A version as programs print it: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// Finds the first version in a text such as "cargo-deny 0.20.2" or "v20.11.1".
    fn find(text: &str) -> Option<Version> {
        text.split_whitespace().find_map(|word| {
            let mut numbers = word.strip_prefix('v').unwrap_or(word).splitn(3, '.');
            let mut next = || {
                let part = numbers.next()?;
                let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
                digits.parse().ok()
            };
            Some(Version(next()?, next()?, next()?))
        })
    }
}

/// The version that a program prints, or none if the program is missing.
pub(crate) fn version_of(command: &mut Command) -> Option<Version> {
    let output = command.stderr(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Version::find(&String::from_utf8_lossy(&output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(Version::find("cargo-deny 0.20.2\n"), Some(Version(0, 20, 2)));
        assert_eq!(Version::find("v20.11.1"), Some(Version(20, 11, 1)));
        assert_eq!(Version::find("tool 1.2.3-beta.4 (2026)"), Some(Version(1, 2, 3)));
        assert_eq!(Version::find("no version 5 here"), None);
    }

    #[test]
    fn versions_compare_by_number_and_not_by_text() {
        assert!(Version(0, 20, 2) > Version(0, 9, 10));
    }

    #[test]
    fn the_root_is_the_directory_of_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
    }
}
