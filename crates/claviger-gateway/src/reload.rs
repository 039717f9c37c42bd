//! Reloads keys, client secret and credentials while the gateway runs: at SIGHUP, and when one of
//! their files changes.
//!
//! Unusable ones are refused. The old ones then stay in use, the log asks the operator to act, and
//! the gateway tries again. Credentials do not wait for the others, since a revocation is urgent.

use std::{path::PathBuf, time::Duration};

use claviger_engine::Engine;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    config::{Config, Layers, secrets::Secrets},
    private::credentials::{self, CredentialsInForce},
};

/// How often the files are checked.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Number of checks after which refused files are tried again.
const CHECKS_PER_TRY: u32 = 30;

/// Reads the configuration.
pub type Load = fn(&Source) -> anyhow::Result<(Config, Layers)>;

/// Where the secrets come from, and how they are read.
pub struct Source {
    /// The configuration's file.
    pub config: Option<PathBuf>,
    /// The settings that the gateway started with.
    pub started: Layers,
    /// Reads the configuration.
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

/// The files of secrets that a configuration names, and what they held.
pub struct Watched {
    files: Vec<PathBuf>,
    seen: Contents,
    credentials: Option<PathBuf>,
}

/// The contents of the files. An unreadable file counts as empty; loading it reports why.
type Contents = Vec<Option<Zeroizing<Vec<u8>>>>;

impl Watched {
    /// Looks at the files of a configuration. If its secrets are loaded after this, no change is
    /// missed.
    pub fn new(config: &Config) -> Self {
        let credentials = config.private.credentials_file.clone();
        let files = [&config.keyring_file, &config.provider.client_secret_file, &credentials];
        let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
        Self { seen: contents(&files), files, credentials }
    }

    /// Whether a file changed since the last look.
    fn look(&mut self) -> bool {
        let now = contents(&self.files);
        let is_changed = now != self.seen;
        self.seen = now;
        is_changed
    }
}

/// Reloads the secrets until `stop`: when one of their files changes, and when `asked` is notified.
pub async fn keep(
    source: Source,
    mut watched: Watched,
    users: &Users,
    asked: &Notify,
    stop: CancellationToken,
) {
    // The first tick is at once, because the start may have taken long.
    let mut ticks = interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut refused, mut checks) = (false, 0);
    loop {
        let is_asked = tokio::select! {
            () = stop.cancelled() => return,
            () = asked.notified() => true,
            _ = ticks.tick() => false,
        };
        checks += 1;
        let is_changed = watched.look();
        let is_due = refused && checks >= CHECKS_PER_TRY;
        if !(is_asked || is_changed || is_due) {
            continue;
        }
        checks = 0;
        refused = match reload(&source, &mut watched, users).await {
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

/// Loads the secrets that the configuration names now. Other settings change at the next start
/// only, and the log says so.
///
/// # Errors
/// Why they are refused, as a sentence for the operator.
async fn reload(source: &Source, watched: &mut Watched, users: &Users) -> anyhow::Result<()> {
    let Users { engine, credentials: in_force } = users;
    let named = (source.load)(source);
    if let Ok((config, _)) = &named {
        *watched = Watched::new(config);
    }
    // Nothing else that is refused keeps a revoked credential in force. If the file itself is
    // refused, loading all secrets reports why.
    if let Some(Ok(read)) = watched.credentials.as_deref().map(credentials::read) {
        in_force.replace(read);
    }
    let (config, layers) = named?;
    let secrets = Secrets::load(&config, &layers)?;
    let changed = layers.need_restart(&source.started).join(", ");
    if !changed.is_empty() {
        tracing::warn!("changed since the start, and in force after a restart only: {changed}");
    }
    in_force.replace(secrets.credentials);
    engine.use_keys(secrets.keyring).await?;
    engine.use_client_secret(secrets.client_secret).await;
    tracing::info!("reloaded keys and secrets");
    Ok(())
}

fn contents(files: &[PathBuf]) -> Contents {
    files.iter().map(|file| std::fs::read(file).ok().map(Zeroizing::new)).collect()
}
