//! Reloads keys, client secret and credentials while the gateway runs: at SIGHUP, and when one of
//! their files changes.
//!
//! Unusable ones are refused. The old ones then stay in use, the log asks the operator to act, and
//! the gateway tries again.

use std::{path::PathBuf, time::Duration};

use claviger_engine::Engine;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    config::{Config, Layers, secrets::Secrets},
    private::credentials::CredentialsInForce,
};

/// How often the files are checked.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Number of checks after which refused files are tried again.
const CHECKS_PER_TRY: u32 = 30;

/// Reads the configuration and its secrets.
pub type Load = fn(&Source) -> anyhow::Result<Secrets>;

/// Where the secrets come from, and how they are read.
pub struct Source {
    /// The configuration's file.
    pub config: Option<PathBuf>,
    /// The settings that the gateway started with.
    pub started: Layers,
    /// Reads the secrets.
    pub load: Load,
}

/// What uses the secrets.
#[derive(Clone)]
pub struct Users {
    /// It uses keys and client secret.
    pub engine: Engine,
    /// The credentials of the private listener.
    pub credentials: CredentialsInForce,
}

/// Reloads the secrets until `stop`: when one of their files changes, and when `asked` is notified.
pub async fn keep(source: Source, config: &Config, users: &Users, asked: &Notify, stop: CancellationToken) {
    let files = [&config.keyring_file, &config.provider.client_secret_file, &config.private.credentials_file];
    let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
    let mut seen = contents(&files);
    let (mut refused, mut checks) = (false, 0);
    loop {
        let is_asked = tokio::select! {
            () = stop.cancelled() => return,
            () = asked.notified() => true,
            () = tokio::time::sleep(CHECK_EVERY) => false,
        };
        let now = contents(&files);
        checks += 1;
        if !is_asked && now == seen && !(refused && checks >= CHECKS_PER_TRY) {
            continue;
        }
        (seen, checks) = (now, 0);
        refused = match reload(&source, users).await {
            Ok(()) => false,
            Err(error) => {
                tracing::error!(
                    "the new keys and secrets are refused, and the old ones stay in use; the operator must act: {error:#}"
                );
                true
            }
        };
    }
}

/// Loads the secrets that the configuration names now.
///
/// # Errors
/// Why they are refused, as a sentence for the operator.
pub async fn reload(source: &Source, users: &Users) -> anyhow::Result<()> {
    let Users { engine, credentials } = users;
    let secrets = (source.load)(source)?;
    // Keys that are refused must not keep a revoked credential in force.
    credentials.replace(secrets.credentials);
    engine.use_keys(secrets.keyring).await?;
    engine.use_client_secret(secrets.client_secret).await;
    tracing::info!("reloaded keys and secrets");
    Ok(())
}

/// The contents of the files. An unreadable file counts as empty; loading it reports why.
fn contents(files: &[PathBuf]) -> Vec<Option<Zeroizing<Vec<u8>>>> {
    files.iter().map(|file| std::fs::read(file).ok().map(Zeroizing::new)).collect()
}
