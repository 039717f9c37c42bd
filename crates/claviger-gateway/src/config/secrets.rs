//! Reads the secrets that a configuration names: the client secret, the root keys, the webhook
//! secret, the address of the database, and the credentials of the private listener.

use std::path::PathBuf;

use claviger_core::ClientSecret;
use claviger_provider::WebhookSecret;
use claviger_seal::{Keyring, RootKey};
use claviger_store_postgres::{Address, Way};
use zeroize::Zeroizing;

use crate::{
    private::credentials::{self, Credentials},
    secret_file::read,
};

use super::{
    layers::Layers,
    problem::{Problem, Problems},
    settings::{Config, Provider, Store, Webhook},
    values::Secret,
};

/// The secrets of a configuration.
#[derive(Debug)]
pub struct Secrets {
    /// The client secret.
    pub client_secret: ClientSecret,
    /// The root keys.
    pub keyring: Keyring,
    /// The secret that signs webhook events, if there is a webhook.
    pub webhook: Option<WebhookSecret>,
    /// The database, if the sessions are not in a file.
    pub database: Option<Database>,
    /// The credentials of the private listener.
    pub credentials: Credentials,
}

/// The addresses of a database, which may hold passwords.
#[derive(Clone, Debug)]
pub struct Database {
    /// The address of the database.
    pub address: Address,
    /// The address for receiving changes, if that is another one.
    pub listen_address: Option<Address>,
}

impl Secrets {
    /// Reads them.
    ///
    /// # Errors
    /// All secrets that cannot be read or parsed. No error shows a secret.
    pub fn load(config: &Config, layers: &Layers) -> Result<Self, Problems> {
        match (
            client_secret(config, layers),
            keyring(config, layers),
            webhook(config, layers),
            database(config, layers),
            credentials(config, layers),
        ) {
            (Ok(client_secret), Ok(keyring), Ok(webhook), Ok(database), Ok(credentials)) => {
                Ok(Self { client_secret, keyring, webhook, database, credentials })
            }
            (secret, keyring, webhook, database, credentials) => {
                let wrong = [secret.err(), keyring.err(), webhook.err(), database.err(), credentials.err()];
                Err(Problems(wrong.into_iter().flatten().collect()))
            }
        }
    }
}

/// How connections to the database are protected.
pub(crate) fn way(store: &Store) -> Way {
    match store.insecure_plaintext_to_database {
        true => Way::InsecurePlaintext,
        false => Way::Tls { authorities: store.ca_file.clone() },
    }
}

/// Reads the address of the database, if the sessions are in one.
pub(crate) fn database(config: &Config, layers: &Layers) -> Result<Option<Database>, Problem> {
    let store = &config.store;
    let way = way(store);
    let address = |key, text, file| {
        let Some((key, text)) = secret(key, text, file, layers)? else { return Ok(None) };
        let address = Address::parse(text.trim(), &way);
        address.map(Some).map_err(|error| {
            let key = if error.is_of_certificates() { "store.ca_file" } else { &key };
            layers.problem(key, error.to_string())
        })
    };
    let listen_address = address("store.listen_url", &store.listen_url, &store.listen_url_file)?;
    let address = address("store.url", &store.url, &store.url_file)?;
    Ok(address.map(|address| Database { address, listen_address }))
}

fn webhook(config: &Config, layers: &Layers) -> Result<Option<WebhookSecret>, Problem> {
    let Webhook { secret: text, secret_file, .. } = &config.webhook;
    let Some((key, secret)) = secret("webhook.secret", text, secret_file, layers)? else { return Ok(None) };
    let secret = WebhookSecret::new(secret.trim());
    secret.map(Some).map_err(|unfit| {
        let what = format!("holds no webhook secret: {unfit}, such as `openssl rand -hex 32` prints");
        layers.problem(&key, what)
    })
}

fn credentials(config: &Config, layers: &Layers) -> Result<Credentials, Problem> {
    let Some(path) = &config.private.credentials_file else { return Ok(Credentials::default()) };
    credentials::read(path).map_err(|what| layers.problem("private.credentials_file", what))
}

fn client_secret(config: &Config, layers: &Layers) -> Result<ClientSecret, Problem> {
    let Provider { client_secret, client_secret_file, .. } = &config.provider;
    let given = secret("provider.client_secret", client_secret, client_secret_file, layers)?;
    let (key, secret) = given.ok_or_else(|| layers.problem("provider.client_secret_file", "is required"))?;
    let secret = secret.trim();
    if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = "holds no client secret: expected one word, as the provider shows it";
        return Err(layers.problem(&key, what));
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
        (None, None) => return Err(layers.problem("keyring_file", "is required")),
    };
    let keys = keys.map_err(|error| layers.problem(key, error.to_string()))?;
    Keyring::new(keys).map_err(|error| layers.problem(key, error.to_string()))
}

/// A secret, and the key of the setting that gave it: `key` itself or that of its file. None if
/// neither is set.
fn secret(
    key: &str,
    text: &Option<Secret>,
    file: &Option<PathBuf>,
    layers: &Layers,
) -> Result<Option<(String, Zeroizing<String>)>, Problem> {
    if let Some(text) = text {
        return Ok(Some((key.to_owned(), Zeroizing::new(text.expose().to_owned()))));
    }
    let Some(path) = file else { return Ok(None) };
    let key = format!("{key}_file");
    let text = read(path).map_err(|what| layers.problem(&key, what))?;
    Ok(Some((key, text)))
}

/// Parses root keys, one per line.
pub(crate) fn parse_lines(text: &str) -> Result<Vec<RootKey>, claviger_seal::KeyFormatError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(RootKey::parse).collect()
}
