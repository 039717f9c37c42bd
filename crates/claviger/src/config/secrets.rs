//! Reads the secrets that a configuration names: the client secret, the root keys, the secret of the webhook, and the address of
//! the database.

use std::path::{Path, PathBuf};

use claviger_core::secret::ClientSecret;
use claviger_provider::WebhookSecret;
use claviger_seal::{Keyring, RootKey};
use claviger_store_postgres::{Address, Way};
use zeroize::Zeroizing;

use super::{Config, Layers, Problem, Problems, Secret, Store};

/// Files of secrets are read up to so many bytes.
const SECRET_FILE_BYTES: u64 = 64 * 1024;

/// The secrets of a configuration.
#[derive(Debug)]
pub struct Secrets {
    /// The client secret.
    pub client_secret: ClientSecret,
    /// The root keys.
    pub keyring: Keyring,
    /// What the provider signs its notices with, if it is to send any.
    pub webhook: Option<WebhookSecret>,
    /// Where the sessions are, if not in a file.
    pub database: Option<Database>,
}

/// The addresses of a database, which may hold passwords.
#[derive(Clone, Debug)]
pub struct Database {
    /// Where it is.
    pub address: Address,
    /// Where to listen, if that is elsewhere.
    pub listen_address: Option<Address>,
}

impl Secrets {
    /// Reads them.
    ///
    /// # Errors
    /// What cannot be read or understood. No error shows a secret.
    pub fn load(config: &Config, layers: &Layers) -> Result<Self, Problems> {
        match (
            client_secret(config, layers),
            keyring(config, layers),
            webhook(config, layers),
            database(config, layers),
        ) {
            (Ok(client_secret), Ok(keyring), Ok(webhook), Ok(database)) => {
                Ok(Self { client_secret, keyring, webhook, database })
            }
            (secret, keyring, webhook, database) => {
                let wrong = [secret.err(), keyring.err(), webhook.err(), database.err()];
                Err(Problems(wrong.into_iter().flatten().collect()))
            }
        }
    }
}

/// How the way to a database is protected.
pub(crate) fn way(store: &Store) -> Way {
    match store.insecure_plaintext_to_database {
        true => Way::InsecurePlaintext,
        false => Way::Tls { authorities: store.ca_file.clone() },
    }
}

/// Reads where the database is, if the sessions are in one.
pub(crate) fn database(config: &Config, layers: &Layers) -> Result<Option<Database>, Problem> {
    let store = &config.store;
    let way = way(store);
    let address = |key, text: &Option<Secret>, key_file, file: &Option<PathBuf>| {
        let (key, text) = match (text, file) {
            (Some(text), _) => (key, Zeroizing::new(text.expose().to_owned())),
            (None, Some(path)) => (key_file, read(path).map_err(|what| layers.problem(key_file, what))?),
            (None, None) => return Ok(None),
        };
        let address = Address::parse(text.trim(), &way);
        address.map(Some).map_err(|error| {
            let key = if error.is_of_certificates() { "store.ca_file" } else { key };
            layers.problem(key, error.to_string())
        })
    };
    let listen_address =
        address("store.listen_url", &store.listen_url, "store.listen_url_file", &store.listen_url_file)?;
    let address = address("store.url", &store.url, "store.url_file", &store.url_file)?;
    Ok(address.map(|address| Database { address, listen_address }))
}

fn webhook(config: &Config, layers: &Layers) -> Result<Option<WebhookSecret>, Problem> {
    let (key, secret) = match (&config.webhook.secret, &config.webhook.secret_file) {
        (Some(secret), _) => ("webhook.secret", Zeroizing::new(secret.expose().to_owned())),
        (None, Some(path)) => {
            let key = "webhook.secret_file";
            (key, read(path).map_err(|what| layers.problem(key, what))?)
        }
        (None, None) => return Ok(None),
    };
    let secret = WebhookSecret::new(secret.trim());
    secret.map(Some).map_err(|unfit| {
        layers
            .problem(key, format!("holds no webhook secret: {unfit}, such as `openssl rand -hex 32` prints"))
    })
}

fn client_secret(config: &Config, layers: &Layers) -> Result<ClientSecret, Problem> {
    let (key, secret) = match (&config.provider.client_secret, &config.provider.client_secret_file) {
        (Some(secret), _) => ("provider.client_secret", Zeroizing::new(secret.expose().to_owned())),
        (None, Some(path)) => {
            let key = "provider.client_secret_file";
            (key, read(path).map_err(|what| layers.problem(key, what))?)
        }
        (None, None) => return Err(layers.problem("provider.client_secret_file", "is needed")),
    };
    let secret = secret.trim();
    if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            layers.problem(key, "holds no client secret: one word is expected, as the provider shows it")
        );
    }
    Ok(ClientSecret::new(secret))
}

fn keyring(config: &Config, layers: &Layers) -> Result<Keyring, Problem> {
    let (key, keys) = match (&config.keyring, &config.keyring_file) {
        (Some(keys), _) => ("keyring", keys.iter().map(|key| RootKey::parse(key.expose())).collect()),
        (None, Some(path)) => {
            let text = read(path).map_err(|what| layers.problem("keyring_file", what))?;
            ("keyring_file", parse_lines(&text))
        }
        (None, None) => return Err(layers.problem("keyring_file", "is needed")),
    };
    let keys = keys.map_err(|error| layers.problem(key, error.to_string()))?;
    Keyring::new(keys).map_err(|error| layers.problem(key, error.to_string()))
}

/// Reads root keys, one in each line, newest first.
pub(crate) fn parse_lines(text: &str) -> Result<Vec<RootKey>, claviger_seal::KeyFormatError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(RootKey::parse).collect()
}

/// Reads a small file of text into memory that is wiped.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let length = std::fs::metadata(path).map_err(|error| format!("{shown} cannot be read ({error})"))?.len();
    if length > SECRET_FILE_BYTES {
        return Err(format!("{shown} is too large for a file of secrets"));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("{shown} cannot be read ({error})"))?;
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| format!("{shown} is not text"))
}

/// Whether others than its owner can read a file.
#[cfg(unix)]
pub(crate) fn others_can_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

/// Whether others than its owner can read a file; not told on this system.
#[cfg(not(unix))]
pub(crate) fn others_can_read(_path: &Path) -> bool {
    false
}
