//! The credentials of the private listener, and the file that holds their hashes.
//!
//! A line of the file is a name, the hash of a secret, and the rights, with spaces between them.

use std::{
    fmt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{SecretHash, SessionSecret};
use claviger_engine::{Entropy as _, OsEntropy};
use zeroize::Zeroizing;

use super::rights::{Name, Right};
use crate::secret_file::{self, Locked};

/// How each secret begins, so that people and secret scanners recognise it.
pub const PREFIX: &str = "claviger_credential_";
/// How the hash of a secret begins in the file.
const HASH: &str = "sha256:";
/// Maximum number of secrets of one name: the one in use, and its successor.
const SECRETS_PER_NAME: usize = 2;

/// One secret, whom it belongs to, and what it allows.
#[derive(Debug)]
pub struct Credential {
    /// Whose it is.
    pub name: Name,
    /// What it allows.
    pub rights: Vec<Right>,
    hash: SecretHash,
}

/// The credentials of a file, in its order.
#[derive(Clone, Debug, Default)]
pub struct Credentials(Vec<Arc<Credential>>);

/// A line of the file that is no credential. It shows nothing of the line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no credential: {what}")]
pub struct NoCredential {
    line: usize,
    what: String,
}

impl Credentials {
    /// Reads the text of a file. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// The first line that is no credential.
    pub fn parse(text: &str) -> Result<Self, NoCredential> {
        let read = |(index, line)| match credential(line) {
            Ok(credential) => credential.map(|credential| Ok(Arc::new(credential))),
            Err(what) => Some(Err(NoCredential { line: index + 1, what })),
        };
        text.lines().enumerate().filter_map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The credential of this secret. Each hash is compared, in constant time.
    pub fn find(&self, secret: &str) -> Option<Arc<Credential>> {
        let secret = decoded(secret)?;
        let found = |found, credential: &Arc<Credential>| {
            if credential.hash.matches(&secret) { Some(Arc::clone(credential)) } else { found }
        };
        self.0.iter().fold(None, found)
    }

    fn of<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Arc<Credential>> {
        self.0.iter().filter(move |credential| credential.name == *name)
    }
}

/// Reads a line. None if it holds nothing.
fn credential(line: &str) -> Result<Option<Credential>, String> {
    let mut words = line.split_whitespace();
    let Some(name) = words.next().filter(|word| !word.starts_with('#')) else { return Ok(None) };
    let hash = words.next().and_then(|word| bytes(word.strip_prefix(HASH)?));
    let hash = hash.ok_or_else(|| format!("after the name comes {HASH} and 43 characters"))?;
    let rights = words.map(str::parse).collect::<Result<Vec<Right>, _>>()?;
    if rights.is_empty() {
        return Err("it has no right".to_owned());
    }
    Ok(Some(Credential { name: name.parse()?, rights, hash: SecretHash(*hash) }))
}

fn decoded(secret: &str) -> Option<SessionSecret> {
    secret.strip_prefix(PREFIX).and_then(bytes).map(|bytes| SessionSecret::new(*bytes))
}

/// Decodes 32 bytes.
fn bytes(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
    decoded.as_slice().try_into().map(Zeroizing::new).ok()
}

/// The credentials in force. All clones are the same.
#[derive(Clone, Debug, Default)]
pub struct CredentialsInForce(Arc<RwLock<Credentials>>);

impl CredentialsInForce {
    /// Puts these in place of the others.
    pub fn replace(&self, credentials: Credentials) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// See [`Credentials::find`].
    pub fn find(&self, secret: &str) -> Option<Arc<Credential>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).find(secret)
    }
}

