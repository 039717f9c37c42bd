//! Committed files that a tool writes: lock files, generated pages and the like.
//!
//! The step or test that generates such a file rewrites it in place when it is out of date. CI then
//! fails because the file changed while the steps ran, and the new file is ready to commit.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::{Result, bail};

use crate::tools;

/// The files of the work tree that git does not ignore, each with a fingerprint of its content.
pub(crate) type Snapshot = BTreeMap<String, u64>;

/// Reads the work tree.
///
/// # Errors
/// If git is missing, or this is no git work tree.
pub(crate) fn snapshot() -> Result<Snapshot> {
    let root = tools::root();
    let mut snapshot = Snapshot::new();
    for name in tools::work_tree()? {
        // A file that git knows but that is deleted has no content, and so no line.
        let Ok(content) = std::fs::read(root.join(&name)) else { continue };
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        snapshot.insert(name, hasher.finish());
    }
    Ok(snapshot)
}

/// Compares the work tree with an earlier snapshot.
///
/// # Errors
/// If a file was added, changed or removed since then.
pub(crate) fn check(before: &Snapshot) -> Result<()> {
    let changes = changes(before, &snapshot()?);
    if changes.is_empty() {
        return Ok(());
    }
    bail!("these files changed while the steps ran; look at them and commit them:\n{}", changes.join("\n"))
}

fn changes(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let removed =
        before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("  removed {name}"));
    let others = after.iter().filter_map(|(name, content)| match before.get(name) {
        None => Some(format!("  added {name}")),
        Some(old) if old != content => Some(format!("  changed {name}")),
        Some(_) => None,
    });
    removed.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_added_changed_and_removed_files_are_named() {
        let tree =
            |files: &[(&str, u64)]| files.iter().map(|(name, print)| ((*name).to_owned(), *print)).collect();
        let before: Snapshot = tree(&[("kept", 1), ("edited", 2), ("gone", 3)]);
        let after: Snapshot = tree(&[("kept", 1), ("edited", 9), ("new", 4)]);
        assert_eq!(changes(&before, &after), ["  removed gone", "  changed edited", "  added new"]);
        assert!(changes(&before, &before).is_empty());
    }
}
