//! Keys and client secret, read anew while the gateway runs: when it is told to by SIGHUP, and when one of their files changes.
//!
//! What cannot be used is refused: the old ones stay in force, the log says who must act, and it is tried again.

use std::{path::PathBuf, time::Duration};

use claviger_engine::Engine;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::{Config, secrets::Secrets};

/// The files are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What was refused is tried again after so many looks.
const LOOKS_PER_TRY: u32 = 30;

/// Reads the configuration and its secrets.
pub type Load = fn(&Source) -> anyhow::Result<Secrets>;

/// Where the secrets come from, and how they are read.
pub struct Source {
    /// The configuration's file.
    pub config: Option<PathBuf>,
    /// Reads it.
    pub load: Load,
}

/// Reads the secrets anew until `stop`, whenever one of their files changes or `told` says so.
pub async fn keep(source: Source, config: &Config, engine: &Engine, told: &Notify, stop: CancellationToken) {
    let files: Vec<PathBuf> =
        [&config.keyring_file, &config.provider.client_secret_file].into_iter().flatten().cloned().collect();
    let mut seen = contents(&files);
    let (mut refused, mut looks) = (false, 0);
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return,
            () = told.notified() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let now = contents(&files);
        looks += 1;
        if !told && now == seen && !(refused && looks >= LOOKS_PER_TRY) {
            continue;
        }
        (seen, looks) = (now, 0);
        refused = match reload(&source, engine).await {
            Ok(()) => false,
            Err(error) => {
                tracing::error!(
                    "keys and client secret stay as they were, because the new ones are refused; the operator must act: \
                     {error:#}"
                );
                true
            }
        };
    }
}

/// Takes what the configuration names now.
///
/// # Errors
/// Why it is refused, as a sentence for the operator.
pub async fn reload(source: &Source, engine: &Engine) -> anyhow::Result<()> {
    let secrets = (source.load)(source)?;
    engine.use_keys(secrets.keyring).await?;
    engine.use_client_secret(secrets.client_secret).await;
    tracing::info!("keys and client secret were read anew");
    Ok(())
}

/// What the files hold. One that cannot be read holds nothing; reading it anew tells why.
fn contents(files: &[PathBuf]) -> Vec<Option<Zeroizing<Vec<u8>>>> {
    files.iter().map(|file| std::fs::read(file).ok().map(Zeroizing::new)).collect()
}