/// Reads a file of credentials.
///
/// # Errors
/// Why not, as the end of a sentence for the operator.
pub fn read(path: &Path) -> Result<Credentials, String> {
    let text = read_text(path)?;
    Credentials::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Only its owner and its group may use this file, since a writer can give out rights.
fn read_text(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = secret_file::read(path)?;
    if secret_file::others_can_read(path) {
        return Err(format!("{0} can be used by others; run `chmod 600 {0}`", path.display()));
    }
    Ok(text)
}

/// Adds a secret under this name to the file, and returns it. Without rights it gets those that the
/// name has. The file is made if it is missing.
///
/// # Errors
/// Why nothing was changed, as a sentence for the operator.
pub(crate) fn add(path: &Path, name: &Name, rights: &[Right]) -> anyhow::Result<Zeroizing<String>> {
    let file = Locked::existing_or_new(path)?;
    let before =
        if path.exists() { read_text(path).map_err(anyhow::Error::msg)? } else { Zeroizing::default() };
    let credentials = parsed(path, &before)?;
    let same: Vec<_> = credentials.of(name).collect();
    if same.len() >= SECRETS_PER_NAME {
        bail!(
            "{name} has {SECRETS_PER_NAME} secrets already; when nobody uses the older one any more, remove it with \
             `claviger credentials revoke {name} --older`"
        );
    }
    let rights = match (rights, same.last()) {
        ([], None) => {
            bail!("{name} is new, so say what it may do, as in --right {}", Right::WORDS.join(" --right "))
        }
        ([], Some(known)) => known.rights.as_slice(),
        (rights, _) => rights,
    };
    let mut secret = Zeroizing::new([0; 32]);
    OsEntropy.fill(secret.as_mut());
    let hash = URL_SAFE_NO_PAD.encode(SessionSecret::new(*secret).hash().0);
    let rights: String = rights.iter().map(|right| format!(" {right}")).collect();
    let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    file.replace(&format!("{}{end}{name} {HASH}{hash}{rights}\n", before.as_str()))?;
    let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice()));
    Ok(Zeroizing::new(format!("{PREFIX}{}", encoded.as_str())))
}

/// Which secrets of a name are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// All of them.
    All,
    /// All but the newest.
    Older,
}

/// Removes secrets of this name from the file. Returns how many.
///
/// # Errors
/// Why nothing was changed, as a sentence for the operator.
pub(crate) fn revoke(path: &Path, name: &Name, which: Revoked) -> anyhow::Result<usize> {
    let file = Locked::existing(path)?;
    let before = read_text(path).map_err(anyhow::Error::msg)?;
    let all = parsed(path, &before)?.of(name).count();
    let shown = path.display();
    let mut left = match which {
        _ if all == 0 => bail!("{shown} has no credential {name}; nothing was changed"),
        Revoked::All => all,
        Revoked::Older if all == 1 => bail!("{name} has one secret and no older one; nothing was changed"),
        Revoked::Older => all - 1,
    };
    let removed = left;
    let is_its = |line: &str| line.split_whitespace().next() == Some(name.to_string().as_str());
    let kept = before.lines().filter(|line| {
        let goes = left > 0 && is_its(line);
        left -= usize::from(goes);
        !goes
    });
    let text: String = kept.flat_map(|line| [line, "\n"]).collect();
    file.replace(&text)?;
    Ok(removed)
}

fn parsed(path: &Path, text: &str) -> anyhow::Result<Credentials> {
    let shown = path.display();
    Credentials::parse(text)
        .with_context(|| format!("{shown} is not a file of credentials; nothing was changed"))
}

