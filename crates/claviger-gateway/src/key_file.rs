//! A key file: one root key per line. The first seals, and every one opens what it sealed.

use std::path::Path;

use anyhow::{Context as _, bail};
use claviger_engine::{Entropy as _, OsEntropy};
use claviger_seal::{KeyId, RootKey};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use crate::{
    config::secrets,
    secret_file::{self, Locked},
};

/// A new root key.
pub(crate) fn generate(id: u32) -> anyhow::Result<RootKey> {
    if id == 0 {
        bail!("the id of a key must be at least 1");
    }
    let mut bytes = Zeroizing::new([0; 32]);
    OsEntropy.fill(bytes.as_mut());
    Ok(RootKey::new(KeyId(id), *bytes))
}

/// Puts a new key on top of a key file, with the next id.
pub(crate) fn put_on_top(path: &Path) -> anyhow::Result<()> {
    put_with_id(path, None, false).map(drop)
}

/// Puts a new key on top of a key file, or at its end. Returns its id and the number of other keys.
pub(crate) fn put_with_id(path: &Path, id: Option<u32>, at_end: bool) -> anyhow::Result<(u32, usize)> {
    let shown = path.display();
    let file = Locked::existing_or_new(path)?;
    let before = if path.exists() {
        secret_file::read(path).map_err(anyhow::Error::msg)?
    } else {
        Zeroizing::default()
    };
    let keys = secrets::parse_lines(&before)
        .with_context(|| format!("{shown} is not a key file; nothing was changed"))?;
    let highest = keys.iter().map(|key| key.id().0).max().unwrap_or_default();
    let id = id.or_else(|| highest.checked_add(1)).context("no higher id is left; choose one with --id")?;
    if keys.iter().any(|key| key.id() == KeyId(id)) {
        bail!("{shown} has a key {id} already; nothing was changed");
    }
    if id < highest {
        bail!("a new key needs the highest id, and {shown} has a key {highest} already; nothing was changed");
    }
    let key = generate(id)?.encode();
    let (key, before) = (key.expose_secret(), before.as_str());
    let text = Zeroizing::new(if at_end {
        format!("{before}{}{key}\n", if before.is_empty() || before.ends_with('\n') { "" } else { "\n" })
    } else {
        format!("{key}\n{before}")
    });
    file.replace(&text)?;
    Ok((id, keys.len()))
}

/// Moves the newest key of a file to its top. Returns its id.
pub(crate) fn promote(path: &Path) -> anyhow::Result<KeyId> {
    let shown = path.display();
    let file = Locked::existing(path)?;
    let before = secret_file::read(path).map_err(anyhow::Error::msg)?;
    let keys = secrets::parse_lines(&before)
        .with_context(|| format!("{shown} is not a key file; nothing was changed"))?;
    let newest = keys.iter().map(RootKey::id).max().with_context(|| format!("{shown} holds no key"))?;
    let is_newest = |line: &&str| RootKey::parse(line).is_ok_and(|key| key.id() == newest);
    let (first, others): (Vec<&str>, Vec<&str>) = before.lines().partition(is_newest);
    let lines = first.into_iter().chain(others);
    let text = Zeroizing::new(lines.flat_map(|line| [line, "\n"]).collect::<String>());
    file.replace(&text)?;
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_grows_at_the_top_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claviger.keys");
        put_with_id(&path, None, false).unwrap();
        put_with_id(&path, None, false).unwrap();
        put_with_id(&path, Some(9), false).unwrap();
        put_with_id(&path, None, false).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<u32> = secrets::parse_lines(&text).unwrap().iter().map(|key| key.id().0).collect();
        assert_eq!(ids, [10, 9, 2, 1]);
        assert!(!secret_file::others_can_read(&path));
        assert!(put_with_id(&path, Some(9), false).unwrap_err().to_string().contains("already"));
        assert!(put_with_id(&path, Some(3), true).unwrap_err().to_string().contains("needs the highest id"));
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
    fn a_file_that_holds_no_keys_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        std::fs::write(&path, "canary: my notes\n").unwrap();
        let error = format!("{:#}", put_with_id(&path, None, false).unwrap_err());
        assert!(error.contains("is not a key file") && !error.contains("my notes"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "canary: my notes\n");
    }
}
