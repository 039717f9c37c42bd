//! A small file of secrets: reading it, and changing it while no other process does.

#[cfg(unix)]
use std::fs::Permissions;
use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use zeroize::Zeroizing;

/// Maximum size of a file with secrets.
const SECRET_FILE_BYTES: u64 = 64 * 1024;

/// Reads a small text file into memory that is wiped afterwards.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let length = std::fs::metadata(path).map_err(|error| format!("{shown} cannot be read ({error})"))?.len();
    if length > SECRET_FILE_BYTES {
        return Err(format!("{shown} is too large for a file of secrets"));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("{shown} cannot be read ({error})"))?;
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| format!("{shown} is not text"))
}

/// Whether users other than its owner can read a file.
#[cfg(unix)]
pub(crate) fn others_can_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

/// Whether users other than its owner can read a file. Unknown on this system.
#[cfg(not(unix))]
pub(crate) fn others_can_read(_path: &Path) -> bool {
    false
}

/// A file that only this process changes, until this is dropped. Other processes wait.
///
/// A link is followed, so that its target is replaced.
#[derive(Debug)]
pub(crate) struct Locked {
    path: PathBuf,
    _lock: File,
}

impl Locked {
    /// Locks a file that exists.
    ///
    /// # Errors
    /// Why not, as a sentence for the operator.
    pub(crate) fn existing(path: &Path) -> anyhow::Result<Self> {
        let real = path.canonicalize();
        Self::lock(real.with_context(|| format!("{} cannot be read; nothing was changed", path.display()))?)
    }

    /// Locks a file that may be missing.
    ///
    /// # Errors
    /// See [`Locked::existing`].
    pub(crate) fn existing_or_new(path: &Path) -> anyhow::Result<Self> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::lock(path.to_owned()),
            _ => Self::existing(path),
        }
    }

    /// The lock is a file of its own, because the file itself is replaced. It stays: if it were
    /// removed, two processes could hold one each.
    fn lock(path: PathBuf) -> anyhow::Result<Self> {
        let beside = beside(&path, ".lock");
        let lock = match private(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                OpenOptions::new().write(true).open(&beside)
            }
            // The owner of the file must be able to lock it, too. Where its owner cannot be kept,
            // replacing the file fails and says so.
            made => made.inspect(|lock| drop(metadata(&path).and_then(|old| keep_owner(lock, old)))),
        };
        let lock = lock.and_then(|lock| lock.lock().map(|()| lock));
        let shown = beside.display();
        let lock = lock.with_context(|| format!("{shown} cannot be locked; nothing was changed"))?;
        Ok(Self { path, _lock: lock })
    }

    /// Replaces the file atomically, so that neither readers nor crashes leave half of it. Owner,
    /// group and mode stay, without the rights of other users. A new file is its owner's alone.
    ///
    /// # Errors
    /// Why nothing was changed, as a sentence for the operator.
    pub(crate) fn replace(&self, text: &str) -> anyhow::Result<()> {
        let shown = self.path.display();
        self.write(text).with_context(|| format!("{shown} cannot be written; nothing was changed"))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let beside = beside(&self.path, ".new");
        // A process that crashed left it: every other one would have the lock.
        if let Err(error) = std::fs::remove_file(&beside)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let old = metadata(&self.path)?;
        let mut file = private(&beside)?;
        let done = keep_owner(&file, old)
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&beside, &self.path));
        if done.is_err() {
            // The old file stays, and the caller reports the error.
            let _removed = std::fs::remove_file(&beside);
        }
        done
    }
}

/// A path with this at its end.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Creates a file that only its owner can read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The metadata of a file, or none if it is missing.
fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Gives a new file owner, group and mode of the one that it replaces, so that those who read that
/// one can read it.
#[cfg(unix)]
fn keep_owner(file: &File, old: Option<Metadata>) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
    let Some(old) = old else { return Ok(()) };
    fchown(file, Some(old.uid()), Some(old.gid())).map_err(|error| {
        io::Error::new(error.kind(), format!("its owner and its group cannot be kept ({error})"))
    })?;
    file.set_permissions(Permissions::from_mode(old.mode() & 0o770))
}

/// Does nothing on this system.
#[cfg(not(unix))]
fn keep_owner(_file: &File, _old: Option<Metadata>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_does_not_stop_the_next_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets");
        std::fs::write(beside(&path, ".new"), "half").unwrap();
        for text in ["first", "second"] {
            Locked::existing_or_new(&path).unwrap().replace(text).unwrap();
            assert_eq!(read(&path).unwrap().as_str(), text);
            assert!(!beside(&path, ".new").exists());
        }
    }

    #[cfg(unix)]
    #[test]
    fn owner_group_mode_and_links_stay() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("secrets"), directory.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        symlink(&path, &link).unwrap();
        // Only root can give a file away. Others keep theirs.
        let own = path.metadata().unwrap();
        let owner = if own.uid() == 0 { (4242, 4243) } else { (own.uid(), own.gid()) };
        chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        for (mode, expected) in [(0o640, 0o640), (0o660, 0o660), (0o600, 0o600), (0o644, 0o640)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Locked::existing(&link).unwrap().replace("new").unwrap();
            let new = path.symlink_metadata().unwrap();
            assert_eq!((new.uid(), new.gid(), new.mode() & 0o7777), (owner.0, owner.1, expected));
            assert!(new.is_file() && link.is_symlink());
        }
        let lock = beside(&path, ".lock").metadata().unwrap();
        assert_eq!((lock.uid(), lock.gid()), owner, "its owner may lock it");
        std::fs::remove_file(&path).unwrap();
        let error = Locked::existing_or_new(&link).unwrap_err();
        assert!(error.to_string().contains("nothing was changed"), "{error}");
    }
}