/// A line for each credential: its name and its rights.
impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Credential { name, rights, .. }) in self.0.iter().map(Arc::as_ref).enumerate() {
            let has_newer = self.0.iter().skip(index + 1).any(|later| later.name == *name);
            let rights = rights.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            writeln!(f, "{name}: {rights}{}", if has_newer { " (the older of two secrets)" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_secret_changes_while_both_work_and_the_file_never_shows_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claviger.credentials");
        let rights = [Right::Check, Right::Delegations(name("clips"))];
        let first = add(&path, &name("worker"), &rights).unwrap();
        let other = add(&path, &name("prometheus"), &[Right::Metrics]).unwrap();
        let second = add(&path, &name("worker"), &[]).unwrap();
        assert!(first.starts_with(PREFIX) && first.len() == PREFIX.len() + 43);
        let finds = |secret: &str| read(&path).unwrap().find(secret).map(|found| found.name.to_string());
        for (secret, expected) in [(&first, "worker"), (&second, "worker"), (&other, "prometheus")] {
            assert_eq!(finds(secret).as_deref(), Some(expected));
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains(&secret[PREFIX.len()..]), "SECRET");
        }
        assert_eq!(read(&path).unwrap().find(&second).unwrap().rights, rights);
        assert_eq!(
            read(&path).unwrap().to_string(),
            "worker: check, delegations:clips (the older of two secrets)\nprometheus: metrics\n\
             worker: check, delegations:clips\n"
        );
        let full = add(&path, &name("worker"), &[]).unwrap_err().to_string();
        assert!(full.contains("revoke worker --older"), "{full}");

        assert_eq!(revoke(&path, &name("worker"), Revoked::Older).unwrap(), 1);
        assert_eq!((finds(&first), finds(&second).is_some()), (None, true));
        assert!(revoke(&path, &name("worker"), Revoked::Older).is_err());
        assert_eq!(revoke(&path, &name("worker"), Revoked::All).unwrap(), 1);
        assert_eq!((finds(&second), finds(&other).is_some()), (None, true));
        assert!(
            revoke(&path, &name("worker"), Revoked::All).unwrap_err().to_string().contains("no credential")
        );
        assert!(add(&path, &name("new"), &[]).unwrap_err().to_string().contains("--right check"));
    }

    #[test]
    fn nothing_but_the_secret_itself_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claviger.credentials");
        let secret = add(&path, &name("worker"), &[Right::Check]).unwrap();
        let credentials = read(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let hash = text.split_once(HASH).unwrap().1.split(' ').next().unwrap();
        let wrong = [
            String::new(),
            PREFIX.to_owned(),
            hash.to_owned(),
            format!("{PREFIX}{hash}"),
            secret[PREFIX.len()..].to_owned(),
            format!("{}=", secret.as_str()),
            secret.to_uppercase(),
            format!(" {}", secret.as_str()),
        ];
        for wrong in wrong {
            assert!(credentials.find(&wrong).is_none(), "{wrong}");
        }
        assert!(Credentials::default().find(&secret).is_none());
    }

    #[test]
    fn a_wrong_line_is_named_and_not_shown() {
        let hash = URL_SAFE_NO_PAD.encode([7; 32]);
        let table = [
            ("# ours\n\n", None),
            ("a sha256:HASH check\n", None),
            ("# ours\na canary check\n", Some("line 2")),
            ("canary\n", Some("43 characters")),
            ("a sha256:canary check\n", Some("43 characters")),
            ("a sha256:HASH\n", Some("no right")),
            ("a sha256:HASH canary\n", Some("no such right")),
            ("Canary sha256:HASH check\n", Some("small letters")),
        ];
        for (text, expected) in table {
            let read = Credentials::parse(&text.replace("HASH", &hash)).map(drop);
            let error = read.err().map(|error| error.to_string());
            assert!(error.as_ref().is_none_or(|error| !error.to_lowercase().contains("canary")), "{error:?}");
            assert_eq!(error.is_some(), expected.is_some(), "{text}");
            assert!(error.unwrap_or_default().contains(expected.unwrap_or_default()), "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_use_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claviger.credentials");
        add(&path, &name("worker"), &[Right::Check]).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (mode, expected) in [(0o600, true), (0o640, true), (0o604, false), (0o602, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), expected, "{mode:o}");
            assert_eq!(
                revoke(&path, &name("nobody"), Revoked::All).unwrap_err().to_string().contains("chmod"),
                !expected
            );
        }
    }

    /// A revoked secret must not come back, and no command removes the file of another.
    #[test]
    fn commands_that_run_at_the_same_time_keep_what_the_others_did() {
        const EACH: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claviger.credentials");
        for index in 0..EACH {
            add(&path, &name(&format!("old-{index}")), &[Right::Check]).unwrap();
        }
        let begin = std::sync::Barrier::new(2 * EACH);
        std::thread::scope(|scope| {
            for index in 0..EACH {
                let (path, begin) = (&path, &begin);
                scope.spawn(move || {
                    begin.wait();
                    revoke(path, &name(&format!("old-{index}")), Revoked::All).unwrap();
                });
                scope.spawn(move || {
                    begin.wait();
                    add(path, &name(&format!("new-{index}")), &[Right::Check]).unwrap();
                });
            }
        });
        let mut left: Vec<_> = read(&path).unwrap().0.iter().map(|one| one.name.to_string()).collect();
        left.sort();
        assert_eq!(left, (0..EACH).map(|index| format!("new-{index}")).collect::<Vec<_>>());
    }
}
