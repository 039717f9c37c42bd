//! The file itself: private, and open in only one process.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use crate::error::OpenError;

/// Maximum number of bytes read as a process id.
const HOLDER_BYTES: u64 = 20;

/// The lock on a store's file. The operating system releases it when the process dies, however it
/// dies.
#[derive(Debug)]
pub(crate) struct Hold {
    _file: File,
}

/// Returns the file's name with all symbolic links resolved, even if the file does not exist yet.
pub(crate) fn real(path: &Path) -> Result<PathBuf, OpenError> {
    match path.canonicalize() {
        Ok(real) => return Ok(real),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(OpenError::io(path, &error)),
    }
    require_directory(path)?;
    if let Ok(target) = fs::read_link(path) {
        return real(&directory(path).join(target));
    }
    let directory = directory(path).canonicalize().map_err(|error| OpenError::io(path, &error))?;
    Ok(path.file_name().map_or_else(|| path.to_owned(), |name| directory.join(name)))
}

/// Locks the file under its [`real`] name, with a lock on a file beside it. SQLite's own locks are
/// not enough: they let several processes in, and each would trust its own cache.
pub(crate) fn hold(path: &Path) -> Result<Hold, OpenError> {
    let mut file = private_file(&beside(path)).map_err(|error| OpenError::io(path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse { path: path.to_owned(), holder: holder(file) });
        }
        Err(TryLockError::Error(error)) => return Err(OpenError::io(path, &error)),
    }
    require_one_name(path)?;
    // The id only helps the operator of a process that is refused. The lock works without it.
    let written = file.set_len(0).and_then(|()| file.rewind());
    if let Err(error) = written.and_then(|()| write!(file, "{}", std::process::id())) {
        tracing::warn!(kind = %error.kind(), "the lock of the session store does not say who holds it");
    }
    Ok(Hold { _file: file })
}

/// Creates the file if it does not exist. SQLite gives its log and its index the same mode.
pub(crate) fn create(path: &Path) -> Result<(), OpenError> {
    let file = private_file(path).map_err(|error| OpenError::io(path, &error))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().map_err(|error| OpenError::io(path, &error))?.permissions().mode();
        if mode & 0o077 != 0 {
            let path = path.display();
            tracing::warn!(
                mode = %format_args!("{:o}", mode & 0o777),
                "users other than its owner can open the session store; run `chmod 600 {path}`"
            );
        }
    }
    drop(file);
    Ok(())
}

/// Which file is open, by the numbers that the operating system gives it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    numbers: Option<(u64, u64)>,
}

impl Identity {
    /// The file at this path.
    pub(crate) fn of(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_owned(), numbers: numbers(&fs::metadata(path)?) })
    }

    /// What the operator must know if another file or none is at the path now.
    pub(crate) fn trouble(&self) -> Option<String> {
        let path = self.path.display();
        let what = match fs::metadata(&self.path) {
            Ok(found) if numbers(&found) == self.numbers => return None,
            Ok(_) => "another file is at",
            Err(error) if error.kind() == ErrorKind::NotFound => "no file is at",
            // Calls to the store show it.
            Err(_) => return None,
        };
        Some(format!(
            "the open session store was moved or deleted: {what} {path}; before a restart move it back, together with \
             the files of its log, or all users have to sign in again"
        ))
    }
}

/// The device and the number of the file on it.
#[cfg(unix)]
fn numbers(file: &fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((file.dev(), file.ino()))
}

/// This system does not report them.
#[cfg(not(unix))]
fn numbers(_file: &fs::Metadata) -> Option<(u64, u64)> {
    None
}

fn require_directory(path: &Path) -> Result<(), OpenError> {
    let directory = directory(path);
    if directory.is_dir() { Ok(()) } else { Err(OpenError::NoDirectory(directory.to_owned())) }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Does not open the file: closing it again would release the locks that SQLite holds on it in this
/// process.
#[cfg(unix)]
fn require_one_name(path: &Path) -> Result<(), OpenError> {
    match fs::metadata(path) {
        Ok(file) if file.is_file() && std::os::unix::fs::MetadataExt::nlink(&file) > 1 => {
            Err(OpenError::SeveralNames(path.to_owned()))
        }
        _ => Ok(()),
    }
}

/// This system does not report the number of names.
#[cfg(not(unix))]
fn require_one_name(_path: &Path) -> Result<(), OpenError> {
    Ok(())
}

fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn holder(file: File) -> String {
    let mut text = String::new();
    let read = file.take(HOLDER_BYTES).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(process)) => format!("process {process}"),
        _ => "another process".to_owned(),
    }
}
