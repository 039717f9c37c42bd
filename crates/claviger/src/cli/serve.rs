//! `claviger serve`

use anyhow::Context as _;
use clap::Args;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{ConfigArgs, block_on, signals::Hangups, told_to_stop};
use crate::{
    config::{Config, explain, secrets::Secrets},
    gateway::Gateway,
    metrics,
    reload::{self, Source},
    server, telemetry,
};

/// How to serve.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Starts although rows need a key that is not in the keyring; their users are not served until it is back
    #[arg(long)]
    despite_missing_keys: bool,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let layers = args.config.layers()?;
    let config = args.config.config(&layers)?;
    let secrets = Secrets::load(&config, &layers)?;
    telemetry::start(&config.log, &layers);
    for warning in explain::warnings(&config) {
        tracing::warn!("{warning}");
    }
    block_on(serve(&config, secrets, args))
}

/// The secrets that the configuration names now. Its other settings count from the next start on.
fn read_anew(source: &Source) -> anyhow::Result<Secrets> {
    let args = ConfigArgs { config: source.config.clone() };
    let layers = args.layers()?;
    Ok(Secrets::load(&args.config(&layers)?, &layers)?)
}

async fn serve(config: &Config, secrets: Secrets, args: &ServeArgs) -> anyhow::Result<()> {
    let stop = told_to_stop()?;
    let hangups = Hangups::new()?;
    let gateway = Gateway::open(config, secrets, stop.clone()).await?;
    let engine = gateway.claviger().engine().clone();
    if let Err(error) = engine.require_keys().await {
        if !args.despite_missing_keys {
            return Err(error).context(
                "the gateway does not start, because it could not serve everybody; if the key is lost for good, start \
                 with --despite-missing-keys",
            );
        }
        tracing::error!(%error, "started despite a missing key");
    }
    let source = Source { config: args.config.config.clone(), load: read_anew };
    let reloading = tokio::spawn(watch(source, config.clone(), engine, hangups, stop.clone()));
    let listener = server::bind(config.listen, "listen")?;
    let metrics = match config.metrics.listen {
        Some(address) => {
            let engine = gateway.claviger().engine().clone();
            Some(metrics::serve(server::bind(address, "metrics.listen")?, engine, stop.clone())?)
        }
        None => None,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %listener.local_addr()?,
        public_url = %config.public_url.origin(),
        upstream = config.upstream.as_ref().map(|upstream| upstream.origin()),
        "ready"
    );
    server::serve(gateway, listener, &config.limits, stop).await?;
    if let Some(metrics) = metrics {
        metrics.await?;
    }
    reloading.await?;
    tracing::info!("stopped");
    Ok(())
}

/// Reads the secrets anew while the gateway runs.
async fn watch(
    source: Source,
    config: Config,
    engine: claviger_engine::Engine,
    mut hangups: Hangups,
    stop: CancellationToken,
) {
    let told = Notify::new();
    let forward = async {
        loop {
            hangups.next().await;
            told.notify_one();
        }
    };
    tokio::select! {
        () = reload::keep(source, &config, &engine, &told, stop) => {}
        () = forward => {}
    }
}
