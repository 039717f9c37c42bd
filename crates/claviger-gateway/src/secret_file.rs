//! A small file of secrets: reading it, and replacing it so that only its owner can read it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

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

/// Replaces a file atomically, so that neither readers nor crashes leave half of it.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let beside = PathBuf::from(name);
    let written = private(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let done = written.and_then(|()| std::fs::rename(&beside, path));
    if done.is_err() {
        // The old file stays, and the caller reports the error.
        let _removed = std::fs::remove_file(&beside);
    }
    done
}

/// Creates a file that only its owner can read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
