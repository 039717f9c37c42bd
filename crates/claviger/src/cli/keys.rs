//! `claviger keys`

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use claviger_engine::{Entropy as _, OsEntropy};
use claviger_seal::{KeyId, RootKey};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::print;
use crate::config::secrets;

/// Commands on keys.
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Makes a root key, and prints it or puts it on top of a file of keys
    #[command(after_help = GENERATE_HELP)]
    Generate {
        /// The file of keys, such as claviger.keys; it is made if it is not there, for its owner only
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The id of the new key; without it one more than the highest in the file, or 1
        #[arg(long)]
        id: Option<u32>,
    },
}

const GENERATE_HELP: &str = "\
A file of keys holds one in each line, the newest first: the first seals, and every one opens what it sealed. To rotate,
run this again with the same file and restart the gateway; with several gateways, put the new key below the others
first, restart all, then move it to the top and restart all again. An older key can go when session.absolute has passed
since: until then sessions may be sealed with it. A missing key signs nobody out, but their requests fail until it is
back.";

pub(super) fn run(command: &Keys) -> anyhow::Result<()> {
    let Keys::Generate { file, id } = command;
    match file {
        None => {
            let line = Zeroizing::new(format!("{}\n", generate(id.unwrap_or(1))?.encode().expose_secret()));
            print(&line)
        }
        Some(path) => {
            let (id, older) = put_with_id(path, *id)?;
            print(&format!(
                "key {id} is on top of {} and seals from the next start on; {older} below it\n",
                path.display()
            ))
        }
    }
}

/// A new root key.
fn generate(id: u32) -> anyhow::Result<RootKey> {
    if id == 0 {
        bail!("the id of a key is a number from 1");
    }
    let mut bytes = Zeroizing::new([0; 32]);
    OsEntropy.fill(bytes.as_mut());
    Ok(RootKey::new(KeyId(id), *bytes))
}

/// Puts a new key on top of a file of keys, with the next id.
pub(crate) fn put_on_top(path: &Path) -> anyhow::Result<()> {
    put_with_id(path, None).map(drop)
}

/// Puts a new key on top of a file of keys. Gives its id and the number of keys below it.
fn put_with_id(path: &Path, id: Option<u32>) -> anyhow::Result<(u32, usize)> {
    let shown = path.display();
    let before =
        if path.exists() { secrets::read(path).map_err(anyhow::Error::msg)? } else { Zeroizing::default() };
    let keys = secrets::parse_lines(&before)
        .with_context(|| format!("{shown} is no file of keys; nothing was changed"))?;
    let highest = keys.iter().map(|key| key.id().0).max().unwrap_or_default();
    let id = id.or_else(|| highest.checked_add(1)).context("no id is left; give one with --id")?;
    if keys.iter().any(|key| key.id() == KeyId(id)) {
        bail!("{shown} has a key {id} already; nothing was changed");
    }
    let text = Zeroizing::new(format!("{}\n{}", generate(id)?.encode().expose_secret(), before.as_str()));
    replace(path, &text).with_context(|| format!("{shown} cannot be written; nothing was changed"))?;
    Ok((id, keys.len()))
}

/// Replaces a file in one step, so that no reader and no crash ever sees half of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let beside = PathBuf::from(name);
    let written = private(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let done = written.and_then(|()| std::fs::rename(&beside, path));
    if done.is_err() {
        // What is left is the file that was there, and the error is told.
        let _removed = std::fs::remove_file(&beside);
    }
    done
}

/// A new file that only its owner can read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys_grows_at_the_top_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claviger.keys");
        put_with_id(&path, None).unwrap();
        put_with_id(&path, None).unwrap();
        put_with_id(&path, Some(9)).unwrap();
        put_with_id(&path, None).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<u32> = secrets::parse_lines(&text).unwrap().iter().map(|key| key.id().0).collect();
        assert_eq!(ids, [10, 9, 2, 1]);
        assert!(!secrets::others_can_read(&path));
        assert!(put_with_id(&path, Some(9)).unwrap_err().to_string().contains("already"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_file_that_holds_no_keys_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        std::fs::write(&path, "canary: my notes\n").unwrap();
        let error = format!("{:#}", put_with_id(&path, None).unwrap_err());
        assert!(error.contains("no file of keys") && !error.contains("my notes"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "canary: my notes\n");
    }
}
