//! `claviger keys`

use std::{
    fmt::Write as _,
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

use super::{ConfigArgs, block_on, plan::grouped, print};
use crate::{config::secrets, status::Key};

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
        /// Puts it at the end of the file, where it only opens: the first step where there are several gateways
        #[arg(long, requires = "file")]
        next: bool,
    },
    /// Moves the newest key of a file to the top, where it seals: the second step where there are several gateways
    Promote {
        /// The file of keys
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Asks a running gateway for its keys, and how many rows each sealed
    #[command(after_help = LIST_HELP)]
    List(ConfigArgs),
}

const GENERATE_HELP: &str = "\
A file of keys holds one in each line: the first seals, and every one opens what it sealed. The newest is the one with the
highest id. To rotate, run this again with the same file: a running gateway reads it anew, and seals anew what older keys
sealed. With several gateways take two steps, so that all can open what one seals: --next, everywhere, then
`claviger keys promote`, everywhere. An older key can go when `claviger keys list` counts no row of it, and session.idle
has passed since it sealed: docs/operations.md says why.";

const LIST_HELP: &str = "\
It asks the gateway at metrics.listen of its configuration, as `claviger status` does. Programs get the same as JSON:
curl http://127.0.0.1:9464/keys";

pub(super) fn run(command: Keys) -> anyhow::Result<()> {
    match command {
        Keys::Generate { file: None, id, .. } => {
            let line = Zeroizing::new(format!("{}\n", generate(id.unwrap_or(1))?.encode().expose_secret()));
            print(&line)
        }
        Keys::Generate { file: Some(path), id, next } => {
            let (id, others) = put_with_id(&path, id, next)?;
            let shown = path.display();
            print(&if next {
                format!("key {id} is at the end of {shown}, where it opens; {others} above it\n")
            } else {
                format!("key {id} is on top of {shown}, where it seals; {others} below it\n")
            })
        }
        Keys::Promote { file } => {
            let id = promote(&file)?;
            print(&format!("key {id} is on top of {}, where it seals\n", file.display()))
        }
        Keys::List(args) => block_on(async move {
            let keys: Vec<Key> = super::status::ask(&args, "keys").await?;
            print(&told(&keys))
        }),
    }
}

/// A line for each key, the newest first.
fn told(keys: &[Key]) -> String {
    let mut text = String::new();
    for Key { id, role, sessions, owed } in keys {
        let what = match role.as_str() {
            "seals" => "seals",
            "next" => "opens; to be promoted when every gateway has it",
            "older" if sessions + owed == 0 => "opens; no row needs it any more",
            "older" => "opens; its rows are being sealed anew",
            _ => "is MISSING; put it back into the file of keys",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "key {id}: {} sessions and {} owed revocations; {what}",
            grouped(*sessions),
            grouped(*owed)
        );
    }
    text
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
    put_with_id(path, None, false).map(drop)
}

/// Puts a new key on top of a file of keys, or at its end. Gives its id and the number of the others.
fn put_with_id(path: &Path, id: Option<u32>, at_end: bool) -> anyhow::Result<(u32, usize)> {
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
    if id < highest {
        bail!("a newer key has a higher id, and {shown} has a key {highest} already; nothing was changed");
    }
    let key = generate(id)?.encode();
    let (key, before) = (key.expose_secret(), before.as_str());
    let text = Zeroizing::new(if at_end {
        format!("{before}{}{key}\n", if before.is_empty() || before.ends_with('\n') { "" } else { "\n" })
    } else {
        format!("{key}\n{before}")
    });
    replace(path, &text).with_context(|| format!("{shown} cannot be written; nothing was changed"))?;
    Ok((id, keys.len()))
}

/// Moves the newest key of a file to its top. Gives its id.
fn promote(path: &Path) -> anyhow::Result<KeyId> {
    let shown = path.display();
    let before = secrets::read(path).map_err(anyhow::Error::msg)?;
    let keys = secrets::parse_lines(&before)
        .with_context(|| format!("{shown} is no file of keys; nothing was changed"))?;
    let newest = keys.iter().map(RootKey::id).max().with_context(|| format!("{shown} holds no key"))?;
    let is_newest = |line: &&str| RootKey::parse(line).is_ok_and(|key| key.id() == newest);
    let (first, others): (Vec<&str>, Vec<&str>) = before.lines().partition(is_newest);
    let lines = first.into_iter().chain(others);
    let text = Zeroizing::new(lines.flat_map(|line| [line, "\n"]).collect::<String>());
    replace(path, &text).with_context(|| format!("{shown} cannot be written; nothing was changed"))?;
    Ok(newest)
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
        put_with_id(&path, None, false).unwrap();
        put_with_id(&path, None, false).unwrap();
        put_with_id(&path, Some(9), false).unwrap();
        put_with_id(&path, None, false).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<u32> = secrets::parse_lines(&text).unwrap().iter().map(|key| key.id().0).collect();
        assert_eq!(ids, [10, 9, 2, 1]);
        assert!(!secrets::others_can_read(&path));
        assert!(put_with_id(&path, Some(9), false).unwrap_err().to_string().contains("already"));
        assert!(put_with_id(&path, Some(3), true).unwrap_err().to_string().contains("higher id"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn the_next_key_waits_at_the_end_and_is_promoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claviger.keys");
        let ids = || -> Vec<u32> {
            let text = std::fs::read_to_string(&path).unwrap();
            secrets::parse_lines(&text).unwrap().iter().map(|key| key.id().0).collect()
        };
        put_with_id(&path, None, true).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# ours\n{}", text.trim())).unwrap();
        assert_eq!(put_with_id(&path, None, true).unwrap(), (2, 1));
        assert_eq!(ids(), [1, 2]);
        assert_eq!(promote(&path).unwrap(), KeyId(2));
        assert_eq!(ids(), [2, 1]);
        assert_eq!(promote(&path).unwrap(), KeyId(2));
        assert_eq!(ids(), [2, 1]);
        assert!(std::fs::read_to_string(&path).unwrap().contains("# ours\n"));
    }

    #[test]
    fn a_list_says_what_each_key_is_for() {
        let key = |id, role: &str, sessions| Key { id, role: role.to_owned(), sessions, owed: 0 };
        let keys = [key(3, "next", 0), key(2, "seals", 1_234), key(1, "older", 7)];
        let expected = "\
key 3: 0 sessions and 0 owed revocations; opens; to be promoted when every gateway has it
key 2: 1,234 sessions and 0 owed revocations; seals
key 1: 7 sessions and 0 owed revocations; opens; its rows are being sealed anew
";
        assert_eq!(told(&keys), expected);
        assert!(told(&[key(1, "older", 0)]).contains("no row needs it"));
        assert!(told(&[key(1, "missing", 5)]).contains("MISSING"));
    }

    #[test]
    fn a_file_that_holds_no_keys_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        std::fs::write(&path, "canary: my notes\n").unwrap();
        let error = format!("{:#}", put_with_id(&path, None, false).unwrap_err());
        assert!(error.contains("no file of keys") && !error.contains("my notes"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "canary: my notes\n");
    }
}
